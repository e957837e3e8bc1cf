"""The model `stream` inside Triton's Python backend: a frame in, an answer where one is due.

Inputs: `frame` uint8 `[1, H, W, 3]` (RGB), `time_s` float64 `[1, 1]`; with the first request of a sequence that goes on
elsewhere also its history: `history` uint8 `[1, N, H, W, 3]`, `history_times_s` float64 `[1, N]`, `history_since` int64
`[1, 1]`. Any request may hold `hop` int32 `[1, 1]`, which holds from then on, and `flush` bool `[1, 1]`, which asks for
an answer in any case. Outputs: `probabilities` float32 `[1, n, C]`, n being 1 where an answer was due and else 0;
`kept` bool and `since` int64, `[1, 1]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..engine.golden import SelftestReport, answers_of_pair, check_answers
from ..engine.runtime import Runtime
from ..errors import BadInputError, UsageError
from .sequences import FrameCall, FrameReply, History, StreamTable
from .settings import open_served

INPUTS = ("frame", "time_s", "history", "history_times_s", "history_since", "hop", "flush")


class StreamModel:
    """What Triton calls; `model.py` of the repository names it `TritonPythonModel`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the bundle's copy, answers the golden clips and opens what a batch of faces needs.

        Raises:
            RefusedError: the copy is not what its index promises.
            VerificationError: an answer is wrong; the model does not become available.
        """
        served, self._runtime = open_served(args)
        check_golden_pair(self._runtime)
        for graph, batches in (("frame", self._runtime.frame_batches), ("temporal", self._runtime.temporal_batches)):
            for batch in batches:  # opened and run once here, not at the first frame
                self._runtime.session(graph, batch).run()
        config = served.config
        self._table = StreamTable(self._runtime, config.hop, config.warmup, config.idle_s)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers the requests of one execution, each of another sequence."""
        import triton_python_backend_utils as pb

        calls: list[FrameCall] = []
        outcomes: dict[int, FrameReply | Exception] = {}
        places = []
        for place, request in enumerate(requests):
            given = {tensor.name(): tensor for tensor in request.inputs()}
            start, end = (bool(given[name].as_numpy().flat[0]) for name in ("START", "END"))
            sequence = request.correlation_id()  # a number or a text; its control tensor holds either as bytes
            try:
                calls.append(_call_of(given, sequence, start, end))
                places.append(place)
            except Exception as error:
                outcomes[place] = error
                if start or end:  # for Triton it began anew, or ended
                    self._table.forget(sequence)
        outcomes |= zip(places, self._table.step(calls), strict=True)
        return [self._response(pb, outcomes[place]) for place in range(len(requests))]

    def finalize(self) -> None:
        """Frees the sessions."""
        self._runtime.close()

    def _response(self, pb: Any, outcome: FrameReply | Exception) -> Any:
        if isinstance(outcome, Exception):
            return pb.InferenceResponse(error=triton_error(pb, outcome))
        rows = [] if outcome.result is None else [outcome.result.probabilities]
        probabilities = np.array(rows, np.float32).reshape(1, len(rows), len(self._runtime.labels))
        return pb.InferenceResponse(
            [
                pb.Tensor("probabilities", probabilities),
                pb.Tensor("kept", np.array([[outcome.kept]], np.bool_)),
                pb.Tensor("since", np.array([[outcome.since]], np.int64)),
            ]
        )


def check_golden_pair(runtime: Runtime) -> None:
    """Answers the golden clips by the graphs of a stream.

    Raises:
        VerificationError: an answer is wrong.
    """
    golden = runtime.bundle.golden()
    frame, temporal = runtime.session("frame"), runtime.session("temporal")
    answers = answers_of_pair(frame, temporal, runtime.bundle.stream, golden)
    check = check_answers("frame + temporal", answers, golden, runtime.precision)
    bundle, clips = str(runtime.bundle.path), len(golden.clips)
    SelftestReport(bundle, runtime.backend, runtime.precision, clips, (check,)).require()


def triton_error(pb: Any, error: Exception) -> Any:
    """An error as clients get it: the class's name, then the text (`connection.error_of`)."""
    wrong = isinstance(error, (BadInputError, UsageError))
    code = pb.TritonError.INVALID_ARG if wrong else pb.TritonError.INTERNAL
    return pb.TritonError(f"{type(error).__name__}: {error}", code)


def _call_of(inputs: Mapping[str, Any], sequence: int | str, start: bool, end: bool) -> FrameCall:
    given = {name: tensor.as_numpy() for name, tensor in inputs.items() if name in INPUTS}
    frame, time_s = given["frame"], given["time_s"]
    if len(frame) != 1 or time_s.shape != (1, 1):
        raise BadInputError(f"A request holds {len(frame)} frames and {time_s.size} times; one of each is expected.")
    history = None
    if "history" in given:
        if "history_times_s" not in given or "history_since" not in given:
            raise BadInputError("A history has three inputs: history, history_times_s and history_since.")
        history = History(given["history"][0], given["history_times_s"][0], int(given["history_since"].flat[0]))
    return FrameCall(
        sequence=sequence,
        start=start,
        end=end,
        frame=frame[0],
        time_s=float(time_s[0, 0]),
        history=history,
        hop=int(given["hop"].flat[0]) if "hop" in given else None,
        flush=bool(given["flush"].flat[0]) if "flush" in given else False,
    )
