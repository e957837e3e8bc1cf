"""Checkpoints that are none, or that want to run code: refused by the verb `export`, and nothing is lost or run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logoformer.errors import BadInputError, LogoformerError, RefusedError
from logoformer.model.checkpoint import load_checkpoint, save_checkpoint

torch = pytest.importorskip("torch")


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def exporting(untrained_bundle: Path, tmp_path: Path, fails, contents) -> Callable[..., str]:
    """`exporting(code, checkpoint)`: the export fails so, and the bundle that stood there is what it was."""
    bundle = Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))
    before = contents(bundle)

    def check(code: int, path: Path, *names: object) -> str:
        text: str = fails(code, "export", path, "-o", bundle, names=(path, *names))
        assert contents(bundle) == before
        return text

    return check


def edit(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    change(config)
    (checkpoint / "config.json").write_text(json.dumps(config))


def as_pt(checkpoint: Path, **changes: Any) -> bytes:
    """The same model as a `.pt` file's bytes."""
    from safetensors.torch import load_file

    config = json.loads((checkpoint / "config.json").read_bytes())["model"]
    content = {"config": config, "state_dict": load_file(checkpoint / "model.safetensors"), **changes}
    stream = io.BytesIO()
    torch.save({key: value for key, value in content.items() if value is not None}, stream)
    return stream.getvalue()


# -------------------------------------------------------------------------------------------------------------- missing
def test_missing(exporting, tmp_path):
    assert "logoformer init" in exporting(3, tmp_path / "nothing")
    assert "logoformer init" in exporting(3, tmp_path / ("x" * 1000))


def test_empty_or_half(exporting, checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    text = exporting(3, tmp_path / "empty")
    assert "config.json and model.safetensors not found" in text
    assert "Next: logoformer init --preset base" in text
    (checkpoint / "model.safetensors").unlink()
    assert "model.safetensors not found" in exporting(3, checkpoint)


def test_foreign(exporting, checkpoint, tmp_path):
    (checkpoint / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 768}')
    assert "not this program's" in exporting(3, checkpoint)
    for data in (b"dear diary\n" * 30, b"", b"\x89PNG\r\n\x1a\n" * 9, b"PK\x03\x04" * 9, bytes(1000)):
        (tmp_path / "face.pt").write_bytes(data)
        assert "is not a PyTorch checkpoint" in exporting(3, tmp_path / "face.pt")


def test_a_pt_file_without_its_configuration(exporting, checkpoint, tmp_path):
    path = tmp_path / "face.pt"
    path.write_bytes(as_pt(checkpoint, config=None))
    assert "holds no 'config'" in exporting(3, path)


# ----------------------------------------------------------------------------------------------------------------- code
class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(exporting, checkpoint, tmp_path):
    trap = tmp_path / "it ran"
    pickle.loads(pickle.dumps(Touches(trap)))
    assert trap.exists()  # the trap works
    trap.rmdir()
    hidden: dict[str, Any] = {"config": {}, "state_dict": {"a": torch.zeros(2), "b": [Touches(trap)]}}
    files = {f"protocol{n}.pt": pickle.dumps(hidden, protocol=n) for n in range(pickle.HIGHEST_PROTOCOL + 1)}
    stream = io.BytesIO()
    torch.save(hidden, stream)
    files["torch.pt"] = stream.getvalue()
    stream = io.BytesIO()
    torch.save(hidden, stream, _use_new_zipfile_serialization=False)
    files["old_torch.pt"] = stream.getvalue()
    files["extra.pt"] = as_pt(checkpoint, extra=Touches(trap))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        ancient = name in ("protocol0.pt", "protocol1.pt")  # torch never wrote these: not even looked into
        assert ("a pickle can run code" in exporting(3 if ancient else 4, tmp_path / name)) is not ancient
        assert not trap.exists()
    assert "mkdir" in exporting(4, tmp_path / "torch.pt")  # what it wanted to run is named


def test_a_pickle_under_the_name_of_safe_weights_is_not_run(exporting, checkpoint, tmp_path):
    trap = tmp_path / "it ran"
    (checkpoint / "model.safetensors").write_bytes(pickle.dumps(Touches(trap)))
    exporting(3, checkpoint)
    assert not trap.exists()


# --------------------------------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
def test_truncated_weights(exporting, checkpoint, keep):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read" in exporting(3, checkpoint, path)


def test_weights_of_a_type_that_torch_lacks(exporting, checkpoint):
    header = b'{"cls":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}}'
    (checkpoint / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "F4" in exporting(3, checkpoint, "model.safetensors")


def test_a_truncated_pt_file(exporting, checkpoint, tmp_path):
    whole = as_pt(checkpoint)
    path = tmp_path / "face.pt"
    for keep in (20, 1000, len(whole) - 1):
        path.write_bytes(whole[:keep])
        assert "is not a PyTorch checkpoint" in exporting(3, path)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"format": "' + b"x" * (5 << 20) + b'"}', b"\xff", b'{"a": NaN}'])
def test_a_hostile_configuration(exporting, checkpoint, data):
    (checkpoint / "config.json").write_bytes(data)
    exporting(4, checkpoint, "config.json")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_or_a_link_in_the_place_of_a_file(exporting, checkpoint, tmp_path, name, impatient):
    (checkpoint / name).rename(tmp_path / "aside")
    (checkpoint / name).symlink_to(tmp_path / "aside")
    assert "symbolic link" in exporting(4, checkpoint, name)
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    assert "not a regular file" in exporting(4, checkpoint, name)


def test_a_pipe_in_the_place_of_a_pt_file(exporting, tmp_path, impatient):
    os.mkfifo(tmp_path / "face.pt")
    assert "not a regular file" in exporting(4, tmp_path / "face.pt")


# ------------------------------------------------------------------------------------------------------- contradictions
def test_weights_that_do_not_fit_the_configuration(exporting, checkpoint):
    edit(checkpoint, lambda c: c["model"].update(ffn_dim=256))
    assert "blocks.0.ffn.fc1.bias: [128] in the file, [256] in the model" in exporting(3, checkpoint)
    edit(checkpoint, lambda c: c["model"].update(ffn_dim=128, depth=3))
    assert "missing" in exporting(3, checkpoint)
    edit(checkpoint, lambda c: c["model"].update(depth=1))
    assert "unknown" in exporting(3, checkpoint)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"embed_dim": 2**24, "heads": 1, "ffn_dim": 2**24}, "of another shape"),  # petabytes, were it believed
        ({"depth": 10**12}, "more layers than"),
        ({"stage_blocks": [10**12, 1, 1]}, "more layers than"),
        ({"window": [3, 2, 2]}, "choose f from [1, 2, 4, 8]"),
        ({"embed_dim": 0}, "at least 1"),
        ({"embed_dim": "many"}, "cannot be read"),
        ({"labels": ["one"]}, "at least two labels"),
        ({"sampling": {}}, "cannot be read"),
        ({"surprise": 1}, "cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be(exporting, checkpoint, change, word):
    edit(checkpoint, lambda c: c["model"].update(change))
    assert word in exporting(3, checkpoint)


@pytest.mark.parametrize("version", [2, "2", None])
def test_a_newer_format(exporting, checkpoint, version):
    edit(checkpoint, lambda c: c.update(format_version=version))
    assert "pip install --upgrade logoformer" in exporting(4, checkpoint)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"state_dict": [1, 2]}, "not a dict of tensors"),
        ({"state_dict": {"cls": 3}}, "not a dict of tensors"),
        ({"state_dict": {7: torch.zeros(1), "x": torch.zeros(1)}}, "more layers"),
        ({"config": [1]}, "cannot be read"),
        ({"extra": {"epoch": torch.zeros(1)}}, "not plain JSON"),
        ({"extra": {"loss": float("nan")}}, "not plain JSON"),
    ],
)
def test_a_pt_file_of_strange_values(exporting, checkpoint, tmp_path, changes, word):
    (tmp_path / "face.pt").write_bytes(as_pt(checkpoint, **changes))
    assert word in exporting(3, tmp_path / "face.pt")


def test_unknown_names_of_any_kind_are_listed(exporting, checkpoint, tmp_path):
    from safetensors.torch import load_file

    state = {**load_file(checkpoint / "model.safetensors"), 7: torch.zeros(1), "module.cls": torch.zeros(1)}
    (tmp_path / "face.pt").write_bytes(as_pt(checkpoint, state_dict=state))
    assert "module.cls" in exporting(3, tmp_path / "face.pt")


def test_a_whole_pt_file_gives_the_same_model(checkpoint, tmp_path):
    (tmp_path / "face.pt").write_bytes(as_pt(checkpoint, extra={"epochs": 3}))
    model, provenance = load_checkpoint(tmp_path / "face.pt")
    same, _ = load_checkpoint(checkpoint)
    assert provenance["extra"] == {"epochs": 3}
    wanted = same.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


# ----------------------------------------------------------------------------------------------------------------- fuzz
@pytest.mark.parametrize("kind", ["pt", "old pt", "safetensors", "config"])
def test_damaged_files_give_an_error_of_ours_or_a_model(checkpoint, tmp_path, kind):
    rng = random.Random(kind)
    path = {"safetensors": checkpoint / "model.safetensors", "config": checkpoint / "config.json"}.get(
        kind, tmp_path / "face.pt"
    )
    good = path.read_bytes() if path.exists() else as_pt(checkpoint)
    if kind == "old pt":
        stream = io.BytesIO()
        torch.save(torch.load(io.BytesIO(good)), stream, _use_new_zipfile_serialization=False)
        good = stream.getvalue()
    for _ in range(150):
        changed = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(min(len(good), rng.choice([200, 3000, len(good)])))
            changed[place] = rng.choice([rng.randrange(256), changed[place] ^ 1 << rng.randrange(8)])
        path.write_bytes(changed)
        with contextlib.suppress(BadInputError, RefusedError):
            load_checkpoint(path if path.suffix == ".pt" else checkpoint)


# --------------------------------------------------------------------------------------------------------------- saving
def test_saving_never_replaces_something_else(checkpoint, tmp_path, contents):
    model, _ = load_checkpoint(checkpoint)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_bytes(b"x")
    with pytest.raises(BadInputError) as caught:
        save_checkpoint(tmp_path / "home", model)
    assert caught.value.next
    assert contents(tmp_path / "home") == {"thesis.tex": b"x"}


def test_a_failed_exchange_puts_the_old_checkpoint_back(checkpoint, tmp_path, contents, monkeypatch):
    model, _ = load_checkpoint(checkpoint)
    before = contents(tmp_path)
    real = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if Path(target) == checkpoint and path.name != "was":
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(LogoformerError) as caught:
        save_checkpoint(checkpoint, model)
    assert caught.value.exit_code == 6
    assert contents(tmp_path) == before
    monkeypatch.undo()
    save_checkpoint(checkpoint, model, {"again": True})
    assert load_checkpoint(checkpoint)[1]["extra"] == {"again": True}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]
