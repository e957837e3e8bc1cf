"""`logoformer triton-check`: whether a Triton answers, for liveness probes.

Triton says that a model is ready when the process behind it is dead. So a golden clip is answered by the model `clip`,
and compared here with the answer that its `config.pbtxt` holds; and the model `stream` takes a frame.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..engine.golden import SHARES, allowed_share, distance
from ..errors import VerificationError, command, seconds_above_zero
from .connection import LONGEST_S, connect, error_of, no_answer, read_served
from .settings import Served, TritonConfig


@dataclass(frozen=True)
class TritonCheck:
    """What a server that works said.

    Attributes:
        url: of gRPC.
        digest: of the bundle that is served.
        share: how far the golden answer is off, as a share of the deviation between golden clips.
        clip_ms: of the golden clip, way there and back included.
        stream: 'took a frame'; or 'full, and answering' where every sequence is taken.
    """

    url: str
    digest: str
    share: float
    clip_ms: float
    stream: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_triton(url: str, name: str = "", timeout_s: float = 20.0) -> TritonCheck:
    """Has a golden clip answered, and a frame taken.

    Args:
        url: host and port of gRPC, such as 'localhost:8001'.
        name: as `logoformer triton --name` was told.
        timeout_s: for each of the two. More than the server's `idle_s`, or a server is taken for dead that holds
            nothing but silent sequences.

    Raises:
        MachineError: no answer.
        VerificationError: a wrong answer.
        UsageError: no address, or no time.
    """
    timeout_s = seconds_above_zero(timeout_s, "timeout_s", LONGEST_S)
    client = connect(url)
    import tritonclient.grpc as triton

    names = TritonConfig(name=name)
    model = names.model_name("clip")
    try:
        served = read_served(client, model, timeout_s)
        share, clip_ms = _golden_clip(triton, client, served, model, timeout_s)
        model = names.model_name("stream")
        stream = _take_frame(triton, client, served, model, timeout_s)
    except triton.InferenceServerException as error:
        raise error_of(error) or no_answer(url, model, timeout_s, error) from error
    finally:
        client.close()
    return TritonCheck(url, served.digest, share, clip_ms, stream)


def _golden_clip(triton: Any, client: Any, served: Served, model: str, timeout_s: float) -> tuple[float, float]:
    number = triton.InferInput("golden", [1], "INT32")
    number.set_data_from_numpy(np.zeros(1, np.int32))
    began = time.perf_counter()
    answer = client.infer(model, [number], client_timeout=timeout_s).as_numpy("probabilities")
    took_ms = 1e3 * (time.perf_counter() - began)
    golden = np.array(served.golden, np.float32)  # [G, C]
    share, _ = distance(np.concatenate([answer[None], golden[1:]]), golden)
    # Which precision 'verdict' chose only the server knows; it has judged by that one's bound when it loaded the model.
    loosest = max(SHARES, key=lambda name: SHARES[name])
    allowed = allowed_share(served.config.precision if served.config.precision in SHARES else loosest, golden)
    if not share <= allowed:
        raise VerificationError(
            f"{model} answered a golden clip wrongly: off by {share:.2%} of the deviation between clips; "
            f"{allowed:.2%} is allowed.",
            cause="a device that computes wrongly, or a model repository that was changed under the server",
            next=command("logoformer", "triton", "BUNDLE", "-o", "MODELS"),
        )
    return share, took_ms


def _take_frame(triton: Any, client: Any, served: Served, model: str, timeout_s: float) -> str:
    """Opens a sequence of one frame.

    Where all are taken, it is enough that others are answered meanwhile.
    """
    frame = triton.InferInput("frame", [1, served.size, served.size, 3], "UINT8")
    frame.set_data_from_numpy(np.zeros((1, served.size, served.size, 3), np.uint8))
    time_s = triton.InferInput("time_s", [1, 1], "FP64")
    time_s.set_data_from_numpy(np.zeros((1, 1)))
    sequence, before = int.from_bytes(os.urandom(7), "big") + 1, _answered(client, model, timeout_s)
    flags = {"sequence_id": sequence, "sequence_start": True, "sequence_end": True}
    try:
        client.infer(model, [frame, time_s], client_timeout=timeout_s, **flags)
    except triton.InferenceServerException as error:
        if "DEADLINE_EXCEEDED" in str(error.status()) and _answered(client, model, timeout_s) > before:
            return "full, and answering"
        raise
    return "took a frame"


def _answered(client: Any, model: str, timeout_s: float) -> int:
    """Requests that the model has answered since it was loaded."""
    found = client.get_inference_statistics(model, client_timeout=timeout_s)
    return sum(int(stats.inference_stats.success.count) for stats in found.model_stats)
