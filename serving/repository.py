"""`logoformer triton`: a model repository that Triton loads as it is.

    models/
      stream/config.pbtxt   stream/1/model.py   stream/1/face.bundle/
      clip/config.pbtxt     clip/1/model.py     clip/1/face.bundle/     clip/warmup/golden

Each model has a copy of the bundle's verified bytes: a model that Triton loads alone, or from an object store, is
whole, and damage to one copy leaves the other model working. `model.py` holds one import; what it runs is this package,
so the server's Python needs it: `pip install 'logoformer-0.1.0-py3-none-any.whl[cpu]'`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bundle import Bundle
from ..bundle.files import atomic_folder, foreign_paths, read_regular, require_space
from ..bundle.writer import PATHS
from ..engine.sessions.backends import CPU_BACKENDS, choose_precisions
from ..engine.trust.admit import read_signature
from ..engine.trust.index import engines_folder, read_engine, read_index
from ..errors import UsageError, command
from .settings import BUNDLE, PARAMETER, Served, TritonConfig

MOST_AT_ONCE = 4  # faces of one execution; more wait for the next
MADE_BY = "# Made by logoformer triton; made again, it is replaced.\n"
MODELS = {"stream": "StreamModel", "clip": "ClipModel"}
# Every path that a model's folder has; a server may leave compiled Python there.
_MADE = re.compile(
    rf"config\.pbtxt|1|1/model\.py|1/__pycache__(/model\.[A-Za-z0-9.-]+\.pyc)?|warmup(/golden)?|1/{BUNDLE}(/{PATHS})?"
)


@dataclass(frozen=True)
class WrittenModels:
    """What was written.

    Attributes:
        folder: the model repository.
        models: names of the models.
        instances: of each.
        faces: sequences that one instance holds.
        bundle_bytes: of each copy of the bundle.
    """

    folder: str
    models: tuple[str, ...]
    instances: int
    faces: int
    bundle_bytes: int

    @property
    def capacity(self) -> int:
        """Streams that are served at once; one more waits until another ends."""
        return self.instances * self.faces


def write_models(
    bundle: Bundle, out: str | os.PathLike[str], config: TritonConfig, engines_dir: str | os.PathLike[str] | None = None
) -> WrittenModels:
    """Writes the two models of a bundle into a model repository, each in one step.

    Args:
        bundle: opened for reading.
        out: the repository; other models in it are left alone.
        config: how the bundle is served.
        engines_dir: where built engines live, if not inside the bundle.

    Raises:
        UsageError: a folder of that name is there and is another's, or holds a file that is.
        RefusedError: a file is not what its index promises.
        VerificationError: no precision was accepted.
        MachineError: the disk is full.
    """
    choose_precisions(bundle, config.precision, "onnxruntime" if config.backend == "auto" else config.backend)
    folder, served = Path(out), Served.of(bundle, config)
    for kind in MODELS:
        _require_ours(folder / config.model_name(kind))
    files = dict(_files_of(bundle, engines_dir))
    size = sum(map(len, files.values()))
    require_space(folder, 2 * size, "the model repository")
    for kind, model in MODELS.items():
        name = config.model_name(kind)
        with atomic_folder(folder / name) as part:
            for file, data in files.items():
                target = part / "1" / BUNDLE / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            source = f"from logoformer.serving.{kind}_model import {model} as TritonPythonModel\n\n"
            (part / "1" / "model.py").write_text(
                f'{MADE_BY}{source}__all__ = ["TritonPythonModel"]\n', encoding="ascii"
            )
            text = stream_text(served, name) if kind == "stream" else clip_text(served, name)
            (part / "config.pbtxt").write_text(text, encoding="ascii")
            if kind == "clip":
                (part / "warmup").mkdir()
                (part / "warmup" / "golden").write_bytes(bundle.golden().clips[0].tobytes())
    names = tuple(config.model_name(kind) for kind in MODELS)
    return WrittenModels(os.fspath(folder), names, config.instances, served.faces, size)


def stream_text(served: Served, name: str) -> str:
    """`config.pbtxt` of the model `stream`."""
    config = served.config
    return f"""{MADE_BY}name: {quoted(name)}
backend: "python"
max_batch_size: {min(MOST_AT_ONCE, served.faces)}
input [
  {{ name: "frame" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] allow_ragged_batch: true }},
  {{ name: "time_s" data_type: TYPE_FP64 dims: [ 1 ] }},
  {{ name: "history" data_type: TYPE_UINT8 dims: [ -1, -1, -1, 3 ] allow_ragged_batch: true optional: true }},
  {{ name: "history_times_s" data_type: TYPE_FP64 dims: [ -1 ] allow_ragged_batch: true optional: true }},
  {{ name: "history_since" data_type: TYPE_INT64 dims: [ 1 ] optional: true }},
  {{ name: "hop" data_type: TYPE_INT32 dims: [ 1 ] optional: true }},
  {{ name: "flush" data_type: TYPE_BOOL dims: [ 1 ] optional: true }}
]
output [
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ -1, {len(served.labels)} ] }},
  {{ name: "kept" data_type: TYPE_BOOL dims: [ 1 ] }},
  {{ name: "since" data_type: TYPE_INT64 dims: [ 1 ] }}
]
sequence_batching {{
  max_sequence_idle_microseconds: {round(config.idle_s * 1e6)}
  oldest {{ max_candidate_sequences: {served.faces} }}
  control_input [
    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] }} ] }},
    {{ name: "END" control [ {{ kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ] }} ] }}
  ]
}}
{_common(served)}"""


def clip_text(served: Served, name: str) -> str:
    """`config.pbtxt` of the model `clip`."""
    t, s = served.frames, served.size
    # Without `batch_size: 1` Triton leaves the warm-up of a model without batches out, and says so only when verbose.
    return f"""{MADE_BY}name: {quoted(name)}
backend: "python"
max_batch_size: 0
input [
  {{ name: "clip" data_type: TYPE_UINT8 dims: [ {t}, -1, -1, 3 ] optional: true }},
  {{ name: "golden" data_type: TYPE_INT32 dims: [ 1 ] optional: true }}
]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {len(served.labels)} ] }} ]
model_warmup [
  {{
    name: "golden" batch_size: 1 count: 2
    inputs {{
      key: "clip"
      value: {{ data_type: TYPE_UINT8 dims: [ {t}, {s}, {s}, 3 ] input_data_file: "golden" }}
    }}
  }}
]
{_common(served)}"""


def quoted(text: str) -> str:
    """A string of protobuf's text format; `text` is printable ASCII."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _common(served: Served) -> str:
    config = served.config
    kind = "KIND_CPU" if config.backend in CPU_BACKENDS else "KIND_AUTO"
    return f"""instance_group [ {{ kind: {kind} count: {config.instances} }} ]
parameters {{ key: "{PARAMETER}" value: {{ string_value: {quoted(served.to_text())} }} }}
"""


def _require_ours(folder: Path) -> None:
    """Refuses to replace a folder that this program did not write, files and all."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder} is no folder of a model; it is left alone.", next="name another place with -o")
    elsewhere = command("logoformer", "triton", "BUNDLE", "-o", folder.parent, "--name", "faces")
    if not _begins_as_ours(folder / "config.pbtxt"):
        raise UsageError(f"{folder} is a model that logoformer triton did not write; it is left alone.", next=elsewhere)
    foreign = next(foreign_paths(folder, _MADE), None)
    model = folder / "1" / "model.py"
    if foreign is None and model.exists() and not _begins_as_ours(model):
        foreign = "1/model.py"
    if foreign is not None:
        raise UsageError(
            f"{folder} holds {foreign}, which logoformer triton did not write; the folder is left alone.",
            cause="a file of yours, or a version that was added, in a model's folder, which is replaced as a whole",
            next=f"move {folder / foreign} elsewhere, then run this again",
        )


def _begins_as_ours(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(MADE_BY.encode())


def _files_of(bundle: Bundle, engines_dir: str | os.PathLike[str] | None) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the bundle and its engines, each checked against its index."""
    yield from bundle.files()
    folder = engines_folder(bundle.path, engines_dir)
    engines = read_index(folder)
    if engines:
        yield "engines/index.json", read_regular(folder, "index.json", 1 << 22)
    for engine in engines:
        yield f"engines/{engine.file}", read_engine(folder, engine)
        signature = read_signature(folder, engine.file)
        if signature is not None:
            yield f"engines/{engine.file}.sig", signature
