"""OpenVINO: the answers of the other runtimes, buffers that stay, and where 'auto' takes it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle, GraphEntry, TensorSpec, replace_manifest
from logoformer.bundle.files import sha256
from logoformer.bundle.verdicts import with_verdicts
from logoformer.engine.sessions import backends
from logoformer.engine.sessions import openvino as module
from logoformer.engine.verify import verify
from logoformer.errors import MachineError, RefusedError, VerificationError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed (the extra 'openvino')"
)
OLD = Path(__file__).parents[2] / "data" / "bundle-v0.1"


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))


def noting(path: Path, *, rows: tuple = (), accuracy: tuple = ()) -> Bundle:
    """A bundle with verdicts (backend, precision, verdict)."""
    opened, names = Bundle(path), ("backend", "precision", "verdict")
    given = [[dict(zip(names, row, strict=True)) for row in found] for found in (rows, accuracy)]
    return replace_manifest(opened, with_verdicts(opened.manifest, "m", rows=given[0], accuracy=given[1]))


# -------------------------------------------------------------------------------------------------------------- answers
def test_clips_are_answered_as_by_pytorch_in_buffers_that_stay():
    golden = Bundle(OLD).golden()
    with logoformer.load(OLD, backend="openvino", threads=1) as runtime:
        session = runtime.session("clip")
        where = session.input("clip").ctypes.data, session.output("probabilities").ctypes.data
        for clip, wanted in zip(golden.clips, golden.probabilities, strict=True):
            np.testing.assert_allclose(runtime(clip, color="rgb").probabilities, wanted, rtol=0, atol=1e-5)
        assert where == (session.input("clip").ctypes.data, session.output("probabilities").ctypes.data)
        session.close()
        session.close()
    assert runtime.backend.startswith("openvino 20") and runtime.backend.endswith(" CPU")


def test_the_streaming_pair_answers_as_on_onnx_runtime(bundle: Path):
    clips = Bundle(bundle).golden().clips
    found = {}
    for backend in backends.CPU_BACKENDS:
        with (
            logoformer.load(bundle, backend=backend, precision="fp32") as runtime,
            runtime.stream(hop=1, color="rgb", warmup="repeat") as stream,
        ):
            frames = [frame for clip in clips[:3] for frame in clip]
            found[backend] = [stream.push(frame, t / 10).probabilities for t, frame in enumerate(frames)]
    np.testing.assert_allclose(found["openvino"], found["onnxruntime"], rtol=0, atol=1e-5)


def test_faces_share_a_batch(bundle: Path, add_batches: Callable[..., Bundle]):
    add_batches(bundle, (2,))
    clips = Bundle(bundle).golden().clips
    with logoformer.load(bundle, backend="openvino", precision="fp32") as runtime:
        assert runtime.frame_batches == runtime.temporal_batches == (1, 2)
        one, two, alone = (runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(3))
        for t in range(4):
            both = runtime.step({one: (clips[0][t], t / 10), two: (clips[1][t], t / 10)})
            wanted = alone.push(clips[1][t], t / 10)
            np.testing.assert_allclose(both[two].probabilities, wanted.probabilities, rtol=0, atol=1e-5)
            assert np.abs(both[one].probabilities - wanted.probabilities).max() > 1e-6


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_precision_verifies_on_it(bundle: Path, precision: str):
    rows = [row for row in verify(bundle, write=False).rows if (row.backend, row.precision) == ("openvino", precision)]
    assert [row.what for row in rows] == ["clip", "frame + temporal"]
    assert all(row.verdict != "failed" and row.agreement == 1.0 for row in rows)


def test_fp32_is_computed_in_fp32_whatever_the_cpu_is_fast_at(bundle: Path):
    with logoformer.load(bundle, backend="openvino", precision="fp32", threads=1) as runtime:
        compiled = runtime.session("clip")._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1 and compiled.get_property("NUM_STREAMS") == 1


def test_nothing_is_sent_when_it_is_imported(tmp_path: Path):
    """By itself `import openvino` sends an event over the network and writes below the home folder."""
    code = (
        "import logoformer, socket, sys, threading\n"
        "def refuse(*_): raise SystemExit('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "with logoformer.load(sys.argv[1], backend='openvino') as runtime: runtime.session('clip')\n"
        "print([name for name in sys.modules if 'telemetry' in name and 'openvino_telemetry' in name])\n"
        "print(threading.active_count())"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(logoformer.__file__).parents[1])}
    words = [sys.executable, "-c", code, str(OLD)]
    done = subprocess.run(words, capture_output=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0 and done.stdout.split() == [b"[]", b"1"], done
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------- refusals
def entry_of(data: bytes, name: str = "clip") -> GraphEntry:
    spec = TensorSpec("probabilities", "float32", (1, 3))
    return GraphEntry("clip", "fp32", 1, f"graphs/{name}.onnx", sha256(data), len(data), 20, (spec,), (spec,), {})


def test_what_onnx_runtime_refuses_is_refused_before_openvino_sees_it(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    onnx = pytest.importorskip("onnx", reason="writing a graph needs the extra 'export'")
    model = onnx.load_from_string(Bundle(bundle).read_graph(Bundle(bundle).graph("clip", "fp32")))
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    monkeypatch.setattr(module, "import_openvino", lambda: pytest.fail("OpenVINO was asked"))
    with pytest.raises(RefusedError, match=r"external|other files"):
        module.open_session(model.SerializeToString(), entry_of(b""), {})


def test_other_tensors_than_promised_are_refused(bundle: Path):
    opened = Bundle(bundle)
    entry, data = opened.graph("clip", "fp32"), opened.read_graph(opened.graph("clip", "fp32"))
    other = replace(entry, outputs=(replace(entry.outputs[0], shape=(1, 8)),))
    with pytest.raises(RefusedError, match="the index promises"):
        module.open_session(data, other, {})


def test_bytes_that_are_no_graph_end_in_an_error_with_a_next_step():
    with pytest.raises((MachineError, RefusedError)) as caught:
        module.open_session(b"\x08\x0a\x12\x00", entry_of(b""), {})
    assert caught.value.what and "Traceback" not in str(caught.value)


def test_without_the_package_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MachineError, match="openvino") as caught:
        logoformer.load(bundle, backend="openvino")
    assert caught.value.next == "pip install 'logoformer[openvino]'"


@pytest.mark.parametrize("kind", ["gpu", "npu"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(bundle: Path, kind: str):
    with pytest.raises(MachineError, match=f"sees no {kind.upper()} 7") as caught:
        logoformer.load(bundle, backend=f"openvino-{kind}", device=7)
    assert "'CPU'" in caught.value.what


# ----------------------------------------------------------------------------------------------------------- the choice
def int8_of(path: Path) -> Bundle:
    """A bundle that says its FP16 graphs are INT8 ones too, accepted by the reference."""
    opened = Bundle(path)
    graphs = [{**g, "precision": "int8"} for g in opened.manifest["graphs"] if g["precision"] == "fp16"]
    precisions = {**opened.precisions, "int8": {"verdict": "accept", "reason": "", "kept_fp32": {}}}
    manifest = {**opened.manifest, "graphs": [*opened.manifest["graphs"], *graphs], "precisions": precisions}
    return replace_manifest(opened, manifest)


def test_auto_takes_int8_where_openvino_itself_was_accepted(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "multiplies_int8", lambda: True)

    def chosen() -> tuple[str, str]:
        with logoformer.load(bundle) as runtime:
            return runtime.backend.split()[0], runtime.precision

    int8_of(bundle)
    assert chosen() == ("openvino", "fp32"), "the reference's word is not enough for INT8"
    noting(bundle, accuracy=[("onnxruntime", "int8", "accept")])
    assert chosen() == ("openvino", "fp32")
    noting(bundle, accuracy=[("openvino", "int8", "accept with exclusions")])
    assert chosen() == ("openvino", "int8")
    with monkeypatch.context() as patch:  # a pooled verdict whose other folds are gone is none
        patch.setattr(Bundle, "void", {"openvino int8": "face.bundle is gone"})
        patch.setattr(Bundle, "void_notes", lambda self: [])
        assert chosen() == ("openvino", "fp32")
    monkeypatch.setattr(backends, "multiplies_int8", lambda: False)
    assert chosen() == ("openvino", "fp32"), "without dot products INT8 is not faster"
    monkeypatch.setattr(backends, "multiplies_int8", lambda: True)
    noting(bundle, rows=[("openvino", "int8", "failed")])
    assert chosen() == ("openvino", "fp32")
    noting(bundle, accuracy=[("openvino", "int8", "refuse: use FP16")])
    assert chosen() == ("openvino", "fp32")
    noting(bundle, rows=[("openvino", p, "failed") for p in ("fp32", "fp16", "int8")])
    assert chosen() == ("onnxruntime", "fp32")
    with pytest.raises(VerificationError, match="No precision"):
        logoformer.load(bundle, backend="openvino")


def test_auto_goes_on_without_openvino(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with logoformer.load(bundle) as runtime:
        assert runtime.backend.startswith("onnxruntime")
        assert runtime.passed_over[-1].startswith("openvino: ") and "not installed" in runtime.passed_over[-1]
    assert backends.cpu_backends() == ("onnxruntime",)


def test_a_wrong_kernel_of_one_backend_is_told_of_that_backend(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    run = module.OpenVinoSession.run

    def wrong(self: module.OpenVinoSession) -> None:
        run(self)
        for name in self.outputs:
            self.output(name)[...] = 1 / 7

    with monkeypatch.context() as patch:
        patch.setattr(module.OpenVinoSession, "run", wrong)
        report = verify(bundle)
    failed = {(row.backend, row.precision) for row in report.rows if row.verdict == "failed"}
    assert failed == {("openvino", "fp32"), ("openvino", "fp16")}
    with pytest.raises(VerificationError, match="4 of 8 checks failed"):
        report.require()
    with logoformer.load(bundle) as runtime:
        assert runtime.backend.startswith("onnxruntime") and "No precision" in runtime.passed_over[-1]
    verify(bundle)
    with logoformer.load(bundle) as runtime:
        assert runtime.backend.startswith("openvino")


INTERRUPT = """
import os, signal, sys
import numpy as np
import logoformer

for _ in range(2):
    runtimes = [logoformer.load(sys.argv[1], backend="openvino") for _ in range(2)]
    for runtime in runtimes:
        sampling = runtime.bundle.sampling
        size = runtime.bundle.image_size
        runtime(np.zeros((sampling.frames, size, size, 3), np.uint8), color="rgb")
    for runtime in runtimes:
        runtime.close()
    del runtimes, runtime
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_sessions_were_closed_does_not_end_the_process(untrained_bundle):
    """Each `Core` that is freed takes an alternate stack for signals with it, which may still be the one in use."""
    words = [sys.executable, "-c", INTERRUPT, str(untrained_bundle)]
    done = subprocess.run(words, capture_output=True, check=False, timeout=120, preexec_fn=_with_interrupts)
    assert (done.returncode, done.stdout) == (0, b"interrupted\n"), done.stderr.decode()[-2000:]


def _with_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # `nohup` hands down SIG_IGN
