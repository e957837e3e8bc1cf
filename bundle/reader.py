"""Read a bundle: the index when it is opened, each file when it is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..clips import Sampling
from ..errors import BadInputError, RefusedError, advising, command, one_of
from .alignment import Alignment
from .descriptors import HeldFolder
from .entries import (
    FILE,
    FORMAT,
    GRAPHS,
    MIXED,
    PRECISIONS,
    SCHEMA_VERSION,
    Golden,
    GraphEntry,
    StreamSpec,
    TensorSpec,
    graph_entry,
    named,
    precision_entry,
    shown_labels,
)
from .files import MAX_JSON_BYTES, parse_json, read_regular
from .npz import load_npz
from .pooled import backend_kind, judge_again, read_pooled, verdicts_of, void_verdicts
from .sealed import count, read_stored, reading_fields, stored, typed, unseal
from .verdicts import ACCEPTS, BackendVerdicts, read_verdicts

MAX_GRAPH_BYTES = 1 << 30
MAX_GOLDEN_BYTES = 256 << 20

_WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar")


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
                    raise _no_bundle(self.path)
                index = read_regular(self._root, "manifest.json", MAX_JSON_BYTES)
            self.manifest = unseal(index, shown, FORMAT, SCHEMA_VERSION)
            with reading_fields(shown):
                self._parse(self.manifest)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}: {', '.join(self.runnable)}; {len(self.labels)} labels)"

    def _parse(self, m: dict[str, Any]) -> None:
        self.labels = shown_labels(m["labels"])
        typed(m.get("provenance", {}), dict), typed(m.get("model", {}), dict)
        self.sampling = Sampling.from_json(m["sampling"])
        self.image_size = count(m["preprocessing"]["size"])
        # Bundles of 0.1 have none: their crops are squares around the box that a detector gives.
        self.alignment = Alignment.from_json(typed(m["alignment"], dict)) if "alignment" in m else None
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
            named(name, PRECISIONS): precision_entry(value) for name, value in m["precisions"].items()
        }
        self._golden = stored(m["golden"], FILE)
        self._calibrations = {
            name: stored(typed(value["calibration"], dict), FILE)
            for name, value in self.precisions.items()
            if "calibration" in value
        }
        self.verdicts = read_verdicts(typed(m.get("verification", {}), dict))
        for verdict in verdicts_of(m).values():
            read_pooled(verdict)
        self.mixture = self._mixture()
        if len({(entry.graph, entry.precision, entry.batch) for entry in self.graphs}) < len(self.graphs):
            raise ValueError("a graph that stands there twice")
        if self.frames != self.stream.frames or self.frames % f or self.stream.grid % h or self.stream.grid % w:
            raise ValueError("sampling, stream and window do not fit each other")
        rows = self._dtype_of_rows()
        for entry in self.graphs:
            held = "float32" if entry.precision == "fp32" else rows
            if {*entry.inputs, *entry.outputs} != self._tensors_of(entry.graph, entry.batch, held):
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
        """Runnable precisions that the reference accepts and `verify` failed on no backend."""
        failed = {precision for _, precision in self.verdicts.failed}
        return tuple(
            name for name in self.runnable if self._by_reference(name) and failed.isdisjoint(self._parts(name))
        )

    def accepted_on(self, backend: str) -> tuple[str, ...]:
        """Runnable precisions that may run on a backend.

        Its own verdict decides; the reference's where it was never judged.

        Args:
            backend: such as 'openvino'.
        """
        failed = self.verdicts.failed
        own = BackendVerdicts(failed, self._judged())
        return tuple(
            name
            for name in self.runnable
            if own.allows(backend, name, self._by_reference(name))
            and all((backend, part) not in failed for part in self._parts(name))
        )

    def judged_on(self, backend: str) -> tuple[str, ...]:
        """Precisions on which a backend has a verdict of its own, which is not void."""
        return tuple(precision for on, precision in self._judged() if on == backend)

    def _judged(self) -> dict[tuple[str, str], str]:
        return {key: told for key, told in self.verdicts.judged.items() if backend_kind(*key) not in self.void}

    @cached_property
    def void(self) -> dict[str, str]:
        """Pooled verdicts that no longer hold, and why; see `pooled.void_verdicts`."""
        return void_verdicts(self.path, self.manifest)

    def void_notes(self) -> list[str]:
        """A sentence for each void verdict, with the command that judges again."""
        given = verdicts_of(self.manifest)
        return [
            f"The verdict on {kind} of {self.path} is void: {why}. Next: {judge_again(self.path, given[kind])}"
            for kind, why in self.void.items()
        ]

    def _by_reference(self, precision: str) -> bool:
        kind = "int8" if precision == MIXED else precision
        accepts = precision == MIXED or str(self.precisions[kind].get("verdict", "")).startswith(ACCEPTS)
        return accepts and kind not in self.void

    def _parts(self, precision: str) -> set[str]:
        return {precision, *self.mixture.values()} if precision == MIXED else {precision}

    def _dtype_of_rows(self) -> str:
        """Type of tokens and ring in FP16 and INT8.

        One for all of these graphs, which may be mixed with each other.
        """
        narrow = [entry for entry in self.graphs if entry.precision != "fp32"]
        specs = {
            spec for entry in narrow for spec in (*entry.inputs, *entry.outputs) if spec.name in ("tokens", "ring")
        }
        return "float16" if {spec.dtype for spec in specs} == {"float16"} else "float32"

    def _tensors_of(self, graph: str, batch: int, rows: str) -> set[TensorSpec]:
        """What a graph takes and gives, tokens and ring in the type `rows`.

        The runtime fills `ring` and `order` by `stream`.
        """
        s, size = self.stream, self.image_size
        order = (s.frames * s.tokens_per_frame,)
        probabilities = TensorSpec("probabilities", "float32", (batch, len(self.labels)))
        return {
            "clip": {TensorSpec("clip", "uint8", (batch, s.frames, size, size, 3)), probabilities},
            "frame": {
                TensorSpec("frame", "uint8", (batch, size, size, 3)),
                TensorSpec("tokens", rows, (batch, s.tokens_per_frame, s.embed_dim)),
            },
            "temporal": {
                TensorSpec("ring", rows, (s.rows, s.embed_dim)),
                TensorSpec("order", "int32", order if batch == 1 else (batch, *order)),
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
        return self._batches("frame", precision)

    def temporal_batches(self, precision: str) -> tuple[int, ...]:
        """For how many faces at once there is a `temporal` graph, ascending."""
        return self._batches("temporal", precision)

    def _batches(self, graph: str, precision: str) -> tuple[int, ...]:
        wanted = (graph, self._of(graph, precision))
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

    def files(self) -> Iterator[tuple[str, bytes]]:
        """(path, bytes) of every file of the bundle but engines, the index last.

        Each file is checked before it is given.

        Raises:
            RefusedError: the index was replaced since it was opened, or a file is not what it promises.
            BadInputError: a file is missing.
        """
        for entry in self.graphs:
            yield entry.file, self.read_graph(entry)
        yield self._golden[0], self._read(*self._golden, MAX_GOLDEN_BYTES)
        for record in self._calibrations.values():
            yield record[0], self._read(*record, MAX_JSON_BYTES)
        index = read_regular(self._root, "manifest.json", MAX_JSON_BYTES)
        if unseal(index, f"{self.path}/manifest.json", FORMAT, SCHEMA_VERSION) != self.manifest:
            raise RefusedError(f"{self.path} was replaced while it was read.", next="run this again")
        yield "manifest.json", index

    def _read(self, file: str, digest: str, size: int, limit: int) -> bytes:
        with advising(self._again):
            return read_stored(self._root, file, digest, size, limit)


def _no_bundle(path: Path) -> BadInputError:
    """What is there instead, and the way from it to a bundle."""
    what = f"There is no bundle at {path}."
    if _is_file(path / "config.json") and _is_file(path / "model.safetensors"):
        again = command("logoformer", "export", path, "-o", f"{path}.bundle")
        return BadInputError(what, cause="it is a checkpoint, which is exported once", next=again)
    if path.suffix in _WEIGHTS and _is_file(path):
        again = command("logoformer", "import", path, "-o", path.with_suffix(""))
        return BadInputError(what, cause="it is a file of weights, which is imported and then exported", next=again)
    if _is_file(path):
        if path.name == "manifest.json":
            return BadInputError(what, cause="it is the index of a bundle", next=f"name the folder: {path.parent}")
        return BadInputError(
            f"There is no bundle at {path}: it is a file, and a bundle is a folder.",
            cause="the arguments are the other way round: the bundle comes first",
            next="name the folder that logoformer export wrote, and then the file",
        )
    holds = _names(path)
    if "graphs" in holds:
        cause = "an export that did not finish, or a copy in part: it holds graphs/, but no manifest.json"
        return BadInputError(what, cause=cause)
    if holds:
        return BadInputError(
            f"There is no bundle at {path}: it is a folder without a manifest.json.",
            cause=f"a folder of something else, such as {one_of(holds[:1])}, or the arguments are the other way round",
            next="name the folder that logoformer export wrote, before any source",
        )
    return BadInputError(what, cause="a mistyped path, or an export that did not finish")


def _names(path: Path) -> list[str]:
    """What a folder holds, sorted; nothing where it is no folder."""
    with contextlib.suppress(OSError, ValueError):
        return sorted(entry.name for entry in path.iterdir())
    return []


def _is_file(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a zero byte
        return path.is_file()
    return False
