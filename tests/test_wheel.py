"""What a device receives: a wheel of the packages alone, that runs beside numpy, Pillow and ONNX Runtime.

The wheel is built from a copy of what git holds, installed into fresh venvs, and does there what a device does: in this
Python, in JetPack 6's Python 3.10 with the numpy and the ONNX Runtime that go with it, and in a newer one. The tests of
the folders that a device uses run once from it, in the oldest of them, where the clone cannot be imported.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("bundle", "engine", "camera", "data", "helpers")  # tests that need what a device has; others of theirs skip
LEAST_TESTS = 400  # below this, the suite was not found rather than passed
ABSENT = ("torch", "torchvision", "onnx", "onnxscript", "modelopt", "cv2", "matplotlib", "safetensors", "tensorrt_rtx")
NO_INDEX = re.compile(r"No matching distribution|Could not fetch|connection|name resolution|unreachable", re.IGNORECASE)


# Follows the suite's own conftest: nothing here can export, so the bundle comes ready.
CONFTEST = """
import os, sys
import logoformer

assert Path(logoformer.__file__).is_relative_to(sys.prefix), logoformer.__file__

@pytest.fixture(scope="session")
def untrained_bundle():
    return Path(os.environ["READY_BUNDLE"])
"""

# Beside the Python that runs this. numpy 1.26 is what JetPack's OpenCV wants; 1.23.2 is the last ONNX Runtime for 3.10.
JETPACK_6 = ((3, 10),), "cpu,jetson", ("numpy==1.26.4", "onnxruntime==1.23.2")
NEWER = ((3, 13), (3, 12)), "cpu", ()

ANSWER = """
import json, sys
from pathlib import Path
import logoformer
assert Path(logoformer.__file__).is_relative_to(sys.prefix), logoformer.__file__
with logoformer.load(sys.argv[1]) as engine:
    golden = engine.bundle.golden()
    off = max(
        float(abs(engine(clip, color="rgb").probabilities - wanted).max())
        for clip, wanted in zip(golden.clips, golden.probabilities)
    )
    with engine.stream(hop=4, color="rgb") as stream:
        frames = golden.clips.reshape(-1, *golden.clips.shape[2:])
        pushed = [stream.push(frames[n % len(frames)], n / 25) for n in range(engine.bundle.sampling.span_frames + 8)]
    answers = [result for result in pushed if result is not None]
print(json.dumps({"off": off, "answers": len(answers), "backend": engine.backend}))
"""


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what would let a new interpreter find the clone."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
    return {name: value for name, value in os.environ.items() if name not in hidden} | more


def go(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = [str(word) for word in words]
    return subprocess.run(
        given, cwd=cwd, env=clean_environment(**environment), capture_output=True, text=True, check=False
    )


def cannot(why: str) -> NoReturn:
    """CI has a package index; a person on a train may not."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def pip(python: Path | str, *words: object, cwd: Path) -> None:
    done = go(python, "-m", "pip", "--disable-pip-version-check", "--no-input", *words, cwd=cwd)
    if done.returncode and NO_INDEX.search(done.stderr):
        cannot(f"pip reaches no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


# ------------------------------------------------------------------------------------------------------------- fixtures
@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory) -> Path:
    """What a commit of this tree would hold, and nothing else: no build folder, no bundle, no venv."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        cannot("not a git checkout: what belongs to the project is unknown")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    copy = tmp_path_factory.mktemp("copy")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(clean_copy, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "logoformer"
    shutil.copytree(clean_copy, source)  # the build leaves traces in its source
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def device(wheel, tmp_path_factory) -> Path:
    """The interpreter of a venv with the wheel and its extra `cpu`."""
    return install(sys.executable, wheel, "cpu", (), tmp_path_factory.mktemp("device"))


@pytest.fixture(scope="module")
def jetpack_6(wheel, tmp_path_factory) -> Path:
    """The same with JetPack 6's Python and numpy."""
    versions, extras, pins = JETPACK_6
    return install_in(versions, wheel, extras, pins, tmp_path_factory.mktemp("jetpack6"))


@pytest.fixture(scope="module")
def newer(wheel, tmp_path_factory) -> Path:
    """The same with a newer Python and what pip then takes."""
    versions, extras, pins = NEWER
    return install_in(versions, wheel, extras, pins, tmp_path_factory.mktemp("newer"))


def interpreter(versions: tuple[tuple[int, int], ...]) -> str | None:
    """The first of these Pythons that this machine has."""
    for major, minor in versions:
        name = f"python{major}.{minor}"
        kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        managed = Path.home() / ".local" / "share" / "uv" / "python"
        found = [shutil.which(name), *sorted(kept.glob(f"{major}.{minor}.*/bin/{name}"))]
        found += sorted(managed.glob(f"cpython-{major}.{minor}.*/bin/{name}"))
        for python in filter(None, found):
            # A shim of pyenv is on the path for every version and works for the chosen ones only.
            asked = subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False)
            if asked.returncode == 0:
                return str(python)
    return None


def install_in(
    versions: tuple[tuple[int, int], ...], wheel: Path, extras: str, pins: tuple[str, ...], folder: Path
) -> Path:
    """`install` with another Python. No registry that this project uses has one, so CI skips where it is missing."""
    python = interpreter(versions)
    if python is None:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in versions)
        pytest.skip(f"no Python {wanted} on the path, in pyenv or in uv's folder")
    return install(python, wheel, extras, pins, folder)


def install(python: str, wheel: Path, extras: str, pins: tuple[str, ...], folder: Path) -> Path:
    """Makes a venv with the wheel in it; gives its interpreter."""
    made = go(python, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    inside = folder / "venv" / "bin" / "python"
    pip(inside, "install", "--quiet", f"{wheel}[{extras}]", *pins, cwd=folder)
    return inside


@pytest.fixture(scope="module")
def ready_bundle(untrained_bundle, tmp_path_factory) -> Path:
    """A copy of its own: `verify` writes into it."""
    return shutil.copytree(untrained_bundle, tmp_path_factory.mktemp("ready") / "face.bundle")


@pytest.fixture
def frames(tmp_path) -> Path:
    """A folder of six numbered images."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (72, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


# ---------------------------------------------------------------------------------------------------------------- tests
def test_the_wheel_holds_the_packages_and_nothing_else(wheel, clean_copy):
    ours = [path.relative_to(clean_copy) for path in clean_copy.rglob("*") if path.suffix == ".py"]
    wanted = {f"logoformer/{path}" for path in ours if path.parts[0] not in ("tests", "docs", "examples")}
    packed = set(zipfile.ZipFile(wheel).namelist())
    info = {name for name in packed if re.match(r"logoformer-[\d.]+\.dist-info/", name)}
    folder = Path("model/training/recipes")
    recipes = {f"logoformer/{folder / path.name}" for path in (clean_copy / folder).glob("*.json")}
    more = {
        f"logoformer/{folder}/{path.name}"
        for folder in ("camera/faces/weights", "camera/web/static")
        for path in (clean_copy / folder).iterdir()
    }
    assert len(recipes) >= 3 and len(more) >= 7
    assert packed - info == wanted | recipes | more | {"logoformer/py.typed"}
    assert {name.split("/", 1)[1] for name in info} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"
    }  # fmt: skip


def test_recipes_are_read_inside_a_zip_file(wheel, tmp_path):
    code = "import logoformer.model.training.recipe as m; print(m.__file__); print(m.recipe(m.recipe_names()[0]).name)"
    path = {**os.environ, "PYTHONPATH": str(wheel), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=path, capture_output=True, text=True, timeout=120, check=False)
    file, name = done.stdout.split()
    assert file.startswith(str(wheel)) and name, done.stderr


@pytest.mark.parametrize("place", ["device", "jetpack_6", "newer"])
def test_it_finds_faces(place, request, tmp_path):
    shutil.copyfile(ROOT / "tests/camera/faces/data/sample1.jpg", tmp_path / "photo.jpg")
    code = (
        "import numpy as np; from PIL import Image; from logoformer.camera.faces.finder import FaceFinder; "
        "print(len(FaceFinder().find(np.asarray(Image.open('photo.jpg')), 'rgb', 0.0).faces))"
    )
    done = go(request.getfixturevalue(place), "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "3", done.stderr


def test_it_asks_for_numpy_and_pillow_alone(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    asked = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")
    always = {re.split(r"[^\w.-]", line)[0].lower() for line in asked if "extra ==" not in line}
    assert always == {"numpy", "pillow"}


def test_the_venv_has_nothing_of_training_and_export(device, tmp_path):
    code = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    assert go(device, "-c", code, *ABSENT, cwd=tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize("place", ["device", "jetpack_6", "newer"])
def test_it_loads_answers_and_streams(place, request, ready_bundle, tmp_path):
    done = go(request.getfixturevalue(place), "-c", ANSWER, ready_bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["off"] < 1e-3
    assert said["answers"] >= 2
    assert said["backend"].startswith("onnxruntime")


def test_the_versions_are_those_that_are_meant(jetpack_6, newer, tmp_path):
    code = "import sys, numpy, onnxruntime; print(*sys.version_info[:2], numpy.__version__, onnxruntime.__version__)"
    assert go(jetpack_6, "-c", code, cwd=tmp_path).stdout.split() == ["3", "10", "1.26.4", "1.23.2"]
    major, minor, numpy, _ = go(newer, "-c", code, cwd=tmp_path).stdout.split()
    assert (int(major), int(minor)) >= (3, 12) and numpy.startswith("2.")


@pytest.mark.parametrize("place", ["device", "jetpack_6", "newer"])
def test_doctor_sees_that_a_bundle_can_run(place, request, tmp_path):
    python = request.getfixturevalue(place)
    done = go(python.with_name("logoformer"), "doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert {state["name"]: state["runs"] for state in said["backends"]}["onnxruntime"] is True
    assert {check["name"]: check["status"] for check in said["checks"]}["numpy"] == "ok"


@pytest.mark.parametrize("place", ["device", "jetpack_6", "newer"])
def test_the_verbs_of_a_device_run(place, request, ready_bundle, frames, tmp_path):
    command = request.getfixturevalue(place).with_name("logoformer")
    run = go(command, "run", ready_bundle, frames, "--hop", "2", "--warmup", "repeat", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [1, 3, 5]
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in lines)

    shown = go(command, "inspect", ready_bundle, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "temporal" in shown.stdout

    verified = go(command, "verify", ready_bundle, "--json", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    rows = json.loads(verified.stdout)["rows"]
    assert {(row["what"], row["verdict"]) for row in rows if row["precision"] == "fp32"} == {
        ("clip", "verified"), ("frame + temporal", "verified")
    }  # fmt: skip
    kept = json.loads((ready_bundle / "manifest.json").read_text())
    assert len(kept["verification"]["rows"]) == len(rows)


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["init", "-o", "ckpt"], "train"),
        (["synth", "-o", "faces"], "train"),
        (["train", "--data", "faces", "-o", "ckpt"], "train"),
        (["evaluate", "ckpt", "--data", "faces"], "train"),
        (["export", "ckpt"], "export"),
        (["build", "BUNDLE"], "rtx"),
        (["inspect", "BUNDLE", "--plan"], "rtx"),
        (["inspect", "--complexity"], "train"),
        (["run", "BUNDLE", "clip.mp4"], "camera"),
        (["watch", "BUNDLE", "clip.mp4", "--no-page"], "camera"),
        (["demo"], "export,rtx"),
    ],
)
def test_other_verbs_name_the_extra_that_they_need(words, extra, device, ready_bundle, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(4096))
    given = [ready_bundle if word == "BUNDLE" else word for word in words]
    done = go(device.with_name("logoformer"), *given, cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert f"pip install 'logoformer[{extra}]'" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


@pytest.fixture(scope="module")
def camera_device(wheel, tmp_path_factory) -> Path:
    """JetPack 6's Python and numpy with the extra `camera`; another old Python where this machine has not that one."""
    versions, extras, pins = JETPACK_6
    folder = tmp_path_factory.mktemp("camera")
    if interpreter(versions) is None:
        return install(sys.executable, wheel, "cpu,camera,watch", ("numpy==1.26.4",), folder)
    return install_in(versions, wheel, f"{extras},camera,watch", pins, folder)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A drawn person, as a video."""
    pytest.importorskip("cv2", reason="drawing a scene needs the extra 'train'")
    from logoformer.model.synthetic.layout import write_scene

    path = tmp_path_factory.mktemp("scene") / "scene.mp4"
    write_scene(path, people=1, rounds=1)
    return path


def test_watch_finds_the_face_of_a_video_and_draws_what_it_reads(camera_device, ready_bundle, scene, tmp_path):
    command, out = camera_device.with_name("logoformer"), tmp_path / "o.mp4"
    done = go(command, "watch", ready_bundle, scene, "--no-page", "--hop", "8", "-o", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 8 and {line["face"] for line in lines} == {1}
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in lines)
    assert out.stat().st_size > 10_000
    code = "import numpy, sys; print(numpy.__version__, *sys.version_info[:2])"
    numpy, major, minor = go(camera_device, "-c", code, cwd=tmp_path).stdout.split()
    assert numpy == "1.26.4" and ((int(major), int(minor)) == (3, 10) or interpreter(JETPACK_6[0]) is None)


def test_watch_shows_pictures_without_an_extra(device, ready_bundle, frames, tmp_path):
    """numpy and Pillow are enough for a folder of frames, and for its page."""
    code = """
import sys, urllib.request
import logoformer
from logoformer.camera import Watch
with logoformer.load(sys.argv[1]) as runtime:
    with Watch(runtime, [sys.argv[2]], face="whole", hop=1, warmup="repeat", loop=True) as watch:
        address = watch.serve(0)
        for answer in watch:
            break
        for path in ("", "watch.js", "snapshot.jpg", "state.json", "healthz"):
            assert urllib.request.urlopen(address + path, timeout=30).status == 200
print(answer.label)
"""
    done = go(device, "-c", code, ready_bundle, frames, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_suite_runs_from_the_wheel(request, clean_copy, ready_bundle, tmp_path):
    device = request.getfixturevalue("device" if interpreter(JETPACK_6[0]) is None else "jetpack_6")
    for folder in FOLDERS:
        shutil.copytree(clean_copy / "tests" / folder, tmp_path / "tests" / folder)
    shutil.copyfile(clean_copy / "pyproject.toml", tmp_path / "pyproject.toml")  # pytest's settings
    common = (clean_copy / "tests" / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "tests" / "conftest.py").write_text(common + CONFTEST, encoding="utf-8")
    pip(device, "install", "--quiet", "pytest", "hypothesis", cwd=tmp_path)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--maxfail", "5", "tests"]
    done = go(device, *words, cwd=tmp_path, READY_BUNDLE=str(ready_bundle))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= LEAST_TESTS, done.stdout[-1000:]
