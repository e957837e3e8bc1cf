"""Other clients than ours on a real tritonserver: ids that are texts, refused ends; and wrong arguments of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.engine import Runtime
from logoformer.errors import BadInputError, UsageError
from logoformer.serving import StreamClient
from logoformer.studies.serving.server import TritonServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("triton")]
FACES = 4  # of the one instance
NO_HOP = np.zeros((1, 1), np.int32)
HALF_A_HISTORY = np.zeros((1, 2, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., TritonServer], make_models: Callable[..., Path], untrained_bundle: Path
) -> TritonServer:
    return serve(make_models(untrained_bundle, hop=3, warmup="repeat", idle_s=30.0))


@pytest.fixture
def runtime(untrained_bundle: Path) -> Iterator[Runtime]:
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        yield runtime


def frame_call(model_frame: np.ndarray, time_s: float, **more: np.ndarray) -> list:
    """Inputs of one request of `stream`."""
    import tritonclient.grpc as triton

    kinds = {"hop": "INT32", "history": "UINT8"}
    given = {"frame": ("UINT8", model_frame[None]), "time_s": ("FP64", np.array([[time_s]]))}
    given |= {name: (kinds[name], array) for name, array in more.items()}
    inputs = []
    for name, (kind, array) in given.items():
        inputs.append(triton.InferInput(name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def test_sequences_named_by_texts_are_kept_apart(server, runtime):
    import tritonclient.grpc as triton

    rng = np.random.default_rng(0)
    names = ["camera-1", "camera-2", "x", "é" * 40]
    frames = rng.integers(0, 256, (len(names), 6, 64, 64, 3), np.uint8)
    found: dict[str, list[bytes]] = {name: [] for name in names}
    with triton.InferenceServerClient(server.url) as client:
        for n in range(6):
            for name, own in zip(names, frames, strict=True):
                answer = client.infer(
                    "stream", frame_call(own[n], n / 25), sequence_id=name, client_timeout=10,
                    sequence_start=n == 0, sequence_end=n == 5,
                )  # fmt: skip
                found[name].append(answer.as_numpy("probabilities").tobytes())
    for name, own in zip(names, frames, strict=True):
        with runtime.stream(hop=3, color="rgb", warmup="repeat") as local:
            wanted = [local.push(own[n], n / 25) for n in range(6)]
        assert found[name] == [b"" if one is None else one.probabilities.tobytes() for one in wanted], name


@pytest.mark.parametrize("wrong", [{"hop": NO_HOP}, {"history": HALF_A_HISTORY}])
def test_a_refused_end_takes_no_place_from_others(server, wrong):
    import tritonclient.grpc as triton

    frame = np.zeros((64, 64, 3), np.uint8)
    with triton.InferenceServerClient(server.url) as client:

        def ask(sequence: int, time_s: float, start: bool = False, end: bool = False, **more: np.ndarray) -> None:
            flags = {"sequence_start": start, "sequence_end": end, "sequence_id": sequence, "client_timeout": 10}
            client.infer("stream", frame_call(frame, time_s, **more), **flags)

        for sequence in range(1, FACES + 1):
            ask(sequence, 0.0, start=True)
        with pytest.raises(triton.InferenceServerException, match=r"hop|history"):
            ask(FACES, 0.04, end=True, **wrong)
        ask(FACES + 1, 0.0, start=True)  # it takes the place of the one that ended
        for sequence in [*range(1, FACES), FACES + 1]:
            ask(sequence, 0.08, end=True)


def test_a_wrong_time_or_hop_is_refused_before_the_server_keeps_the_frame(server, runtime):
    frame = np.zeros((64, 64, 3), np.uint8)
    with StreamClient(server.url, color="rgb", hop=1) as client:
        for wrong in ("0.5", None, 10**400, float("nan")):
            with pytest.raises(BadInputError, match="time is"):
                client.push(frame, wrong)
        for hop in (0, 2**31):
            with pytest.raises(UsageError, match="hop is"):
                client.hop = hop
        found = [client.push(frame, time_s) for time_s in (0, np.float32(0.5), 0.75)]
        assert [one.time_s for one in found] == [0.0, 0.5, 0.75] and client.reopened == client.skipped == 0
