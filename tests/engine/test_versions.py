"""The oldest and the newest numpy, Pillow, ONNX Runtime and OpenVINO that pyproject allows answer bundles.

Each set has a venv of its own under build/venvs, made once: 30 to 60 s, most of it unpacking.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle

if sys.version_info >= (3, 11):
    import tomllib
else:
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "data" / "bundle-v0.1"
EXTRAS = ("cpu", "openvino")
CLIPS = 70

ANSWER = """
import json, sys
import numpy as np, PIL, onnxruntime, openvino
import logoformer
from logoformer import clips

bundle, given, out = sys.argv[1:]
frames = np.load(given)["clips"]
found = {}
for backend in ("onnxruntime", "openvino"):
    for precision in logoformer.Bundle(bundle).precisions:
        with logoformer.load(bundle, backend=backend, precision=precision, threads=1) as runtime:
            found[f"{backend} {precision}"] = np.stack([runtime(clip, color="rgb").probabilities for clip in frames])
            with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
                larger = clips.resize(frames[0, 0], 96)  # Pillow enlarges it, the stream shrinks it again
                found[f"{backend} {precision} stream"] = stream.push(larger, 0.0).probabilities[None]
            names = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__}
            assert names[backend].split("-")[0] in runtime.backend
np.savez(out, **found)
print(json.dumps({"numpy": np.__version__, "Pillow": PIL.__version__, **names}))
"""


def declared() -> dict[str, str]:
    """The oldest version of each package that a runtime needs, by pyproject."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needs = [*project["dependencies"], *(need for extra in EXTRAS for need in project["optional-dependencies"][extra])]
    return dict(re.fullmatch(r"(\w+)>=([\d.]+)", need).groups() for need in needs)


@pytest.fixture(scope="module", params=["oldest", "newest"])
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of a venv with one set of packages."""
    if request.param == "oldest" and sys.version_info >= (3, 12):
        pytest.skip("the oldest numpy has no wheels for this Python")
    wanted = [name if request.param == "newest" else f"{name}=={least}" for name, least in declared().items()]
    venv = ROOT / "build" / "venvs" / f"runtime-{request.param}"
    interpreter, done = venv / "bin" / "python", venv / "complete"
    if not done.exists() or done.read_text() != " ".join(wanted):
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        words = [str(interpreter), "-m", "pip", "install", "-q", *wanted]
        installed = subprocess.run(words, capture_output=True, check=False)
        if installed.returncode:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(installed.stderr.decode()[-300:])
        done.write_text(" ".join(wanted))
    return interpreter


def answers(python: Path, bundle: Path, clips: np.ndarray, folder: Path) -> tuple[dict[str, str], dict]:
    """What a venv's packages say to clips, by backend and precision; their versions."""
    np.savez(folder / "clips.npz", clips=clips)
    packages = folder / "packages"  # the folder of a clone may have any name; the package has one
    packages.mkdir(exist_ok=True)
    (packages / "logoformer").symlink_to(Path(logoformer.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    words = [python, "-c", ANSWER, bundle, folder / "clips.npz", folder / "answers.npz"]
    done = subprocess.run(map(str, words), capture_output=True, check=False, env=environment, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout), dict(np.load(folder / "answers.npz"))


def test_they_answer_the_first_bundle(python: Path, tmp_path: Path):
    golden = Bundle(OLD).golden()
    versions, found = answers(python, OLD, golden.clips, tmp_path)
    if python.parents[1].name.endswith("oldest"):
        # 1.18 is 1.18.0, and 9.3 is 9.3.0
        assert all(versions[name].startswith(least) for name, least in declared().items())
    for backend in ("onnxruntime", "openvino"):
        np.testing.assert_allclose(found[f"{backend} fp32"], golden.probabilities, rtol=0, atol=1e-5)
        assert np.isfinite(found[f"{backend} fp32 stream"]).all()


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Of mean zero."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    return logs - logs.mean(1, keepdims=True)


@pytest.fixture(scope="module")
def judged(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """A trained `tiny` in INT8, clips, and the rounding reference's answers to them."""
    from logoformer.export.entries import read_model
    from logoformer.export.parity import RoundingClip
    from logoformer.model.synthetic.recordings import synthetic_clips
    from logoformer.studies.int8 import quantize_on_faces

    path = tmp_path_factory.mktemp("versions") / "face.bundle"
    bundle = quantize_on_faces(Bundle(shutil.copytree(tiny_bundle, path)), clips=64)
    clips, _, _ = synthetic_clips(CLIPS, bundle.sampling, bundle.image_size, seed=13)
    return bundle, clips, RoundingClip(read_model(bundle, "clip", "int8")).answers(clips)


@pytest.mark.xdist_group("demo_run")
def test_int8_is_as_near_to_fp32_as_the_reference_is(python: Path, judged, tmp_path: Path):
    """ONNX Runtime 1.24 truncates FP16 where the graph rounds, and 1.32 does not; a Cast in the graph settles it."""
    bundle, clips, reference = judged
    versions, found = answers(python, bundle.path, clips, tmp_path)
    truth = logits(found["onnxruntime fp32"])
    given = {"reference": reference, **{name: found[f"{name} int8"] for name in ("onnxruntime", "openvino")}}
    rms = {
        name: float(np.sqrt(np.mean((logits(one) - truth) ** 2)) / truth.std(0).mean()) for name, one in given.items()
    }
    print(versions, rms)
    assert 0 < rms["reference"] < 0.1
    assert rms["onnxruntime"] <= 1.1 * rms["reference"] and rms["openvino"] <= 1.25 * rms["reference"]
    assert min(rms.values()) >= 0.5 * rms["reference"], "INT8 indeed: FP16 would be at 0.01"
