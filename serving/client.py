"""`StreamClient`: a stream whose frames are answered by a Triton.

The ring on the server is a cache of the last span. The client keeps those frames too, as the network reads them. When
the server was started again, the model was reloaded, or the sequence was given up, it opens the sequence anew and sends
them along: every later answer is the one that the old server would have given, bit for bit on the same backend.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..clips import Frame, check_color, check_frame, to_input
from ..engine.core import Result
from ..engine.feeding import check_time
from ..errors import UsageError, seconds_above_zero, whole_number
from .connection import LONGEST_S, connect, error_of, no_answer, read_served
from .settings import Served

PAUSE_S = 0.05  # from one try to the next
MOST_HOP = 2**31 - 1  # an int32 input
END_S = 0.5  # that the last request of a sequence may take


class StreamClient:
    """The stream of one face on a Triton that serves what `logoformer triton` wrote; one thread.

    Args:
        url: host and port of gRPC, such as 'localhost:8001'.
        color: 'rgb' or 'bgr' of the frames that will be pushed; there is no default.
        model: its name.
        timeout_s: how long one call may take, tries and a restart of the server included.
        shared_memory: hand frames over in memory that this process and the server share: both on one machine.
        hop: kept frames from one answer to the next; None: as the server was told.
        served: what the model says of its bundle; None asks it.

    Attributes:
        labels: C class names.
        served: what the model says of its bundle.
        skipped: frames that were not kept because they came faster than the ring was made for.
        resets: times that a pause emptied the ring.
        reopened: times that the sequence was opened anew and its frames were sent again.

    Raises:
        UsageError: a wrong argument.
        MachineError: nobody answers, there is no such model, or tritonclient is not installed.
        RefusedError: the model is not one of `logoformer triton`.
    """

    def __init__(
        self,
        url: str,
        *,
        color: str | None = None,
        model: str = "stream",
        timeout_s: float = 10.0,
        shared_memory: bool = False,
        hop: int | None = None,
        served: Served | None = None,
    ) -> None:
        self.color, self.url, self.model = check_color(color), url, model
        self.timeout_s = seconds_above_zero(timeout_s, "timeout_s", LONGEST_S)
        self._client = connect(url)
        import tritonclient.grpc as triton

        self._triton = triton
        self._shared: SharedFrame | None = None
        self._closed = False
        if served is None:
            served = self._until_answered(lambda left_s: read_served(self._client, model, left_s))
        self.served, self.labels = served, served.labels
        self._hop = self._told_hop = served.config.hop
        if hop is not None:
            self.hop = hop
        self._size = served.size
        self._frame = np.empty((served.size, served.size, 3), np.uint8)
        self._kept: deque[tuple[Frame, float]] = deque(maxlen=served.slots)
        self._since = 0
        self._sequence = 0
        self._id = int.from_bytes(os.urandom(7), "big") + 1  # Triton takes no 0
        self._open = False
        self.reopened = self.skipped = self.resets = 0
        if shared_memory:
            self._shared = SharedFrame(self._client, self._frame.nbytes)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._sequence} answers, {self.reopened} times reopened"
        return f"<StreamClient of {self.model} at {self.url}: {state}>"

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def hop(self) -> int:
        """Kept frames from one answer to the next; may be set at any time."""
        return self._hop

    @hop.setter
    def hop(self, hop: int) -> None:
        hop = whole_number(hop, "hop")
        if hop > MOST_HOP:
            raise UsageError(f"hop is {hop}; at most {MOST_HOP} can be asked of a server.")
        self._hop = hop

    def push(self, frame: Frame, time_s: float) -> Result | None:
        """Sends the next frame of this face, as `Stream.push` takes it.

        Args:
            frame: uint8 `[H, W, 3]` in the client's colour order; resized here when it has another size.
            time_s: when it was taken, in seconds on any clock that only rises.

        Returns:
            The answer where one is due, else None.

        Raises:
            BadInputError: a frame of another dtype or shape, or a time that does not rise; the stream goes on.
            VerificationError: the answer is not finite.
            MachineError: no answer within `timeout_s`; the frame was not taken, and may be pushed again.
            UsageError: the client is closed.
        """
        started = perf_counter_ns()
        self._require_open()
        time_s = check_time(time_s)  # before the server keeps the frame
        to_input(check_frame(frame), self._size, self.color, self._frame)
        marks = {"preprocess": perf_counter_ns()}
        answer = self._until_answered(lambda left_s: self._send(time_s, left_s))
        kept, self._since = bool(answer.as_numpy("kept").flat[0]), int(answer.as_numpy("since").flat[0])
        if kept:
            self.resets += bool(self._kept) and time_s - self._kept[-1][1] > self.served.max_gap_s
            self._kept.append((self._frame.copy(), time_s))
        self.skipped += not kept
        return self._result(answer, marks, started, time_s)

    def flush(self) -> Result | None:
        """Answers now from the frames that were kept, as `Stream.flush` does.

        Returns:
            None where no frame was kept.

        Raises:
            VerificationError, MachineError, UsageError: as `push` does.
        """
        started = perf_counter_ns()
        self._require_open()
        if not self._kept:
            return None
        # Opened anew without the newest frame, which is then pushed: the server's ring holds what it held before.
        newest, time_s = self._kept.pop()
        since, self._since, self._open = self._since, max(0, self._since - 1), False
        np.copyto(self._frame, newest)
        try:
            answer = self._until_answered(lambda left_s: self._send(time_s, left_s, flush=True))
        except BaseException:
            self._since = since
            raise
        finally:
            self._kept.append((newest, time_s))
        self._since = int(answer.as_numpy("since").flat[0])
        return self._result(answer, {}, started, time_s)

    def reset(self) -> None:
        """Forgets all frames, as after a lost face."""
        self._require_open()
        self._kept.clear()
        self._since, self._open = 0, False

    def close(self) -> None:
        """Ends the sequence, so that another can take its place at once. A second call does nothing.

        Without it the server forgets the sequence when it was idle for long enough.
        """
        if self._closed:
            return
        self._closed = True
        if self._open:
            # A frame goes with it. It follows so closely that the stream skips it.
            time_s = math.nextafter(self._kept[-1][1], math.inf) if self._kept else 0.0
            with contextlib.suppress(self._triton.InferenceServerException):  # the server forgets it by itself
                self._request(self._inputs(time_s, None), min(self.timeout_s, END_S), end=True)
        if self._shared is not None:
            self._shared.close()
        self._client.close()

    def __enter__(self) -> StreamClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- requests
    def _send(self, time_s: float, left_s: float, *, flush: bool = False) -> Any:
        """One try: goes on with the sequence, or opens it with what the server must know of it."""
        opening = not self._open
        if self._shared is not None:
            self._shared.write(self._frame, opening)
        inputs, hop = self._inputs(time_s, self._kept if opening else None), self._hop
        if hop != (self.served.config.hop if opening else self._told_hop):
            inputs.append(self._input("hop", np.array([[hop]], np.int32), "INT32"))
        if flush:
            inputs.append(self._input("flush", np.ones((1, 1), np.bool_), "BOOL"))
        try:
            answer = self._request(inputs, left_s, start=opening)
        except self._triton.InferenceServerException as error:
            # After an error of ours the sequence stands where it stood. After any other nobody knows whether the frame
            # was taken: opened anew, it is in the state before it.
            if opening or error_of(error) is None:
                self.reopened += self._open
                self._open = False
            raise
        self._open, self._told_hop = True, hop
        return answer

    def _request(self, inputs: list[Any], left_s: float, **flags: bool) -> Any:
        given = {"sequence_start": False, "sequence_end": False}
        given |= {f"sequence_{name}": value for name, value in flags.items()}
        return self._client.infer(self.model, inputs, sequence_id=self._id, client_timeout=left_s, **given)

    def _inputs(self, time_s: float, history: deque[tuple[Frame, float]] | None) -> list[Any]:
        frame = self._triton.InferInput("frame", [1, *self._frame.shape], "UINT8")
        if self._shared is None:
            frame.set_data_from_numpy(self._frame[None])
        else:
            frame.set_shared_memory(self._shared.name, self._frame.nbytes)
        given = [frame, self._input("time_s", np.array([[time_s]], np.float64), "FP64")]
        if history:
            given.append(self._input("history", np.stack([frame for frame, _ in history])[None], "UINT8"))
            given.append(self._input("history_times_s", np.array([[time for _, time in history]], np.float64), "FP64"))
            given.append(self._input("history_since", np.array([[self._since]], np.int64), "INT64"))
        return given

    def _input(self, name: str, array: npt.NDArray[Any], kind: str) -> Any:
        tensor = self._triton.InferInput(name, list(array.shape), kind)
        tensor.set_data_from_numpy(array)
        return tensor

    def _until_answered(self, call: Callable[[float], Any]) -> Any:
        """Calls until there is an answer, or an error that another try would give again."""
        give_up = time.monotonic() + self.timeout_s
        while True:
            try:
                return call(max(give_up - time.monotonic(), 0.001))
            except self._triton.InferenceServerException as error:
                ours = error_of(error)
                if ours is not None:
                    raise ours from error
                if self._closed or time.monotonic() + PAUSE_S >= give_up:
                    raise no_answer(self.url, self.model, self.timeout_s, error) from error
            time.sleep(PAUSE_S)

    def _result(self, answer: Any, marks: dict[str, int], started_ns: int, time_s: float) -> Result | None:
        rows = answer.as_numpy("probabilities").reshape(-1, len(self.labels))
        marks["server"] = perf_counter_ns()
        if not len(rows):
            return None
        probabilities = rows[0].copy()
        index, stages, before = int(probabilities.argmax()), {}, started_ns
        for name, mark in marks.items():
            stages[name] = (mark - before) / 1e6
            before = mark
        age_ms = (before - started_ns) / 1e6
        self._sequence += 1
        return Result(
            self.labels[index], index, probabilities, MappingProxyType(stages), age_ms, time_s, self._sequence - 1
        )

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError("This client is closed.", next="StreamClient(...) opens a new sequence")


class SharedFrame:
    """Memory for one frame that this process and a server on this machine share.

    Args:
        client: of tritonclient.
        size: bytes.

    Attributes:
        name: by which requests name it.
    """

    def __init__(self, client: Any, size: int) -> None:
        import tritonclient.utils.shared_memory as memory

        self._memory, self._client, self._size = memory, client, size
        self.name = f"logoformer-{os.getpid()}-{os.urandom(4).hex()}"
        self._region = memory.create_shared_memory_region(self.name, f"/{self.name}", size)

    def write(self, frame: Frame, anew: bool) -> None:
        """Puts a frame there; with `anew`, tells the server of the memory first."""
        if anew:
            self._client.unregister_system_shared_memory(self.name)
            self._client.register_system_shared_memory(self.name, f"/{self.name}", self._size)
        self._memory.set_shared_memory_region(self._region, [frame])

    def close(self) -> None:
        """Frees it, on the server too where that answers."""
        import tritonclient.grpc as triton

        with contextlib.suppress(triton.InferenceServerException):
            self._client.unregister_system_shared_memory(self.name, client_timeout=2.0)
        self._memory.destroy_shared_memory_region(self._region)
