"""Other formats, known by their first bytes, each with a cause that a user can act on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import BadInputError, RefusedError, command
from .paths import WEIGHTS, importing

_PAGE = "the page of a file host was saved in the file's place: a sign-in, a virus-scan warning or a quota notice"
_BROWSER = "open the link in a browser, download the file itself (hundreds of megabytes), and give that"
_PACKED = "the file was packed to travel"
_NO_PYTORCH = "ask for the PyTorch checkpoint that it was made from: logoformer reads .pth, .pt and .safetensors"


@dataclass(frozen=True)
class OtherFormat:
    """A format that is not read.

    Attributes:
        pattern: matches the first kilobyte.
        what: the sentence behind "FILE is ".
        cause: how it comes to lie there.
        next: what to do; `{path}` is the file, quoted.
    """

    pattern: bytes
    what: str
    cause: str
    next: str


_AGAIN = "download it again and compare its size with the one that its page shows"

# The first that fits counts.
OTHER_FORMATS = (
    OtherFormat(rb"PK\x05\x06|PK\x07\x08|PK0", "an empty or split zip archive", "a part of a download", _AGAIN),
    OtherFormat(
        rb"version https://git-lfs\.github\.com/spec",
        "a pointer of Git LFS: three lines of text that stand for the file",
        "the repository was cloned without Git LFS",
        "git lfs install && git lfs pull --include {path}",
    ),
    OtherFormat(
        rb"(\.\./)*\.git/annex/objects/|/annex/objects/", "a pointer of git-annex", "the content was never fetched",
        "git annex get {path}",
    ),
    OtherFormat(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|script|!--|body)", "a web page", _PAGE, _BROWSER),
    OtherFormat(
        rb"(\xef\xbb\xbf)?\s*<\?xml", "an XML document", "an answer of a file host, such as AccessDenied or NoSuchKey",
        _BROWSER,
    ),
    OtherFormat(
        rb'\s*\{[^{}]*"(weight_map|metadata)"\s*:', "an index of weights that lie in several files (JSON)",
        "the index was named and not the weights",
        "give the .safetensors or .bin file that lies beside it; of several parts, join them first",
    ),
    OtherFormat(
        rb"(\xef\xbb\xbf)?\s*[{\[]\s*[\"\[{\]}\d]", "JSON text",
        "a configuration, or an error that a file host answered", _BROWSER,
    ),
    OtherFormat(rb"\x1f\x8b", "compressed with gzip", _PACKED, "gzip -dc {path} > unpacked.pth"),
    OtherFormat(rb"BZh", "compressed with bzip2", _PACKED, "bzip2 -dc {path} > unpacked.pth"),
    OtherFormat(rb"\xfd7zXZ\0", "compressed with xz", _PACKED, "xz -dc {path} > unpacked.pth"),
    OtherFormat(rb"\x28\xb5\x2f\xfd", "compressed with Zstandard", _PACKED, "zstd -dc {path} > unpacked.pth"),
    OtherFormat(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "an archive around the file", "7z x {path}"),
    OtherFormat(rb"Rar!\x1a\x07", "a RAR archive", "an archive around the file", "unrar x {path}"),
    OtherFormat(
        rb"(?s).{257}ustar", "a tar archive", "an archive around the file, or torch older than 0.1.10 wrote it",
        "tar -xf {path}, then give the .pth file that comes out",
    ),
    OtherFormat(rb"\x89HDF\r\n\x1a\n", "an HDF5 file", "weights of Keras or TensorFlow (.h5)", _NO_PYTORCH),
    OtherFormat(rb"\x93NUMPY", "an array of numpy (.npy)", "another file of the same download", _NO_PYTORCH),
    OtherFormat(rb"(?s).{4}TFL3", "a TensorFlow Lite model", "a model for phones", _NO_PYTORCH),
    OtherFormat(rb"GGUF", "a GGUF file", "weights of a language model for llama.cpp", _NO_PYTORCH),
    OtherFormat(
        rb"(?s)\x08[\x01-\x1f](\x12|\x1a|\x22|:|B).{0,64}", "an ONNX graph",
        "an exported graph: names and structure of the network are gone from it", _NO_PYTORCH,
    ),
    OtherFormat(rb"(?s)\x08[\x01\x02]\x12", "a SavedModel of TensorFlow", "another framework's", _NO_PYTORCH),
    OtherFormat(rb"ftrt|ptrt|vtrt", "a TensorRT engine", "a compiled engine of one GPU", _NO_PYTORCH),
    OtherFormat(rb"\x7fELF", "a program", "the wrong file", _NO_PYTORCH),
    OtherFormat(rb"%PDF", "a PDF document", "the paper and not the weights", _BROWSER),
    OtherFormat(
        rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF|(?s:.{4}ftyp)", "a picture or a video", "the wrong file", _NO_PYTORCH
    ),
)  # fmt: skip
_FORMATS = tuple((re.compile(kind.pattern, re.IGNORECASE), kind) for kind in OTHER_FORMATS)
_UNFINISHED = (".part", ".crdownload", ".download", ".tmp", ".incomplete", ".aria2")
_TENSORFLOW = re.compile(r"\.data-\d{5}-of-\d{5}$|\.ckpt\.(index|meta)$|\.pb$")
_OLD_PICKLE = re.compile(rb"[(\]}cl][\x20-\x7e\n]*", re.DOTALL)


def refuse_other_formats(shown: str, head: bytes, size: int, sentence: str = "{shown} is {what}.") -> None:
    """Refuses what neither torch nor safetensors wrote, and says what it is.

    Args:
        shown: the file's path, for messages.
        head: its first bytes, up to 1024.
        size: its bytes.
        sentence: what the error says.

    Raises:
        BadInputError: the cause, and what to do.
    """
    found = _other_format(shown, head, size)
    if found is not None:
        raise BadInputError(
            sentence.format(shown=shown, what=found.what),
            cause=found.cause,
            next=found.next.format(path=command(shown)),
        )


def _other_format(shown: str, head: bytes, size: int) -> OtherFormat | None:
    if size == 0:
        return OtherFormat(b"", "empty", "a download that never began, or a full disk", _AGAIN)
    if not any(head):
        return OtherFormat(b"", "nothing but zeros at its beginning", "an unfinished download", _AGAIN)
    if looks_like_safetensors(head):
        return None
    folder = Path(shown).parent
    described = {"config.json": "model.safetensors", "manifest.json": "graphs"}.get(Path(shown).name)
    if described is not None and (folder / described).exists():
        what, cause = "a part of a checkpoint or bundle, which is a folder", "a file was named in place of its folder"
        return OtherFormat(
            b"", what, cause, f"name the folder: {command(folder).replace('{', '{{').replace('}', '}}')}"
        )
    if head.startswith((b"PK\x03\x04", b"\x80")):
        if head[:1] == b"\x80" and (len(head) < 2 or not 1 <= head[1] <= 5):
            return OtherFormat(b"", "no pickle that can be read", "a damaged or foreign file", _AGAIN)
        return None
    for pattern, kind in _FORMATS:
        if pattern.match(head):
            return kind
    if Path(shown).suffix == ".safetensors":
        return OtherFormat(b"", "no safetensors file by its beginning", "a truncated or damaged copy", _AGAIN)
    if _TENSORFLOW.search(shown):
        return OtherFormat(b"", "a part of a TensorFlow checkpoint by its name", "another framework's", _NO_PYTORCH)
    if Path(shown).suffix in _UNFINISHED:
        return OtherFormat(b"", "an unfinished download by its name", "it still runs, or it was stopped", _AGAIN)
    if _OLD_PICKLE.match(head) and b"\n" in head:
        return OtherFormat(
            b"", "text, or a pickle of protocol 0, which torch never wrote",
            "a note, a list, or a pickle that somebody else made", _NO_PYTORCH,
        )  # fmt: skip
    return OtherFormat(
        b"", "no file of PyTorch or safetensors", "another format, or a damaged beginning", "file {path}"
    )


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a length comes first (no text: three of its bytes are zero), then a JSON object.

    Asked before anything else: the length may begin as a pickle does.
    """
    return head[5:9] == b"\0\0\0{"


def refuse_other_zips(shown: str, names: Sequence[str]) -> None:
    """Refuses a zip archive that holds no state dict of torch.save, by the names in it.

    Raises:
        RefusedError: it is a program.
        BadInputError: it is something else.
    """
    roots = {match[1] for name in names if (match := re.fullmatch(r"([^/]+/)data\.pkl", name, re.DOTALL))}
    if len(roots) == 1:
        root = roots.pop()
        if root + "constants.pkl" in names or any(name.startswith(root + "code/") for name in names):
            raise RefusedError(
                f"{shown} is a TorchScript archive: a program, not a state dict.",
                cause="it was written by torch.jit.save; running it is the only way to read it",
                next="ask its author for the checkpoint that torch.save wrote of the state dict",
            )
        return
    if any(name.endswith(".data/extern_modules") for name in names):
        raise RefusedError(
            f"{shown} is an archive of torch.package: it holds Python code.",
            next="ask its author for the checkpoint that torch.save wrote of the state dict",
        )
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if weights:
        raise BadInputError(
            f"{shown} is a zip archive around {weights[0]!r}.",
            cause="a folder that was downloaded as one archive",
            next=f"{command('unzip', '-j', shown, weights[0])} && {importing(Path(weights[0]).name)}",
        )
    raise BadInputError(
        f"{shown} is a zip archive, but none that torch.save wrote: "
        f"{', '.join(repr(name) for name in names[:3]) or 'it is empty'}.",
        cause=_zip_kind(names),
        next=_NO_PYTORCH,
    )


def _zip_kind(names: Sequence[str]) -> str:
    if any(name.endswith(".npy") for name in names):
        return "arrays of numpy (.npz)"
    if any(name.endswith(".h5") for name in names):
        return "a Keras model"
    if any(name.endswith(("archive_format", "archive_version")) for name in names):
        return "a program of torch.export (.pt2)"
    return "another kind of file"
