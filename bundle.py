"""The bundle: the folder that a checkpoint becomes and a device runs.

    face.bundle/
      manifest.json                                  the one index, with a digest over itself
      graphs/<graph>.<precision>.b<N>.<hash8>.onnx
      golden/<hash8>.npz
      engines/                                       see engine/engine_index.py; may live elsewhere

Files are named by their content and never change. A change writes new files and then replaces the index in one step,
so a reader always sees a whole bundle; what no index names any more is swept an hour later at the earliest.

Nothing of a bundle reaches a runtime before it was checked: regular file, no link, size, digest, hash. A digest is not
authenticity: it tells damage, not malice (SECURITY.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .clips import Sampling
from .errors import BadInputError, MachineError, RefusedError, UsageError, command, one_of
from .files import dump_json, parse_json, read_regular, sha256, write_atomic, writing_failed

FORMAT = "logoformer-bundle"
SCHEMA_VERSION = 1
MAX_GRAPH_BYTES = 1 << 30
MAX_GOLDEN_BYTES = 256 << 20
SWEEP_AFTER_S = 3600.0

_FILE = re.compile(r"(graphs|golden|calibration)/[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")
_HEX = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


# -------------------------------------------------------------------------------------------------------------- index
def seal(index: Mapping[str, Any]) -> bytes:
    """Serialises an index with a digest over everything else in it."""
    body = {key: value for key, value in index.items() if key != "digest"}
    return dump_json({**body, "digest": sha256(dump_json(body))})


def unseal(data: bytes, shown: str, format_name: str, version: int) -> dict[str, Any]:
    """Reads an index and proves that no bit of it changed.

    Args:
        data: the file's bytes.
        shown: how to name it.
        format_name: the value of `format` expected.
        version: the newest `schema_version` understood.

    Raises:
        RefusedError: not JSON, another format, a newer schema, or a digest that does not fit.
    """
    index = parse_json(data, shown)
    if not isinstance(index, dict) or index.get("format") != format_name:
        raise RefusedError(f"{shown} is not a {format_name} index.", cause="a file of another program")
    found = index.get("schema_version")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise RefusedError(f"{shown} has no usable schema_version.", cause="a damaged file")
    if found > version:
        raise RefusedError(
            f"{shown} has schema version {found}; this program reads up to {version}.",
            cause="it was written by a newer logoformer",
            next=command("pip", "install", "--upgrade", "logoformer"),
        )
    if seal(index) != data:  # also catches a flip in the white space
        raise RefusedError(
            f"{shown} does not match its own digest.",
            cause="a damaged copy, or a change by hand",
            next="copy the bundle again, or export it anew",
        )
    return index


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
        """h * w."""
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

    Raises:
        BadInputError: there is no bundle.
        RefusedError: the index is damaged, hostile or too new.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        shown = f"{self.path}/manifest.json"
        if not self.path.is_dir() or not os.path.lexists(self.path / "manifest.json"):
            raise BadInputError(
                f"There is no bundle at {self.path}.",
                cause="a mistyped path, or an export that did not finish",
                next=command("logoformer", "export", "CHECKPOINT", "-o", self.path),
            )
        self.manifest = unseal(read_regular(self.path, "manifest.json", 4 << 20), shown, FORMAT, SCHEMA_VERSION)
        try:
            self._parse(self.manifest)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RefusedError(
                f"{shown} lacks or garbles a field: {error!r}.", cause="an index that this program did not write"
            ) from error

    def _parse(self, m: dict[str, Any]) -> None:
        self.labels = tuple(_typed(label, str) for label in m["labels"])
        self.sampling = Sampling.from_json(m["sampling"])
        self.image_size = _count(m["preprocessing"]["size"])
        s = m["stream"]
        f, h, w = (_count(n) for n in s["window"])
        self.stream = StreamSpec(
            slots=_count(s["slots"]),
            faces=_count(s["faces"]),
            frames=_count(s["frames"]),
            grid=_count(s["grid"]),
            window=(f, h, w),
            embed_dim=_count(s["embed_dim"]),
        )
        self.graphs = tuple(_graph_entry(entry) for entry in m["graphs"])
        self.precisions: dict[str, dict[str, Any]] = {
            _typed(name, str): _typed(value, dict) for name, value in m["precisions"].items()
        }
        _stored(m["golden"])
        if self.frames != self.stream.frames or len(self.labels) < 2:
            raise ValueError("sampling, stream and labels do not fit each other")

    @property
    def frames(self) -> int:
        """T, frames of a clip."""
        return self.sampling.frames

    def graph(self, graph: str, precision: str, batch: int = 1) -> GraphEntry:
        """Finds one graph.

        Raises:
            BadInputError: the bundle has none of that kind; the message lists those it has.
        """
        for entry in self.graphs:
            if (entry.graph, entry.precision, entry.batch) == (graph, precision, batch):
                return entry
        have = sorted({f"{entry.graph} {entry.precision} b{entry.batch}" for entry in self.graphs})
        raise BadInputError(
            f"{self.path} has no graph '{graph}' in {precision} for batch {batch}.",
            cause=f"it holds {one_of(have)}",
            next=command("logoformer", "export", "CHECKPOINT", "-o", self.path),
        )

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
        entry = self.manifest["golden"]
        data = self._read(*_stored(entry), MAX_GOLDEN_BYTES)
        arrays = load_npz(data, f"{self.path}/{entry['file']}", MAX_GOLDEN_BYTES)
        clips, answers = arrays.get("clips"), arrays.get("probabilities")
        s = self.image_size
        if (
            clips is None
            or answers is None
            or clips.dtype != np.uint8
            or clips.shape[1:] != (self.frames, s, s, 3)
            or answers.dtype != np.float32
            or answers.shape != (len(clips), len(self.labels))
        ):
            raise RefusedError(f"{self.path}/{entry['file']} does not hold golden clips of this model.")
        return Golden(clips, answers)

    def _read(self, file: str, digest: str, size: int, limit: int) -> bytes:
        shown = f"{self.path}/{file}"
        again = command("logoformer", "export", "CHECKPOINT", "-o", self.path)
        try:
            data = read_regular(self.path, file, min(size, limit))
        except BadInputError as error:
            raise RefusedError(
                f"{shown} is named by the index but cannot be read: {error.what}",
                cause="an unfinished copy, or a deleted file",
                next=again,
            ) from error
        if len(data) != size or sha256(data) != digest:
            raise RefusedError(
                f"{shown} is not the file that the index names: {len(data)} bytes of {size}, SHA-256 differs.",
                cause="a damaged copy, or an exchanged file",
                next=again,
            )
        return data


def load_npz(data: bytes, shown: str, max_expanded_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """Reads an npz without pickle and with a limit on what it expands to.

    Raises:
        RefusedError: not an npz, objects inside, or larger than allowed once expanded.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            expanded = sum(info.file_size for info in members)
            if expanded > max_expanded_bytes or len(members) > 64:
                raise RefusedError(
                    f"{shown} expands from {len(data)} to {expanded} bytes; at most {max_expanded_bytes} are allowed.",
                    cause="a decompression bomb",
                )
            return {info.filename.removesuffix(".npy"): _read_npy(archive.read(info)) for info in members}
    except (ValueError, OSError, EOFError, RuntimeError, SyntaxError, TypeError, MemoryError, OverflowError) as error:
        raise RefusedError(f"{shown} is not a plain npz: {error}.", cause="a damaged or hostile file") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error) as error:
        raise RefusedError(f"{shown} is not a plain npz: {error}.", cause="a damaged or hostile file") from error


def _read_npy(data: bytes) -> npt.NDArray[Any]:
    """One array; its header must promise exactly the bytes that follow, so nothing is allocated on its word."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an npy of another version than 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    body = memoryview(data)[stream.tell() :]
    if dtype.hasobject or fortran or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError("an array of objects, in Fortran order, or of another size than its header says")
    return np.frombuffer(body, dtype).reshape(shape)


def _typed(value: Any, kind: type[_T]) -> _T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r:.80} is not of type {kind.__name__}")
    return value


def _count(value: Any) -> int:
    number = _typed(value, int)
    if not 1 <= number < 1 << 31:
        raise ValueError(f"{number} is out of range")
    return number


def _stored(entry: Mapping[str, Any]) -> tuple[str, str, int]:
    file, digest = _typed(entry["file"], str), _typed(entry["sha256"], str)
    if not _FILE.fullmatch(file):
        raise ValueError(f"the path {file!r:.200} is not one of a bundle")
    if not _HEX.fullmatch(digest):
        raise ValueError(f"{digest!r:.80} is not a SHA-256")
    return file, digest, _count(entry["size"])


def _tensors(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(_typed(i["name"], str), np.dtype(_typed(i["dtype"], str)).name, tuple(_count(n) for n in i["shape"]))
        for i in items
    )


def _graph_entry(entry: Mapping[str, Any]) -> GraphEntry:
    file, digest, size = _stored(entry)
    return GraphEntry(
        graph=_typed(entry["graph"], str),
        precision=_typed(entry["precision"], str),
        batch=_count(entry["batch"]),
        file=file,
        sha256=digest,
        size=size,
        opset=_count(entry["opset"]),
        inputs=_tensors(entry["inputs"]),
        outputs=_tensors(entry["outputs"]),
        macs={_typed(name, str): _typed(count, int) for name, count in entry["macs"].items()},
    )


# -------------------------------------------------------------------------------------------------------------- writing
def content_name(folder: str, stem: str, data: bytes, suffix: str) -> str:
    """`folder/stem.<hash8>suffix`, or `folder/<hash8>suffix` without a stem."""
    return f"{folder}/{stem + '.' if stem else ''}{sha256(data)[:8]}{suffix}"


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
        self._written: set[str] = set()
        known = {"manifest.json", "graphs", "golden", "engines", "calibration", ".lock"}
        try:
            if self.path.exists():
                foreign = [
                    p.name for p in self.path.iterdir() if p.name not in known and not p.name.startswith(".part-")
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
        self._written.add(file)
        return {"file": file, "sha256": sha256(data), "size": len(data)}

    def add_graph(self, data: bytes, **fields: Any) -> dict[str, Any]:
        """Writes one ONNX file; `fields` are those of `GraphEntry` but file, sha256 and size."""
        stem = f"{fields['graph']}.{fields['precision']}.b{fields['batch']}"
        tensors = {side: [asdict(spec) for spec in fields[side]] for side in ("inputs", "outputs")}
        return {**fields, **tensors, **self.add("graphs", stem, data, ".onnx")}

    def add_golden(self, golden: Golden, source: str) -> dict[str, Any]:
        """Writes the golden clips; `source` says where they come from."""
        buffer = io.BytesIO()
        _write_npz(buffer, {"clips": golden.clips, "probabilities": golden.probabilities})
        return {**self.add("golden", "", buffer.getvalue(), ".npz"), "clips": len(golden.clips), "source": source}

    def commit(self, manifest: Mapping[str, Any]) -> Bundle:
        """Replaces the index, proves that the result opens, and sweeps old leftovers."""
        with _lock(self.path):
            bundle = _replace_index(self.path, manifest)
            self._sweep(bundle)
        return bundle

    def _sweep(self, bundle: Bundle) -> None:
        named = {entry.file for entry in bundle.graphs} | {bundle.manifest["golden"]["file"]} | self._written
        for folder in ("graphs", "golden"):
            for item in (self.path / folder).glob("*"):
                old = time.time() - item.lstat().st_mtime > SWEEP_AFTER_S
                if old and f"{folder}/{item.name}" not in named:
                    item.unlink(missing_ok=True)


def replace_manifest(bundle: Bundle, manifest: Mapping[str, Any]) -> Bundle:
    """Replaces the index alone, as `verify` does.

    Raises:
        MachineError: it may not be written, or it was replaced by somebody else meanwhile.
    """
    with _lock(bundle.path):
        if Bundle(bundle.path).manifest["digest"] != bundle.manifest["digest"]:
            raise MachineError(f"{bundle.path} was changed by another process meanwhile.", next="run this again")
        return _replace_index(bundle.path, manifest)


def _replace_index(path: Path, manifest: Mapping[str, Any]) -> Bundle:
    index = seal({**manifest, "format": FORMAT, "schema_version": SCHEMA_VERSION})
    write_atomic(path / "manifest.json", index)
    return Bundle(path)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One writer at a time."""
    try:
        with (path / ".lock").open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise MachineError(
                    f"{path} is being written by another process.", next="wait for it, then run this again"
                ) from error
            yield
    except PermissionError as error:
        raise writing_failed(error, path) from error


def _write_npz(stream: io.BytesIO, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """`np.savez_compressed` without the time of day, so that equal arrays give equal bytes."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), part.getvalue(), zipfile.ZIP_DEFLATED
            )
