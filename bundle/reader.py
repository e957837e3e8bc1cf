"""Read a bundle: the index when it is opened, each file when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..clips import Sampling
from ..errors import BadInputError, RefusedError, advising, command, one_of
from .descriptors import HeldFolder
from .entries import FILE, GRAPHS, MIXED, PRECISIONS, Golden, GraphEntry, StreamSpec, TensorSpec, graph_entry, named
from .files import MAX_JSON_BYTES, parse_json, read_regular
from .npz import load_npz
from .sealed import count, read_stored, reading_fields, stored, typed, unseal

FORMAT = "logoformer-bundle"
SCHEMA_VERSION = 1
MAX_GRAPH_BYTES = 1 << 30
MAX_GOLDEN_BYTES = 256 << 20


class Bundle:
    """A bundle opened for reading.

    Opening reads only the index; each file is checked when it is asked for.

    Args:
        path: the folder.
        index: the bytes to take for its `manifest.json`; the writer proves an index so, before it goes to the disk.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: the index is damaged, hostile or too new.
    """

    def __init__(self, path: str | os.PathLike[str], *, index: bytes | None = None) -> None:
        self.path = Path(path)
        self._root = HeldFolder(self.path)
        self._again = command("logoformer", "export", "CHECKPOINT", "-o", self.path)
        shown = f"{self.path}/manifest.json"
        with advising(self._again):
            if index is None:
                if not os.path.lexists(shown):
                    raise BadInputError(
                        f"There is no bundle at {self.path}.",
                        cause="a mistyped path, or an export that did not finish",
                    )
                index = read_regular(self._root, "manifest.json", MAX_JSON_BYTES)
            self.manifest = unseal(index, shown, FORMAT, SCHEMA_VERSION)
            with reading_fields(shown):
                self._parse(self.manifest)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}: {', '.join(self.runnable)}; {len(self.labels)} labels)"

    def _parse(self, m: dict[str, Any]) -> None:
        self.labels = tuple(typed(label, str) for label in typed(m["labels"], list))
        self.sampling = Sampling.from_json(m["sampling"])
        self.image_size = count(m["preprocessing"]["size"])
        s = m["stream"]
        f, h, w = (count(n) for n in s["window"])
        self.stream = StreamSpec(
            slots=count(s["slots"]),
            faces=count(s["faces"]),
            frames=count(s["frames"]),
            grid=count(s["grid"]),
            window=(f, h, w),
            embed_dim=count(s["embed_dim"]),
        )
        self.graphs = tuple(graph_entry(entry) for entry in typed(m["graphs"], list))
        self.precisions: dict[str, dict[str, Any]] = {
            named(name, PRECISIONS): typed(value, dict) for name, value in m["precisions"].items()
        }
        self._golden = stored(m["golden"], FILE)
        self._calibrations = {
            name: stored(typed(value["calibration"], dict), FILE)
            for name, value in self.precisions.items()
            if "calibration" in value
        }
        noted = typed(m.get("verification", {}), dict)
        rows = [(typed(row["precision"], str), typed(row["verdict"], str)) for row in noted.get("rows", [])]
        self.failed = frozenset(precision for precision, verdict in rows if verdict == "failed")
        self.mixture = self._mixture()
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError("fewer than two labels, or one twice")
        if self.frames != self.stream.frames or self.frames % f or self.stream.grid % h or self.stream.grid % w:
            raise ValueError("sampling, stream and window do not fit each other")
        for entry in self.graphs:
            if {*entry.inputs, *entry.outputs} != self._tensors_of(entry.graph, entry.batch):
                raise ValueError(f"the tensors of {entry.file} do not fit sampling, stream and labels")

    def _mixture(self) -> dict[str, str]:
        """By graph, the precision that a mixed verdict chose; empty without one.

        INT8 for one graph of the pair, FP16 for the others.
        There is no mixture of graphs inside the clip graph, so it stays FP16.
        """
        int8 = self.precisions.get("int8", {})
        chosen = {
            named(graph, GRAPHS): named(p, PRECISIONS) for graph, p in typed(int8.get("graphs", {}), dict).items()
        }
        if bool(chosen) != str(int8.get("verdict", "")).startswith(MIXED):
            raise ValueError("a mixed verdict and the precisions of its graphs go together")
        held = {(entry.graph, entry.precision, entry.batch) for entry in self.graphs}
        if chosen and (
            chosen.keys() != set(GRAPHS)
            or chosen["clip"] != "fp16"
            or {chosen["frame"], chosen["temporal"]} != {"int8", "fp16"}
            or not {(graph, precision, 1) for graph, precision in chosen.items()} <= held
        ):
            raise ValueError(f"{chosen} is no mixture of one INT8 graph of the pair and FP16 graphs of this bundle")
        return chosen

    @property
    def runnable(self) -> tuple[str, ...]:
        """Precisions that can be asked for by name: those of the graphs, and 'mixed' if so judged."""
        return (*self.precisions, *((MIXED,) if self.mixture else ()))

    @property
    def accepted(self) -> tuple[str, ...]:
        """Runnable precisions that the verdicts accept and `logoformer verify` did not fail."""
        verdicts = {name: str(entry.get("verdict", "")) for name, entry in self.precisions.items()}
        kept = [name for name, verdict in verdicts.items() if verdict.startswith("accept") and name not in self.failed]
        mixed = self.mixture and self.failed.isdisjoint((MIXED, *self.mixture.values()))
        return (*kept, MIXED) if mixed else tuple(kept)

    def _tensors_of(self, graph: str, batch: int) -> set[TensorSpec]:
        """What a graph must take and give; the runtime fills `ring` and `order` by `stream`."""
        if batch != 1 and graph == "temporal":
            raise ValueError(f"a graph 'temporal' for batch {batch}: one ring gives one answer")
        s, size = self.stream, self.image_size
        probabilities = TensorSpec("probabilities", "float32", (batch, len(self.labels)))
        return {
            "clip": {TensorSpec("clip", "uint8", (batch, s.frames, size, size, 3)), probabilities},
            "frame": {
                TensorSpec("frame", "uint8", (batch, size, size, 3)),
                TensorSpec("tokens", "float32", (batch, s.tokens_per_frame, s.embed_dim)),
            },
            "temporal": {
                TensorSpec("ring", "float32", (s.rows, s.embed_dim)),
                TensorSpec("order", "int32", (s.frames * s.tokens_per_frame,)),
                probabilities,
            },
        }[graph]

    @property
    def frames(self) -> int:
        """T, frames of a clip."""
        return self.sampling.frames

    def graph(self, graph: str, precision: str, batch: int = 1) -> GraphEntry:
        """Finds one graph; in 'mixed', of the precision that the verdict chose for it.

        Raises:
            BadInputError: the bundle has none of that kind; the message lists those it has.
        """
        found = self._of(graph, precision)
        for entry in self.graphs:
            if (entry.graph, entry.precision, entry.batch) == (graph, found, batch):
                return entry
        have = sorted({f"{entry.graph} {entry.precision} b{entry.batch}" for entry in self.graphs})
        raise BadInputError(
            f"{self.path} has no graph '{graph}' in {precision} for batch {batch}.",
            cause=f"it holds {one_of(have)}",
            next=self._again,
        )

    def frame_batches(self, precision: str) -> tuple[int, ...]:
        """For how many faces at once there is a `frame` graph, ascending."""
        wanted = ("frame", self._of("frame", precision))
        return tuple(sorted({e.batch for e in self.graphs if (e.graph, e.precision) == wanted}))

    def _of(self, graph: str, precision: str) -> str:
        return self.mixture.get(graph, precision) if precision == MIXED else precision

    def hold(self, graphs: Iterable[GraphEntry]) -> None:
        """Keeps the files of graphs open, to be read also after the bundle was replaced."""
        for entry in graphs:
            self._root.hold(entry.file)

    def read_graph(self, entry: GraphEntry) -> bytes:
        """The ONNX bytes, checked against the index. Use these bytes; do not open the file again.

        Raises:
            RefusedError: a link, a wrong size or a wrong hash.
            BadInputError: the file is missing.
        """
        return self._read(entry.file, entry.sha256, entry.size, MAX_GRAPH_BYTES)

    def golden(self) -> Golden:
        """The golden clips and their answers.

        Raises:
            RefusedError: changed, or not what the index promises.
        """
        shown, s = f"{self.path}/{self._golden[0]}", self.image_size
        with advising(self._again):
            arrays = load_npz(self._read(*self._golden, MAX_GOLDEN_BYTES), shown, MAX_GOLDEN_BYTES)
            clips, answers = arrays.get("clips"), arrays.get("probabilities")
            if (
                clips is None
                or answers is None
                or clips.dtype != np.uint8
                or clips.shape[1:] != (self.frames, s, s, 3)
                or answers.dtype != np.float32
                or answers.shape != (len(clips), len(self.labels))
                or not len(clips)
            ):
                raise RefusedError(f"{shown} does not hold golden clips of this model.")
        return Golden(clips, answers)

    def calibration(self, precision: str = "int8") -> dict[str, Any]:
        """The calibration record of a precision, as `calibration/choose.py` wrote it.

        Raises:
            BadInputError: the precision was not calibrated.
            RefusedError: changed, or no JSON object.
        """
        if precision not in self._calibrations:
            raise BadInputError(
                f"{self.path} holds no calibration record for {precision}.",
                next=command("logoformer", "quantize", self.path, "--data", "DATA"),
            )
        record = self._calibrations[precision]
        shown = f"{self.path}/{record[0]}"
        with advising(self._again), reading_fields(shown):
            return typed(parse_json(self._read(*record, MAX_JSON_BYTES), shown), dict)

    def _read(self, file: str, digest: str, size: int, limit: int) -> bytes:
        with advising(self._again):
            return read_stored(self._root, file, digest, size, limit)
