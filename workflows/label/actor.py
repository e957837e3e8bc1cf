"""What of a labelling run lives in Ray's processes; Ray itself is not imported here."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import errors
from ...engine import Runtime, load
from ...errors import LogoformerError, MachineError
from .answering import LabelConfig, answer_recording, provenance_of

FAILED = -1  # the number of a row that says why a process cannot go on
Block = Mapping[str, Sequence[Any]]


class LabelActor:
    """A runtime in a process of Ray, as a callable class of `map_batches`.

    What fails is a row of its own and no exception: Ray wraps those, and repeats what raised them.

    Args:
        bundle: a path that is the same on every machine.
        arguments: keywords of `logoformer.load`.
        config: how recordings are answered.
    """

    def __init__(self, bundle: str, arguments: Mapping[str, Any], config: LabelConfig) -> None:
        self._config = config
        self._runtime: Runtime | None = None
        self._failure: LogoformerError | None = None
        by: dict[str, Any] = {"process": os.getpid(), "machine": socket.gethostname()}
        try:
            self._runtime = load(bundle, **arguments)
            by["provenance"] = provenance_of(self._runtime, config)
        except LogoformerError as error:
            self._failure = error
        self._by = json.dumps(by | {"ready_s": time.time()})

    def __call__(self, block: Block) -> dict[str, list[Any]]:
        """Answers a block.

        Args:
            block: rows of `number`, and of `path` and `shown` as JSON: Arrow's texts hold no odd file names.

        Returns:
            Rows of `number`, `found` (JSON of `answer_recording`) and `by` (JSON: which process, ready since when, of
            which provenance). The last one has the number `FAILED` and the error where something else failed than a
            recording.
        """
        numbers, texts = [], []
        try:
            if self._failure is not None or self._runtime is None:
                raise self._failure or MachineError("The runtime is gone.")
            for number, path, shown in zip(block["number"], block["path"], block["shown"], strict=True):
                found = answer_recording(self._runtime, Path(json.loads(path)), json.loads(shown), self._config)
                numbers.append(int(number))
                texts.append(json.dumps(found, allow_nan=False))
        except LogoformerError as error:
            numbers.append(FAILED)
            texts.append(json.dumps(error.to_json()))
        return {"number": numbers, "found": texts, "by": [self._by] * len(numbers)}


def describe_runtime(bundle: str, arguments: Mapping[str, Any], config: LabelConfig) -> str:
    """JSON of the provenance that a process of Ray answers with, or of the error that it meets."""
    try:
        with load(bundle, **arguments) as runtime:
            return json.dumps({"provenance": provenance_of(runtime, config)})
    except LogoformerError as error:
        return json.dumps(error.to_json())


def error_from_json(found: Mapping[str, Any]) -> LogoformerError:
    """The error that a process of Ray met."""
    kind = getattr(errors, str(found["error"]), MachineError)
    raised: LogoformerError = kind(found["what"], cause=found["cause"], next=found["next"], log=found["log"])
    return raised
