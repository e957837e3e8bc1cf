"""Maps of names: what is refused, packed Q, K and V, and the suggestion on a LOGO-Former of other people's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_files import saved
from logoformer.cli import main as cli
from logoformer.model.importing.mapping import fits
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.families import untrained

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402


def foreign_names(ours: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A state dict as other code may name it, Q, K and V packed, and the right map."""
    theirs: dict[str, Any] = {}
    right: dict[str, Any] = {}

    def put(name: str, values: list[str]) -> None:
        theirs[name] = torch.cat([ours[value] for value in values]) if len(values) > 1 else ours[values[0]]
        right[name] = values if len(values) > 1 else values[0]

    parts = {
        "norm_local": "norm1.", "norm_global": "norm2.", "norm_ffn": "norm3.", "ffn.fc1": "mlp.fc1.",
        "ffn.fc2": "mlp.fc2.", "local_attention.attention.out": "local_attn.proj.",
        "global_attention.attention.out": "global_attn.proj.", "global_attention.pool": "global_attn.pool.",
        "global_attention.norm": "global_attn.pool_norm.",
    }  # fmt: skip
    for name in ours:
        if name.startswith("trunk."):
            put(name.replace("trunk.", "backbone."), [name])
        elif name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            own = f"transformer.layers.{block}."
            if rest.endswith(".q.weight"):
                kind = rest.removesuffix(".q.weight")
                packed = [f"blocks.{block}.{kind}.{part}.weight" for part in "qkv"]
                put(f"{own}{kind.split('_')[0]}_attn.qkv.weight", packed)
            elif not rest.endswith((".k.weight", ".v.weight")):
                stem, _, kind = rest.rpartition(".")
                put(f"{own}{parts[stem]}{kind}", [name])
        else:
            put({"project.weight": "input_proj.weight", "project.bias": "input_proj.bias", "cls": "cls_token",
                 "pos_spatial": "spatial_pos_embed", "pos_temporal": "temporal_pos_embed", "head.weight": "fc.weight",
                 "head.bias": "fc.bias", "norm.weight": "ln.weight", "norm.bias": "ln.bias"}[name], [name])  # fmt: skip
    theirs["cls_token"] = theirs["cls_token"].reshape(1, 1, -1)
    theirs["spatial_pos_embed"] = theirs["spatial_pos_embed"][None]
    return theirs, right


@pytest.mark.parametrize(("data", "word"), [(b"\x89PNG", "PNG"), (b"a: b", "it is text"), (b"", "it is empty")])
def test_another_kind_of_file_in_place_of_a_map_is_named(data, word, tmp_path, fails):
    (tmp_path / "x.pth").write_bytes(saved({"a": torch.ones(2)}))
    (tmp_path / "map.json").write_bytes(data)
    text = fails(4, "import", tmp_path / "x.pth", "--map", tmp_path / "map.json", "-o", tmp_path / "out")
    assert "is no map of names" in text and word in text and "--suggest-map" in text


@pytest.fixture
def ours() -> dict[str, Any]:
    return dict(untrained(PRESETS["tiny"], 1).state_dict())


def write(tmp_path: Path, ours: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    theirs, right = foreign_names(ours)
    (tmp_path / "logo.pth").write_bytes(
        saved({"epoch": 3, "state_dict": {f"module.{n}": v for n, v in theirs.items()}})
    )
    return tmp_path / "logo.pth", right


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def same(folder: Path, ours: dict[str, Any]) -> bool:
    found = load_file(folder / "model.safetensors")
    return found.keys() == ours.keys() and all(torch.equal(found[name], ours[name]) for name in ours)


def test_a_map_moves_every_tensor(tmp_path, ours):
    file, right = write(tmp_path, ours)
    (tmp_path / "map.json").write_text(json.dumps({"preset": "tiny", "map": right}))
    assert run("import", file, "--map", tmp_path / "map.json", "-o", tmp_path / "out") == 0
    assert same(tmp_path / "out", ours)


def test_the_suggestion_is_right_where_shapes_and_order_tell(tmp_path, ours, capsys):
    file, right = write(tmp_path, ours)
    words = ("import", file, "--preset", "tiny", "--suggest-map", tmp_path / "map.json")
    assert run(*words) == 0
    assert "tensors paired" in capsys.readouterr().out
    suggested = json.loads((tmp_path / "map.json").read_text())
    assert suggested["preset"] == "tiny"
    wrong = {name: value for name, value in suggested["map"].items() if right.get(name) != value}
    assert wrong == {} and suggested["map"].keys() == right.keys()
    assert run("import", file, "--map", tmp_path / "map.json", "-o", tmp_path / "out") == 0
    assert same(tmp_path / "out", ours)


def test_labels_go_with_a_map(tmp_path, ours):
    from logoformer.model.checkpoint import load_checkpoint

    file, right = write(tmp_path, ours)
    (tmp_path / "map.json").write_text(json.dumps({"map": right}))
    words = ("--map", tmp_path / "map.json", "--preset", "tiny", "--labels", "a,b,c,d,e,f,g")
    assert run("import", file, *words, "-o", tmp_path / "out") == 0
    assert load_checkpoint(tmp_path / "out")[0].config.labels == tuple("abcdefg")


def change(right: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**right, **changes}


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda m: m.pop("fc.weight"), "not mapped to: head.weight"),
        (lambda m: m.update({"nothing": "head.weight"}), "not in the file: nothing"),
        (lambda m: m.update({"fc.weight": "head.wait"}), "none of ours: head.wait"),
        (lambda m: m.update({"fc.bias": "head.weight"}), "twice: head.weight"),
        (lambda m: m.update({"fc.bias": "head.weight", "fc.weight": "head.bias"}), "other shape: fc.weight"),
        (lambda m: m.update({"fc.bias": 7}), "a name, a list of names or null"),
        (lambda m: m.update({"fc.bias": None}), "not mapped to: head.bias"),
    ],
)
def test_maps_that_do_not_fit(tmp_path, ours, fails, edit, word):
    file, right = write(tmp_path, ours)
    edit(right)
    (tmp_path / "map.json").write_text(json.dumps({"preset": "tiny", "map": right}))
    assert word in fails(3, "import", file, "--map", tmp_path / "map.json", "-o", tmp_path / "out")


def test_a_tensor_is_left_out_on_purpose_only(tmp_path, ours, fails):
    theirs, right = foreign_names(ours)
    (tmp_path / "logo.pth").write_bytes(saved({**theirs, "aux.weight": torch.ones(2)}))
    words = ("import", tmp_path / "logo.pth", "--map", tmp_path / "map.json", "-o", tmp_path / "out")
    (tmp_path / "map.json").write_text(json.dumps({"preset": "tiny", "map": right}))
    assert "unexpected: aux.weight" in fails(3, *words)
    (tmp_path / "map.json").write_text(json.dumps({"preset": "tiny", "map": {**right, "aux.weight": None}}))
    assert run(*words) == 0
    assert same(tmp_path / "out", ours)


@pytest.mark.parametrize("text", ["[]", "{}", '{"map": []}', '{"map": 3}', "{", '{"map": {"a": "b", "a": "c"}}'])
def test_files_that_are_no_maps(tmp_path, ours, fails, text):
    file, _ = write(tmp_path, ours)
    (tmp_path / "map.json").write_text(text)
    code = 3 if text in ("[]", "{}", '{"map": []}', '{"map": 3}') else 4
    fails(code, "import", file, "--map", tmp_path / "map.json", "-o", tmp_path / "out")


def test_a_map_is_for_logoformer(tmp_path, ours, fails):
    file, right = write(tmp_path, ours)
    (tmp_path / "map.json").write_text(json.dumps({"map": right}))
    fails(3, "import", file, "--family", "mae-dfer", "--map", tmp_path / "map.json", "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("theirs", "ours", "fit"),
    [
        ((6, 2), [(2, 2)] * 3, True),
        ((6, 2), [(2, 2)] * 2, False),
        ((7, 2), [(2, 2)] * 3, False),
        ((1, 1, 5), [(5,)], True),
        ((5, 3, 1, 1), [(5, 3)], True),
        ((3, 5), [(5, 3)], False),
        ((), [()], True),
        ((), [(2,), (2,)], False),
        ((4,), [(2,), (3,)], False),
    ],
)
def test_shapes_that_fit(theirs, ours, fit):
    assert fits(theirs, ours) is fit
