"""The bundle: the folder that a checkpoint becomes and a device runs.

    face.bundle/
      manifest.json                                  the one index, with a digest over itself
      graphs/<graph>.<precision>.b<N>.<hash8>.onnx
      golden/<hash8>.npz
      calibration/<hash8>.json                       which clips INT8 was calibrated on, and the ranges they gave
      engines/                                       see engine/trust/index.py; may live elsewhere

Files are named by their content and never change. A change writes new files and then replaces the index in one step,
so a reader always sees a whole bundle; what no index names any more is swept an hour later at the earliest.

Nothing of a bundle reaches a runtime before it was checked: regular file, no link, size, digest, hash. A digest is not
authenticity: it tells damage, not malice (SECURITY.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..clips import Sampling
from ..errors import BadInputError, MachineError, RefusedError, UsageError, advising, command, one_of
from .files import MAX_JSON_BYTES, dump_json, parse_json, read_regular, sha256, write_atomic, writing_failed
from .npz import dump_npz, load_npz
from .sealed import content_name, count, only_writer, read_stored, reading_fields, seal, stored, typed, unseal

FORMAT = "logoformer-bundle"
SCHEMA_VERSION = 1
MAX_GRAPH_BYTES = 1 << 30
MAX_GOLDEN_BYTES = 256 << 20
SWEEP_AFTER_S = 3600.0

GRAPHS = ("clip", "frame", "temporal")
PRECISIONS = ("fp32", "fp16", "int8")
MIXED = "mixed"  # by name as if it were one more: of each graph the precision that the verdict on INT8 chose
DTYPES = ("uint8", "int32", "int64", "float16", "float32")
_OURS = re.compile(r"(clip|frame|temporal)\.[a-z0-9]+\.b\d+\.[0-9a-f]{8}\.onnx|[0-9a-f]{8}\.(npz|json)|\.part-.*")
_FILE = re.compile(r"(graphs|golden|calibration)/[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")


# ------------------------------------------------------------------------------------------------------------- entries
@dataclass(frozen=True)
class TensorSpec:
    """One graph input or output.

    Attributes:
        name: as in the graph.
        dtype: numpy's name, such as 'uint8'.
        shape: static.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class GraphEntry:
    """One ONNX file of the bundle.

    Attributes:
        graph: 'clip', 'frame' or 'temporal'.
        precision: 'fp32', 'fp16' or 'int8'.
        batch: leading size of its input.
        file: path below the bundle.
        sha256: of the file.
        size: bytes.
        opset: of the default ONNX domain.
        inputs, outputs: in graph order.
        macs: multiply-accumulates by the precision of the operands ('fp32', 'fp16', 'int8').
    """

    graph: str
    precision: str
    batch: int
    file: str
    sha256: str
    size: int
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    macs: Mapping[str, int]


@dataclass(frozen=True)
class StreamSpec:
    """What the streaming pair needs to know.

    Attributes:
        slots: ring slots of one face.
        faces: faces that share the arena; the temporal graph's ring has slots * faces * grid**2 rows.
        frames: T.
        grid: side of one frame's token map.
        window: (f, h, w).
        embed_dim: d.
    """

    slots: int
    faces: int
    frames: int
    grid: int
    window: tuple[int, int, int]
    embed_dim: int

    @property
    def tokens_per_frame(self) -> int:
        """Rows that one frame fills: h * w."""
        return self.grid**2

    @property
    def rows(self) -> int:
        """Rows of the arena."""
        return self.slots * self.faces * self.tokens_per_frame


@dataclass(frozen=True)
class Golden:
    """Clips with the answers that the PyTorch model gave.

    Attributes:
        clips: uint8 `[G, T, S, S, 3]`, RGB.
        probabilities: float32 `[G, C]`.
    """

    clips: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]


# -------------------------------------------------------------------------------------------------------------- reading
class Bundle:
    """A bundle opened for reading. Opening reads only the index; each file is checked when it is asked for.

    Args:
        path: the folder.
        index: the bytes to take for its `manifest.json`; the writer proves an index so, before it goes to the disk.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: the index is damaged, hostile or too new.
    """

    def __init__(self, path: str | os.PathLike[str], *, index: bytes | None = None) -> None:
        self.path = Path(path)
        self._again = command("logoformer", "export", "CHECKPOINT", "-o", self.path)
        shown = f"{self.path}/manifest.json"
        with advising(self._again):
            if index is None:
                if not os.path.lexists(shown):
                    raise BadInputError(
                        f"There is no bundle at {self.path}.",
                        cause="a mistyped path, or an export that did not finish",
                    )
                index = read_regular(self.path, "manifest.json", MAX_JSON_BYTES)
            self.manifest = unseal(index, shown, FORMAT, SCHEMA_VERSION)
            with reading_fields(shown):
                self._parse(self.manifest)

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
        self.graphs = tuple(_graph_entry(entry) for entry in typed(m["graphs"], list))
        self.precisions: dict[str, dict[str, Any]] = {
            _one(name, PRECISIONS): typed(value, dict) for name, value in m["precisions"].items()
        }
        stored(m["golden"], _FILE)
        self._calibrations = {
            name: stored(typed(value["calibration"], dict), _FILE)
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
        """By graph, the precision that a mixed verdict chose: INT8 for one of the pair, FP16 else. Empty without one.

        There is no mixture of graphs inside the clip graph, so it stays FP16.
        """
        int8 = self.precisions.get("int8", {})
        chosen = {_one(graph, GRAPHS): _one(p, PRECISIONS) for graph, p in typed(int8.get("graphs", {}), dict).items()}
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
        """The precisions that can be asked for by name: those of the graphs, and 'mixed' after such a verdict."""
        return (*self.precisions, *((MIXED,) if self.mixture else ()))

    @property
    def accepted(self) -> tuple[str, ...]:
        """Those of them that the verdicts accept and that did not fail `logoformer verify`."""
        verdicts = {name: str(entry.get("verdict", "")) for name, entry in self.precisions.items()}
        kept = [name for name, verdict in verdicts.items() if verdict.startswith("accept") and name not in self.failed]
        mixed = self.mixture and self.failed.isdisjoint((MIXED, *self.mixture.values()))
        return (*kept, MIXED) if mixed else tuple(kept)

    def _tensors_of(self, graph: str, batch: int) -> set[TensorSpec]:
        """What a graph must take and give. The runtime fills `ring` and `order` by the numbers of `stream`."""
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
        file, digest, size = stored(self.manifest["golden"], _FILE)
        shown, s = f"{self.path}/{file}", self.image_size
        with advising(self._again):
            arrays = load_npz(self._read(file, digest, size, MAX_GOLDEN_BYTES), shown, MAX_GOLDEN_BYTES)
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
        """The calibration record of a precision, as `calibration/record.py` wrote it.

        Raises:
            BadInputError: the precision was not calibrated.
            RefusedError: changed, or no JSON object.
        """
        if precision not in self._calibrations:
            raise BadInputError(
                f"{self.path} holds no calibration record for {precision}.",
                next=command("logoformer", "quantize", self.path, "--data", "DATA"),
            )
        file, digest, size = self._calibrations[precision]
        shown = f"{self.path}/{file}"
        with advising(self._again), reading_fields(shown):
            return typed(parse_json(self._read(file, digest, size, MAX_JSON_BYTES), shown), dict)

    def _read(self, file: str, digest: str, size: int, limit: int) -> bytes:
        with advising(self._again):
            return read_stored(self.path, file, digest, size, limit)


def _one(value: Any, names: tuple[str, ...]) -> str:
    if value not in names:
        raise ValueError(f"{value!r:.80} is none of {one_of(names)}")
    return str(value)


def _tensors(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(typed(i["name"], str), _one(i["dtype"], DTYPES), tuple(count(n) for n in i["shape"])) for i in items
    )


def _graph_entry(entry: Mapping[str, Any]) -> GraphEntry:
    file, digest, size = stored(entry, _FILE)
    return GraphEntry(
        graph=_one(entry["graph"], GRAPHS),
        precision=_one(entry["precision"], PRECISIONS),
        batch=count(entry["batch"]),
        file=file,
        sha256=digest,
        size=size,
        opset=count(entry["opset"]),
        inputs=_tensors(entry["inputs"]),
        outputs=_tensors(entry["outputs"]),
        macs={typed(name, str): typed(number, int) for name, number in entry["macs"].items()},
    )


# -------------------------------------------------------------------------------------------------------------- writing
class BundleWriter:
    """Writes a bundle: files first, each under its content's name, the index last and in one step.

    Args:
        path: the folder; made when it is not there. A folder that holds something else is refused.

    Raises:
        UsageError: the folder holds other things than a bundle.
        MachineError: it may not be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        known = {"manifest.json", "graphs", "golden", "engines", "calibration", ".lock"}
        try:
            if self.path.exists():
                # A link is foreign too: what is written or swept below one would lie elsewhere.
                foreign = [
                    p.name
                    for p in self.path.iterdir()
                    if p.is_symlink() or (p.name not in known and not p.name.startswith(".part-"))
                ]
                if foreign:
                    raise UsageError(
                        f"{self.path} exists and holds {one_of(sorted(foreign)[:3])}: not a bundle, left alone.",
                        next="name a new folder with -o",
                    )
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise writing_failed(error, self.path) from error

    def add(self, folder: str, stem: str, data: bytes, suffix: str) -> dict[str, Any]:
        """Writes one file and returns `{file, sha256, size}` for the index."""
        file = content_name(folder, stem, data, suffix)
        write_atomic(self.path / file, data)
        return {"file": file, "sha256": sha256(data), "size": len(data)}

    def add_graph(self, data: bytes, **fields: Any) -> dict[str, Any]:
        """Writes one ONNX file; `fields` are those of `GraphEntry` but file, sha256 and size."""
        stem = f"{fields['graph']}.{fields['precision']}.b{fields['batch']}"
        tensors = {side: [asdict(spec) for spec in fields[side]] for side in ("inputs", "outputs")}
        return {**fields, **tensors, **self.add("graphs", stem, data, ".onnx")}

    def add_golden(self, golden: Golden, source: str) -> dict[str, Any]:
        """Writes the golden clips; `source` says where they come from."""
        data = dump_npz({"clips": golden.clips, "probabilities": golden.probabilities})
        return {**self.add("golden", "", data, ".npz"), "clips": len(golden.clips), "source": source}

    def add_calibration(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a calibration record."""
        return self.add("calibration", "", dump_json(dict(record)), ".json")

    def commit(self, manifest: Mapping[str, Any], replacing: Bundle | None = None) -> Bundle:
        """Replaces the index once it is proven to open, and sweeps old leftovers.

        Args:
            manifest: the new index.
            replacing: what the new index was made from; nothing else may stand there.

        Raises:
            RefusedError: the index would not open; the one that stood there still stands.
            MachineError: it may not be written, or it was replaced by somebody else meanwhile.
        """
        with only_writer(self.path):
            if replacing is not None:
                _require_unchanged(replacing)
            before = self._named_so_far()
            bundle = _replace_index(self.path, manifest)
            self._sweep(bundle, before)
        return bundle

    def _named_so_far(self) -> set[str]:
        try:
            return _named(Bundle(self.path))
        except (BadInputError, RefusedError):  # nothing stands there, or nobody can read it
            return set()

    def _sweep(self, bundle: Bundle, before: set[str]) -> None:
        """Removes what no index has named for an hour: a reader of the last one may still want its files."""
        named = _named(bundle)
        now = time.time()
        folders = ("graphs", "golden", "calibration")
        leftovers = [*(p for name in folders for p in self.path.glob(f"{name}/*")), *self.path.glob(".part-*")]
        for item in leftovers:
            name = item.relative_to(self.path).as_posix()
            # The index is in place: what cannot be swept is no failure.
            with contextlib.suppress(OSError):
                if name in named or not _OURS.fullmatch(item.name):
                    continue
                if name in before:
                    os.utime(item, follow_symlinks=False)  # its hour begins now, not when it was written
                elif now - item.lstat().st_mtime > SWEEP_AFTER_S:
                    item.unlink()


def _named(bundle: Bundle) -> set[str]:
    calibrations = {file for file, _, _ in bundle._calibrations.values()}
    return {entry.file for entry in bundle.graphs} | {bundle.manifest["golden"]["file"]} | calibrations


def replace_manifest(bundle: Bundle, manifest: Mapping[str, Any]) -> Bundle:
    """Replaces the index alone, as `verify` does.

    Raises:
        MachineError: it may not be written, or it was replaced by somebody else meanwhile.
    """
    with only_writer(bundle.path):
        _require_unchanged(bundle)
        return _replace_index(bundle.path, manifest)


def _require_unchanged(bundle: Bundle) -> None:
    if Bundle(bundle.path).manifest["digest"] != bundle.manifest["digest"]:
        raise MachineError(f"{bundle.path} was changed by another process meanwhile.", next="run this again")


def _replace_index(path: Path, manifest: Mapping[str, Any]) -> Bundle:
    index = seal({**manifest, "format": FORMAT, "schema_version": SCHEMA_VERSION})
    bundle = Bundle(path, index=index)
    write_atomic(path / "manifest.json", index)
    return bundle
