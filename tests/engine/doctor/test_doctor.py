"""Advice of `doctor` on recorded machines and on this one.

Each recording in `data/doctor/` names the source of every file and answer, or says *unverified shape*. The text beside
it is what `doctor` says; where it is missing, it is written, and the test fails so that somebody reads it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.cli import main as cli
from logoformer.engine.cuda.open import LAYERS
from logoformer.engine.doctor import advice as doctor_advice
from logoformer.engine.doctor import probe as doctor_probe
from logoformer.engine.doctor.advice import all_checks
from logoformer.engine.doctor.commands import FIX, NOTE, OK, Check
from logoformer.engine.doctor.facts import CudaGpu, Facts, Module, read_facts
from logoformer.engine.doctor.probe import ChildAnswer, Distribution, Interpreter, Probe, ask_here
from logoformer.engine.doctor.report import DoctorReport, backends, doctor
from logoformer.engine.machine import tensorrt as tensorrt_module
from logoformer.engine.sessions.backends import BACKENDS

DATA = Path(__file__).parent / "data"
MACHINES = sorted(path.stem for path in DATA.glob("*.json"))


class Recorded:
    """Answers as a recorded machine gave them; what was not recorded did not start."""

    def __init__(self, answers: dict) -> None:
        self.answers, self.asked = answers, set()

    def __call__(self, name: str, words: Sequence[str]) -> ChildAnswer:
        self.asked.add(name)
        given = self.answers.get(name)
        return (
            ChildAnswer(None, err="No such file or directory")
            if given is None
            else ChildAnswer(given["code"], given["out"], given["err"])
        )


def recording(name: str) -> dict:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def machine(name: str, root: Path) -> tuple[Probe, Recorded]:
    """Lays a recorded machine out below `root`."""
    kept = recording(name)
    for path, file in kept["files"].items():
        there = root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(file["text"], encoding="utf-8")
    who = kept["interpreter"]
    ask = Recorded(kept["answers"])
    return Probe(root, Interpreter(**{**who, "search_path": tuple(who["search_path"])}), ask), ask


def facts_of(name: str, root: Path) -> Facts:
    return read_facts(machine(name, root)[0])


def check_of(facts: Facts, name: str) -> Check:
    (found,) = [check for check in all_checks(facts) if check.name == name]
    return found


def runs(facts: Facts) -> dict[str, bool]:
    return {state.name: state.runs for state in backends(facts)}


# --------------------------------------------------------------------------------------------------- recorded machines
def test_the_machines_that_matter_are_recorded():
    assert {"jetpack-6.2", "jetpack-7.2", "desktop", "broken-venv"} <= set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_every_recorded_file_and_answer_names_its_source(name):
    kept = recording(name)
    assert kept["about"]
    for entry in [*kept["files"].values(), *kept["answers"].values()]:
        assert entry["source"].strip()


@pytest.mark.parametrize("name", MACHINES)
def test_advice_on_a_recorded_machine(name, tmp_path):
    probe, ask = machine(name, tmp_path)
    report = doctor(probe)
    text = report.text() + "\n"
    snapshot = DATA / f"{name}.txt"
    if not snapshot.exists():
        snapshot.write_text(text, encoding="utf-8")
        pytest.fail(f"{snapshot.name} was missing and is written now: read it, then run this again")
    assert text == snapshot.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40 and str(tmp_path) not in text
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["checks"]
    assert set(recording(name)["answers"]) <= ask.asked, "an answer that nobody asks for proves nothing"


EXPECTED = {
    "jetpack-6.2": (0, {"onnxruntime", "tensorrt"}, set()),
    "jetpack-6.2-plain-venv": (0, {"onnxruntime"}, {"python", "tensorrt", "cuda layer", "opencv"}),
    "jetpack-6.2-overwritten": (0, {"onnxruntime"}, {"gpu", "tensorrt", "cuda layer", "opencv", "numpy"}),
    "jetpack-7.2": (0, {"onnxruntime", "tensorrt"}, set()),
    "jetpack-7.2-bare": (6, set(), {"python", "cuda layer", "onnxruntime"}),
    "desktop": (0, {"onnxruntime", "tensorrt_rtx"}, set()),
    "desktop-cu13-wheels": (0, {"onnxruntime"}, {"tensorrt-rtx", "onnxruntime"}),
    "dgx-spark": (0, {"onnxruntime"}, set()),
    "jetpack-6.2-no-onnxruntime": (0, {"tensorrt"}, {"onnxruntime"}),
    "onnxruntime-1.17": (0, {"tensorrt_rtx"}, {"onnxruntime"}),
    "two-cards": (0, {"onnxruntime", "tensorrt_rtx"}, set()),
    "broken-venv": (6, set(), {"tensorrt", "cuda layer", "onnxruntime", "opencv"}),
}


@pytest.mark.parametrize("name", MACHINES)
def test_verdicts_on_a_recorded_machine(name, tmp_path):
    code, running, wrong = EXPECTED[name]
    report = doctor(machine(name, tmp_path)[0])
    assert report.exit_code == code
    assert {state.name for state in report.backends if state.runs} == running
    assert {check.name for check in report.checks if check.status == FIX} == wrong


PIP = "/home/ada/venv/bin/python -m pip"
COMMANDS = {
    ("desktop-cu13-wheels", "tensorrt-rtx"): (
        f"{PIP} uninstall -y tensorrt-rtx tensorrt-rtx-cu13 tensorrt-rtx-cu13-bindings",
        f"{PIP} install 'logoformer[rtx12]'",
    ),
    ("desktop-cu13-wheels", "onnxruntime"): (
        f"{PIP} uninstall -y onnxruntime-gpu",
        f"{PIP} install 'logoformer[gpu12]'",
    ),
    ("dgx-spark", "tensorrt-rtx"): (f"{PIP} install 'logoformer[rtx]'",),
    ("dgx-spark", "tensorrt"): (f"{PIP} install 'logoformer[tensorrt]'",),
    ("jetpack-6.2-no-onnxruntime", "onnxruntime"): ("/home/nvidia/venv/bin/python -m pip install 'logoformer[cpu]'",),
    ("onnxruntime-1.17", "onnxruntime"): (f"{PIP} install 'onnxruntime>=1.21'",),
    ("two-cards", "card order"): ("export CUDA_DEVICE_ORDER=PCI_BUS_ID  # both count alike then",),
}


@pytest.mark.parametrize(("name", "part"), COMMANDS)
def test_the_commands_that_mend_it(name, part, tmp_path):
    assert check_of(facts_of(name, tmp_path), part).fixes == COMMANDS[name, part]


def test_cards_that_both_count_alike_need_no_word(tmp_path):
    facts = facts_of("two-cards", tmp_path)
    assert (
        "T400" not in check_of(facts, "card order").text and "nvidia-smi's card 1" in check_of(facts, "card order").text
    )
    for buses in (tuple(reversed(facts.smi_buses)), (), ("00000000:17:00.0",)):
        assert "card order" not in {check.name for check in all_checks(replace(facts, smi_buses=buses))}


@pytest.mark.parametrize(("version", "status"), [("12.8.0", FIX), ("12.9.0", FIX), ("12.9.1", OK), ("12.9.10", OK)])
def test_bindings_that_hold_pythons_lock_are_replaced(version, status, orin):
    check = check_of(with_module(orin, "cuda.bindings.runtime", version=version), "cuda layer")
    assert check.status == status and (status == OK or check.fixes[0].endswith("install 'logoformer[cuda12]'"))


def test_without_a_driver_wheels_of_either_cuda_build(tmp_path):
    facts = replace(facts_of("desktop-cu13-wheels", tmp_path), gpus=(), cuda=(0, 0), cuda_init=-1, driver="")
    assert check_of(facts, "tensorrt-rtx").status == OK


def test_a_plain_venv_on_a_jetson_is_told_the_one_command(tmp_path):
    python = check_of(facts_of("jetpack-6.2-plain-venv", tmp_path), "python")
    assert python.fixes[0] == "/usr/bin/python3.10 -m venv --system-site-packages .venv"


def test_what_is_installed_goes_into_the_environment_that_is_advised(tmp_path):
    """pip refuses the system's own Python, and an environment that is to be replaced is not worth mending."""
    for number, name in enumerate(("jetpack-6.2-plain-venv", "jetpack-7.2-bare")):
        report = doctor(machine(name, tmp_path / str(number))[0])
        fixes = [fix for check in report.checks for fix in check.fixes if " -m pip " in fix]
        assert len(fixes) >= 2 and all(fix.startswith(".venv/bin/python -m pip install") for fix in fixes)


def test_two_onnxruntime_wheels_are_both_removed_before_one_returns(tmp_path):
    remove, install = check_of(facts_of("broken-venv", tmp_path), "onnxruntime").fixes
    assert remove.endswith("uninstall -y onnxruntime onnxruntime-gpu")
    assert install.endswith("install 'logoformer[gpu12]'")  # the machine has a card, its driver CUDA 12


# ------------------------------------------------------------------------------------------------------- single rules
@pytest.fixture
def orin(tmp_path) -> Facts:
    return facts_of("jetpack-6.2", tmp_path)


@pytest.fixture
def desk(tmp_path) -> Facts:
    return facts_of("desktop", tmp_path)


NO_LAYER = {name: Module(name, (), (), "", "") for name in ("cuda.bindings.runtime", "pycuda.driver")}


def with_module(facts: Facts, name: str, **changes: object) -> Facts:
    module = replace(facts.modules[name], **changes)
    return replace(facts, modules={**facts.modules, name: module})


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [
        ("8.6.2.3", FIX, "outside of"),
        ("10.2.0", FIX, "outside of >=10.3,<12"),
        ("10.3.0", OK, ""),
        ("10.13.3.9", FIX, "no code for sm87"),
        ("10.16.2.10", OK, ""),
        ("11.4.1", OK, ""),
        ("11.5.0", OK, "newer than what was tested"),
        ("12.0", FIX, "outside of"),
    ],
)
def test_the_window_of_tensorrt(version, status, said, orin):
    facts = with_module(orin, "tensorrt", version=version)
    check = check_of(facts, "tensorrt")
    assert check.status == status and said in check.text
    assert runs(facts)["tensorrt"] == (status == OK)


@pytest.mark.parametrize(
    ("changes", "status", "said", "fix"),
    [
        ({}, NOTE, "not installed", "install 'logoformer[openvino]'"),
        ({"version": "2025.2.0-19140-x"}, FIX, "2025.2.0 does not load INT8", "install 'logoformer[openvino]'"),
        ({"error": "libtbb.so.12"}, FIX, "libtbb", "install 'logoformer[openvino]'"),
        ({"version": "2026.4.1-22982-x", "said": {"devices": ["CPU", "GPU"]}}, OK, "2026.4.1: CPU, GPU", ""),
    ],
)
def test_openvino(changes, status, said, fix, desk):
    facts = with_module(desk, "openvino", **({"files": ("/x/openvino/__init__.py",), **changes} if changes else {}))
    check = check_of(facts, "openvino")
    assert check.status == status and said in check.text
    assert check.fixes[-1].endswith(fix) if fix else not check.fixes
    assert runs(facts)["openvino"] == (status == OK)


def test_openvino_is_not_advised_on_a_jetson(orin):
    assert "openvino" not in {check.name for check in all_checks(orin)}


def test_the_oldest_runtimes_are_those_of_pyproject():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8")
    for package, least in (
        ("onnxruntime", doctor_advice.ORT_OLDEST),
        ("onnxruntime-gpu", doctor_advice.ORT_OLDEST),
        ("openvino", doctor_advice.OPENVINO_OLDEST),
    ):
        assert f'"{package}>={".".join(map(str, least))}' in text


def test_it_speaks_of_the_backends_and_layers_that_there_are(desk):
    on_a_card = {"onnxruntime-cuda", "openvino-gpu", "openvino-npu"}  # told on onnxruntime's and openvino's own lines
    assert {state.name for state in backends(desk)} == set(BACKENDS) - {"auto"} - on_a_card
    assert all(
        name in check_of(replace(desk, modules={**desk.modules, **NO_LAYER}), "cuda layer").text for name in LAYERS
    )


def test_the_window_begins_where_the_builder_begins():
    assert tensorrt_module._OLDEST["tensorrt"] == doctor_advice.TRT_OLDEST


@pytest.mark.parametrize(
    ("sm", "can"), [("sm75", True), ("sm89", True), ("sm120", True), ("sm87", False), ("sm90", False)]
)
def test_rtx_runs_on_the_cards_that_it_has_code_for(sm, can, desk):
    assert runs(replace(desk, gpus=(CudaGpu("a card", sm, 8192),)))["tensorrt_rtx"] == can


def test_without_a_gpu_engines_are_built_and_not_run(desk):
    facts = replace(desk, gpus=(), cuda=(0, 0), cuda_init=-1, driver="", cuda_error="libcuda.so.1: cannot open")
    assert runs(facts) == {"onnxruntime": True, "openvino": False, "tensorrt": False, "tensorrt_rtx": False}
    assert check_of(facts, "gpu").status == NOTE
    assert [s.text for s in backends(facts) if s.name == "tensorrt_rtx"] == ["builds; cannot run: no GPU"]


def test_without_a_cuda_layer_tensorrt_is_not_promised(orin):
    assert runs(with_module(orin, "cuda.bindings.runtime", error="libcuda.so.1"))["tensorrt"] is False
    gone = with_module(orin, "cuda.bindings.runtime", files=(), version="")
    assert check_of(gone, "cuda layer").fixes[0].endswith("pip install 'logoformer[cuda12]'")
    bridge = replace(
        gone.modules["pycuda.driver"], files=("/x/pycuda/driver.py",), version="2026.1", said={"version": "2026.1"}
    )
    assert runs(replace(gone, modules={**gone.modules, "pycuda.driver": bridge}))["tensorrt"] is True


@pytest.mark.parametrize(
    ("code", "fix"), [(803, "sudo reboot"), (801, "usermod"), (34, "LD_LIBRARY_PATH"), (4242, "nvidia-smi")]
)
def test_cuda_that_does_not_start(code, fix, desk):
    check = check_of(replace(desk, gpus=(), cuda_init=code), "gpu")
    assert check.status == FIX and str(code) in check.text and fix in check.fixes[0]


def test_a_driver_without_its_library_points_at_the_container(desk):
    check = check_of(replace(desk, gpus=(), cuda_init=-1, cuda_error="libcuda.so.1: cannot open"), "gpu")
    assert check.status == FIX and "570.86.15" in check.text and "--gpus all" in check.fixes[0]


def test_an_old_jetpack_is_told_so(orin):
    check = check_of(replace(orin, l4t="35.6.1", debs={"nvidia-jetpack": "5.1.5-b29"}), "jetpack")
    assert check.status == FIX and "too old" in check.text
    assert "JetPack 6.1 or 6.2 by its L4T" in check_of(replace(orin, debs={"tensorrt": "10.3.0"}), "jetpack").text
    assert check_of(replace(orin, debs={}), "jetpack").fixes == ("sudo apt install nvidia-jetpack",)


def test_another_python_than_jetpacks_is_told_so(orin):
    other = replace(orin.interpreter, version="3.12.3")
    facts = replace(orin, interpreter=other, hidden={"tensorrt": "/usr/lib/python3.10/dist-packages"})
    check = check_of(facts, "python")
    assert check.status == FIX and "not the python3.10" in check.text


def test_a_tensorrt_wheel_that_hides_jetpacks_is_removed_even_if_it_imports(orin):
    folder = "/home/nvidia/venv/lib/python3.10/site-packages"
    apt = orin.modules["tensorrt"].files
    wheels = tuple(Distribution(name, "10.16.1.11", folder) for name in ("tensorrt", "tensorrt-cu13-bindings"))
    facts = with_module(
        orin, "tensorrt", files=(f"{folder}/tensorrt/__init__.py", *apt), owners=wheels, version="10.16.1.11"
    )
    check = check_of(facts, "tensorrt")
    assert check.status == FIX and f"hides {apt[0]}" in check.text
    assert check.fixes == ("/home/nvidia/venv/bin/python -m pip uninstall -y tensorrt tensorrt-cu13-bindings",)
    assert runs(facts)["tensorrt"] is False


def test_one_wheel_over_the_other_is_seen_in_the_winning_folder_only(orin):
    """apt's cv2 behind one wheel is a shadow; two wheels in one folder overwrite each other."""
    folder = "/home/nvidia/venv/lib/python3.10/site-packages"
    wheel = (Distribution("opencv-python", "4.11.0.86", folder),)
    hidden = with_module(
        orin,
        "cv2",
        files=(f"{folder}/cv2/__init__.py", *orin.modules["cv2"].files),
        owners=wheel,
        said={"gstreamer": "NO"},
    )
    check = check_of(hidden, "opencv")
    assert check.status == FIX and "hides JetPack's" in check.text
    assert check.fixes == ("/home/nvidia/venv/bin/python -m pip uninstall -y opencv-python",)
    both = with_module(hidden, "cv2", owners=(*wheel, Distribution("opencv-contrib-python", "4.11.0.86", folder)))
    assert "installed over each other" in check_of(both, "opencv").text


# ------------------------------------------------------------------------------------------------------------- probing
def probe_of(root: Path, *folders: str, ask=ask_here) -> Probe:
    here = Interpreter.here()
    return Probe(root, replace(here, search_path=folders or here.search_path), ask)


def test_an_import_that_ends_its_process_ends_only_its_own(tmp_path, monkeypatch):
    (tmp_path / "cv2.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    facts = read_facts(probe_of(Path("/"), str(tmp_path)))
    assert facts.modules["cv2"].files == (str(tmp_path / "cv2.py"),)
    assert facts.modules["cv2"].error == "its process was ended by signal 11"
    assert facts.modules["onnxruntime"] == Module("onnxruntime", (), (), "", "")


def test_an_import_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor_probe, "SECONDS", 0.3)
    answer = ask_here("import x", [sys.executable, "-c", "import time; time.sleep(60)"])
    assert answer.code is None and "no answer" in answer.why()


def test_a_program_that_is_not_there():
    answer = ask_here("nvidia-smi", ["no-such-program-anywhere"])
    assert answer.code is None and answer.why() == "No such file or directory" and answer.json() == {}


def test_the_first_folder_of_the_search_path_wins(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "tensorrt").mkdir(parents=True)
        (tmp_path / folder / "tensorrt" / "__init__.py").touch()
    assert probe_of(tmp_path, "/b", "/a").module_files("tensorrt") == (
        "/b/tensorrt/__init__.py",
        "/a/tensorrt/__init__.py",
    )


def test_only_installed_debian_packages_count(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: tensorrt\nStatus: deinstall ok config-files\nVersion: 8.5\n\n"
        "Package: libnvinfer10\nStatus: install ok installed\nArchitecture: arm64\nVersion: 10.3.0.30-1+cuda12.5\n"
    )
    assert probe_of(tmp_path).debs(["tensorrt", "libnvinfer10"]) == {"libnvinfer10": "10.3.0.30-1+cuda12.5"}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=120))
def test_odd_files_and_answers_never_end_it(tmp_path_factory, release, status, said):
    root = tmp_path_factory.mktemp("odd")
    for path, text in (("etc/nv_tegra_release", release), ("var/lib/dpkg/status", status), ("etc/os-release", said),
                       ("proc/driver/nvidia/version", said), ("proc/device-tree/model", said)):  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode("utf-8", "surrogatepass"))
    report = doctor(probe_of(root, "/nowhere", ask=lambda name, words: ChildAnswer(0, said, said)))
    assert report.text() and report.exit_code == 6


# --------------------------------------------------------------------------------------------------------- this machine
def test_this_machine_in_one_screen(capsys):
    code = cli.main(["doctor"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
    facts = doctor().facts
    if not facts.gpus and not facts.driver:
        assert "no NVIDIA GPU" in text
    if importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        assert f"tensorrt-rtx  {facts.modules['tensorrt_rtx_bindings'].version}" in text
        assert "builds engines here" in text
    if importlib.util.find_spec("onnxruntime") is not None:
        assert "onnxruntime   runs bundles: CPU" in text and code == 0


def test_json_on_this_machine(capsys):
    code = cli.main(["doctor", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["exit_code"] == code
    assert said["executable"] == sys.executable
    assert {state["name"] for state in said["backends"]} == {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"}


def test_exit_code_6_where_nothing_runs(tmp_path, monkeypatch, capsys):
    probe, _ = machine("broken-venv", tmp_path)
    monkeypatch.setattr("logoformer.engine.doctor.report.probe_here", lambda: probe)
    assert cli.main(["doctor"]) == 6
    assert "No backend can run a bundle here" in capsys.readouterr().out


def test_nothing_heavy_is_imported_by_looking(tmp_path):
    code = (
        "import sys; from logoformer.engine.doctor.report import doctor; doctor();"
        "heavy = {'torch', 'onnxruntime', 'cv2', 'tensorrt_rtx', 'tensorrt', 'cuda.bindings', 'pycuda'};"
        "print(*(set(sys.modules) & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == ""


def test_a_report_needs_one_backend_only(desk):
    assert DoctorReport(desk, all_checks(desk), backends(desk)).exit_code == 0
