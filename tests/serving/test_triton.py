"""Answers of a real tritonserver, bit by bit those of the local runtime, through deaths and restarts of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter, Golden
from logoformer.cli import main as cli
from logoformer.engine import Runtime
from logoformer.errors import BadInputError, MachineError
from logoformer.serving import StreamClient
from logoformer.serving.check import check_triton
from logoformer.studies.serving.server import TritonServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("triton")]
IDLE_S = 3.0
Recording = Callable[[int], tuple[np.ndarray, list[float]]]


@pytest.fixture(scope="module")
def eight_faces(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose arena holds eight faces: two instances hold 16 sequences."""
    from logoformer.export.exporter import ExportConfig
    from logoformer.workflows.export import export_checkpoint

    path = tmp_path_factory.mktemp("eight") / "eight.bundle"
    return export_checkpoint(tiny_checkpoint, path, ExportConfig(precisions=("fp32",), faces=8), clips=8).path


@pytest.fixture(scope="module")
def runtime(eight_faces: Path) -> Iterator[Runtime]:
    with logoformer.load(eight_faces, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def wanted(runtime: Runtime, recording: Recording) -> Callable[[int], list[bytes | None]]:
    """`wanted(seed)`: the answers of a local stream to a recording; None where none is due."""

    def answers(seed: int) -> list[bytes | None]:
        frames, times = recording(seed)
        with runtime.stream(hop=3, color="bgr", warmup="repeat") as stream:
            found = [stream.push(frame, time_s) for frame, time_s in zip(frames, times, strict=True)]
        assert stream.skipped and stream.resets == seed % 2
        return [None if one is None else one.probabilities.tobytes() for one in found]

    return answers


@pytest.fixture(scope="module")
def server(serve: Callable[..., TritonServer], make_models: Callable[..., Path], eight_faces: Path) -> TritonServer:
    """Two instances of each model."""
    return serve(make_models(eight_faces, hop=3, warmup="repeat", instances=2, idle_s=IDLE_S))


def answers_of(client: StreamClient, frames: np.ndarray, times: list[float], between=lambda number: None):
    found = []
    for number, (frame, time_s) in enumerate(zip(frames, times, strict=True)):
        between(number)
        result = client.push(frame, time_s)
        assert result is None or result.time_s == time_s
        found.append(None if result is None else result.probabilities.tobytes())
    return found


# --------------------------------------------------------------------------------------------------- bar 1: bit by bit
@pytest.mark.parametrize("count", [1, 4, 16])
def test_sequences_at_once_are_answered_as_by_a_local_stream(server, recording, wanted, count):
    found: dict[int, list[bytes | None]] = {}

    def watch(seed: int) -> None:
        with StreamClient(server.url, color="bgr", timeout_s=30, shared_memory=seed % 4 == 3) as client:
            found[seed] = answers_of(client, *recording(seed))
            assert client.reopened == 0

    threads = [threading.Thread(target=watch, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed in range(count):
        assert found[seed] == wanted(seed), seed
        assert sum(one is not None for one in found[seed]) > 20


def test_a_clip_is_answered_as_by_the_local_runtime(server, runtime):
    import tritonclient.grpc as triton

    golden = runtime.bundle.golden().clips
    with triton.InferenceServerClient(server.url) as client:
        for number, clip in enumerate(golden):
            given = triton.InferInput("clip", list(clip.shape), "UINT8")
            given.set_data_from_numpy(clip)
            index = triton.InferInput("golden", [1], "INT32")
            index.set_data_from_numpy(np.array([number], np.int32))
            wanted = runtime(clip, color="rgb").probabilities.tobytes()
            for inputs in ([given], [index]):
                assert client.infer("clip", inputs).as_numpy("probabilities").tobytes() == wanted
        for inputs in ([], [given, index]):
            with pytest.raises(triton.InferenceServerException, match="either a clip or"):
                client.infer("clip", inputs)


def test_the_check_compares_an_answer_and_the_warm_up_was_run(server, capsys, runtime):
    stats = json.loads(server.get("/v2/models/clip/stats")[1])["model_stats"][0]
    assert stats["inference_count"] >= 2 * 2  # two instances; without `batch_size: 1` it is skipped
    assert cli.main(["triton-check", server.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == runtime.bundle.manifest["digest"] and found["stream"] == "took a frame"
    assert found["share"] < 0.001


# ---------------------------------------------------------------------------------------------------- what is refused
def test_errors_are_those_of_the_library_and_the_stream_goes_on(server, recording, wanted):
    frames, times = recording(0)
    with StreamClient(server.url, color="bgr") as client:
        found = []
        for number, (frame, time_s) in enumerate(zip(frames, times, strict=True)):
            if number == 20:
                with pytest.raises(BadInputError, match="times must rise"):
                    client.push(frame, times[3])
                with pytest.raises(BadInputError, match="dtype float32"):
                    client.push(frame.astype(np.float32), time_s)
            result = client.push(frame, time_s)
            found.append(None if result is None else result.probabilities.tobytes())
        assert found == wanted(0) and client.reopened == 0


def test_wrong_requests_are_refused_by_name(server):
    import tritonclient.grpc as triton

    def ask(client, frame: np.ndarray, **flags):
        given = triton.InferInput("frame", list(frame.shape), "UINT8")
        given.set_data_from_numpy(frame)
        when = triton.InferInput("time_s", [1, 1], "FP64")
        when.set_data_from_numpy(np.zeros((1, 1)))
        return client.infer("stream", [given, when], **flags)

    frame = np.zeros((1, 64, 64, 3), np.uint8)
    with triton.InferenceServerClient(server.url) as client:
        with pytest.raises(triton.InferenceServerException, match="START flag"):
            ask(client, frame, sequence_id=77)
        with pytest.raises(triton.InferenceServerException, match=r"non-zero|correlation ID"):
            ask(client, frame, sequence_start=True)
        with pytest.raises(triton.InferenceServerException, match=r"shape|dims"):
            ask(client, frame[..., :2], sequence_id=78, sequence_start=True)
        with pytest.raises(triton.InferenceServerException, match=r"frames|batch"):
            ask(client, np.zeros((2, 64, 64, 3), np.uint8), sequence_id=79, sequence_start=True)
    with pytest.raises(MachineError, match=r"gave no answer within 0\.5 s"):
        StreamClient(server.url, color="rgb", model="gone", timeout_s=0.5)


# ------------------------------------------------------------------------------------------------------ bar 3: deaths
@pytest.fixture(scope="module")
def lonely(
    serve: Callable[..., TritonServer], make_models: Callable[..., Path], untrained_bundle: Path
) -> TritonServer:
    """One instance of four faces; models can be loaded anew."""
    models = make_models(untrained_bundle, hop=3, warmup="repeat", idle_s=IDLE_S)
    return serve(models, "--model-control-mode=explicit", "--load-model=*")


def test_one_too_many_waits_and_gets_a_clear_error(lonely, recording, wanted):
    frames, times = recording(0)
    clients = [StreamClient(lonely.url, color="bgr", timeout_s=20) for _ in range(4)]
    late = StreamClient(lonely.url, color="bgr", timeout_s=20)
    late.timeout_s = 0.6
    for client in clients:
        client.push(frames[0], times[0])
    with pytest.raises(MachineError, match=r"gave no answer within 0\.6 s") as caught:
        late.push(frames[0], times[0])
    assert "all of its sequences are taken" in caught.value.cause
    clients[0].close()
    late.timeout_s = 20.0
    found = answers_of(late, frames, times)  # the silent ones are forgotten meanwhile, or not: both are right
    assert found == wanted(0)
    late.close()
    time.sleep(IDLE_S + 0.5)
    fresh = [StreamClient(lonely.url, color="bgr", timeout_s=20) for _ in range(4)]
    for client in fresh:  # the model has forgotten the silent ones, as Triton has
        client.push(frames[0], times[0])
    first, again = clients[1], answers_of  # it was forgotten: opened anew with what it had sent
    for client in fresh:
        client.close()
    assert again(first, frames[1:], times[1:]) == wanted(0)[1:] and first.reopened == 1
    for client in clients[1:]:
        client.close()


def test_after_a_killed_process_and_a_reload_the_stream_goes_on(lonely, recording, wanted, fails):
    import tritonclient.grpc as triton

    frames, times = recording(1)
    (process,) = lonely.model_processes("stream")

    def kill(number: int) -> None:
        if number != 37:
            return
        os.kill(process, signal.SIGKILL)
        client.timeout_s = 1.0
        with pytest.raises(MachineError, match=r"gave no answer|not healthy"):
            client.push(frames[number], times[number])
        client.timeout_s = 30.0
        assert lonely.get("/v2/health/ready")[0] == 200  # what Triton says of it
        fails(6, "triton-check", lonely.url, "--timeout", "3")
        with triton.InferenceServerClient(lonely.url) as control:
            control.unload_model("stream")
            control.load_model("stream")

    with StreamClient(lonely.url, color="bgr", timeout_s=30) as client:
        assert answers_of(client, frames, times, kill) == wanted(1)
        assert client.reopened == 1
    assert check_triton(lonely.url).stream == "took a frame"


def test_after_a_restart_of_the_server_the_stream_goes_on(lonely, recording, wanted):
    frames, times = recording(2)

    def restart(number: int) -> None:
        if number == 41:
            lonely.stop(signal.SIGKILL)
            threading.Thread(target=lonely.start).start()  # while the client tries

    with StreamClient(lonely.url, color="bgr", timeout_s=60, shared_memory=True) as client:
        assert answers_of(client, frames, times, restart) == wanted(2)
        assert client.reopened == 1


def test_a_damaged_or_wrong_bundle_leaves_the_others_serving(
    serve, make_models, untrained_bundle, tmp_path, recording, runtime
):
    models = make_models(untrained_bundle)
    make_models(untrained_bundle, models, name="damaged")
    graph = next((models / "damaged-stream" / "1" / "face.bundle" / "graphs").glob("frame.fp32.*"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    wrong = tmp_path / "wrong.bundle"
    shutil.copytree(untrained_bundle, wrong)
    bundle, writer = Bundle(wrong), BundleWriter(wrong)
    golden = Golden(bundle.golden().clips, bundle.golden().probabilities[::-1].copy())
    writer.commit({**bundle.manifest, "golden": writer.add_golden(golden, "turned round")})
    make_models(wrong, models, name="wrong")
    server = serve(models, "--exit-on-error=false")
    ready = {
        name: server.get(f"/v2/models/{name}/ready")[0] == 200 for name in sorted(p.name for p in models.iterdir())
    }
    assert ready == {
        "clip": True, "stream": True, "damaged-clip": True, "damaged-stream": False, "wrong-clip": False,
        "wrong-stream": False,
    }  # fmt: skip
    log = server.log.read_text()
    assert "SHA-256 differs" in log and "The self-test failed" in log
    with StreamClient(server.url, color="rgb") as client:
        assert client.push(recording(0)[0][0], 0.0) is None
    with pytest.raises(MachineError):
        check_triton(server.url, "wrong", 1.0)
    server.stop()


def test_a_python_backend_that_garbles_arrays_is_refused(triton_packages, make_models, untrained_bundle, tmp_path):
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("this Python has numpy 1")
    server = TritonServer(
        triton_packages, tmp_path, [make_models(untrained_bundle)], ["--exit-on-error=false"],
    )  # fmt: skip
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "more.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    with server:
        assert server.get("/v2/models/stream/ready")[0] == server.get("/v2/models/clip/ready")[0] == 400
    assert "garbles the arrays of numpy 2" in server.log.read_text()
