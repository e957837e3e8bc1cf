"""Nothing that a pickle names runs: payloads of every operation, and ten thousand damaged files."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_files import Touches, archive, former_like, mae_like, opened_up, saved, weights
from logoformer.errors import LogoformerError
from logoformer.model.foreign import pickles
from logoformer.model.foreign.inert import Inert, StoredTensor
from logoformer.model.foreign.reader import open_foreign

torch = pytest.importorskip("torch")
from safetensors.torch import save as safetensors_bytes  # noqa: E402


def read_all(path: Path) -> None:
    """Opens a file and reads every tensor of a dictionary two levels deep."""
    with open_foreign(path) as found:
        waiting = [found.content]
        for value in waiting:
            if isinstance(value, dict) and len(waiting) < 1000:
                waiting += value.values()
            elif isinstance(value, StoredTensor) and value.readable:
                found.read(value)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def attack(trap: Path) -> dict[str, bytes]:
    """Pickles that make the folder `trap` when Python's unpickler reads them, one for each way to call something."""
    made = text(str(trap))
    command = text(f"mkdir {trap}")
    code = text(f"__import__('os').mkdir({str(trap)!r})")
    return {
        "REDUCE": b"\x80\x02cposix\nmkdir\n" + made + b"\x85R.",
        "REDUCE os": b"\x80\x02cos\nmkdir\n" + made + b"\x85R.",
        "system": b"\x80\x02cposix\nsystem\n" + command + b"\x85R.",
        "eval": b"\x80\x02cbuiltins\neval\n" + code + b"\x85R.",
        "exec": b"\x80\x02cbuiltins\nexec\n" + code + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + text("posix") + text("mkdir") + b"\x93" + made + b"\x85R.",
        "INST": b"\x80\x02(" + made + b"iposix\nmkdir\n.",
        "OBJ": b"\x80\x02(cposix\nmkdir\n" + made + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + text("true") + b"\x85\x81.",
        "BUILD of a class with __setstate__": b"\x80\x02cfunctools\npartial\ncposix\nmkdir\n\x85R(cposix\nmkdir\n"
        + made + b"\x85}N" + b"tb" + b")R.",
        "BUILD of __dict__": b"\x80\x02cargparse\nNamespace\n)R}" + text("__class__") + b"cposix\nmkdir\nsb.",
        "nested": b"\x80\x02}" + text("model") + b"}" + text("w") + b"cposix\nmkdir\n" + made + b"\x85Rss.",
        "chain": b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("mkdir")
        + b"\x86R" + made + b"\x85R.",
        "apply": b"\x80\x02cfunctools\nreduce\ncposix\nmkdir\n](" + made + b"K\x7fe" + b"\x86R.",
        "map": b"\x80\x02cbuiltins\nlist\ncbuiltins\nmap\ncposix\nmkdir\n]" + made + b"a\x86R\x85R.",
        "a dotted name": b"\x80\x04" + text("collections") + text("_sys.modules") + b"\x93.",
        "runpy": b"\x80\x02crunpy\n_run_code\n" + code + b"}\x86R.",
        "torch": b"\x80\x02ctorch.hub\nload\n" + made + b"\x85R.",
        "torch.load": b"\x80\x02ctorch\nload\n" + made + b"\x85R.",
        "numpy": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n" + code + b"}\x86R.",
        "the key of an item": b"\x80\x02}cposix\nmkdir\n" + made + b"\x85RK\x01s.",
        "a tensor's function": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nmkdir\nctorch\nTensor\n"
        + made + b"\x85}tR.",
        "a persistent id": b"\x80\x02(" + text("storage") + b"cposix\nmkdir\n" + made + b"\x85R" + text("0")
        + text("cpu") + b"K\x01tQ.",
    }  # fmt: skip


ATTACKS = list(attack(Path("trap")))
WITH_PYTHON = (
    "REDUCE",
    "REDUCE os",
    "system",
    "eval",
    "STACK_GLOBAL",
    "INST",
    "OBJ",
    "nested",
    "chain",
    "apply",
    "map",
)


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_traps_work(tmp_path, name):
    with contextlib.suppress(OSError, TypeError, AttributeError):
        pickle.loads(attack(tmp_path / "trap")[name])
    assert (tmp_path / "trap").exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_runs_and_an_error_of_ours_comes(tmp_path, name):
    trap = tmp_path / "trap"
    pickled = attack(trap)[name]
    before = set(sys.modules)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    for data in (archive(pickled), pickled, magic + pickled + pickle.dumps([], 2), pickle.dumps(1, 2) + pickled):
        (tmp_path / "x.pth").write_bytes(data)
        with pytest.raises(LogoformerError):
            read_all(tmp_path / "x.pth")
        assert not trap.exists()
    assert {module for module in set(sys.modules) - before if "runpy" in module or "hub" in module} == set()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_trap_beside_real_weights_is_refused_and_named(tmp_path, legacy):
    for content in (mae_like(x=Touches(tmp_path / "trap")), former_like(recorder=[Touches(tmp_path / "trap")])):
        (tmp_path / "x.pth").write_bytes(saved(content, legacy=legacy))
        with pytest.raises(LogoformerError, match=r"mkdir.*Nothing was run") as caught:
            read_all(tmp_path / "x.pth")
        assert caught.value.exit_code == 4
    assert not (tmp_path / "trap").exists()


def test_no_module_that_a_pickle_names_is_imported(tmp_path, monkeypatch):
    (tmp_path / "surprise_package.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "x.pth").write_bytes(archive(b"\x80\x02}" + text("a") + b"csurprise_package\nThing\n)\x81s."))
    with open_foreign(tmp_path / "x.pth") as found:
        assert found.names == ("surprise_package.Thing",) and isinstance(found.content["a"], Inert)
    assert "surprise_package" not in sys.modules


@pytest.mark.parametrize("code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97", b"\x98", b"\xff"])
def test_operations_that_need_a_program_are_refused(tmp_path, code):
    (tmp_path / "x.pth").write_bytes(archive(b"\x80\x05N" + code + b"."))
    with pytest.raises(LogoformerError, match="none that a file may hold"):
        read_all(tmp_path / "x.pth")


# --------------------------------------------------------------------------------------------------------------- limits
def deep(count: int) -> bytes:
    return b"\x80\x02)" + b"\x85" * count + b"."


@pytest.mark.parametrize(
    ("pickled", "word"),
    [
        (deep(300_000), "nested deeper"),
        (b"\x80\x02" + b"]" * 300 + b"a" * 299 + b".", "nested deeper"),
        (b"\x80\x02" + b"(" * 2000 + b".", "nested deeper"),
        (b"\x80\x02N" + b"0N" * 1_100_000 + b".", "more than 2000000 operations"),
        (b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", n) for n in range(1_000_001)) + b".", "are remembered"),
        (b"\x80\x02X\xff\xff\xff\xff.", "more than there are"),
        (b"\x80\x04\x8d" + b"\xff" * 8 + b".", "more than there are"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "an integer of"),
        (b"\x80\x02\x8b\xff\xff\xff\xff.", "an integer of"),
        (b"\x80\x02I" + b"9" * 5000 + b"\n.", "an integer that is none"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "a frame longer"),
        (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.", "used as a key"),
        (b"\x80\x02ctorch\nSize\nq\x000]q\x01(" + b"N" * 100_000 + b"e0" + b"h\x00h\x01\x85R0" * 300 + b"N.",
         "are given more than"),
        (b"\x80\x02}(" + b"N" * 17 + b"tNs.", "a tuple is used as a key"),
        (b"\x80\x02c" + b"x" * 600 + b"\ny\n.", "too long a name"),
        (b"\x80\x02}(" + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(25_000))
         + b"u.", "keys that are no texts"),  # Python hashes them all to 0
        (b"\x80\x02cbuiltins\nset\n(" + b"".join(b"J" + struct.pack("<i", n) for n in range(600)) + b"l\x85R.",
         "keys that are no texts"),
        (b"\x80\x02K\x01K\x02\x85R.", "it calls a int"),
        (b"\x80\x02cx\ny\n]R.", "with a list"),
        (b"\x80\x02K\x01}b.", "it changes a int"),
        (b"\x80\x02K\x01K\x01a.", "appends to a int"),
        (b"\x80\x02]NNs.", "sets an item of a list"),
        (b"\x80\x04]N(N\x90.", "adds to a NoneType"),
        (b"\x80\x02}]Ns.", "a list is used as a key"),
        (b"\x80\x02h\x05.", "never remembered"),
        (b"\x80\x02t.", "never began"),
        (b"\x80\x02R.", "no"),
        (b"\x80\x02NN.", "one value"),
        (b"\x80\x02N", "ends before"),
        (b"\x80\x09N.", "protocol 9"),
        (b"\x80\x04K\x01K\x02\x93.", "no text"),
        (b"\x80\x02S'x\n.", "without its quotes"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)  # fmt: skip
def test_limits(tmp_path, pickled, word):
    (tmp_path / "x.pth").write_bytes(archive(pickled))
    with pytest.raises(LogoformerError, match=word):
        read_all(tmp_path / "x.pth")


def test_a_pickle_that_holds_itself_ends(tmp_path):
    (tmp_path / "x.pth").write_bytes(archive(b"\x80\x02]q\x00h\x00a."))
    read_all(tmp_path / "x.pth")


def test_a_huge_pickle_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_BYTES", 100)
    (tmp_path / "x.pth").write_bytes(archive(b"\x80\x02" + text("x" * 200) + b"."))
    with pytest.raises(LogoformerError, match="at most 100"):
        read_all(tmp_path / "x.pth")


def plain(data: bytes) -> Any:
    return pickles.unpickle(data, lambda _: None, Inert).value


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_are_what_python_reads(tmp_path, protocol):
    value = {
        "ints": [0, 1, -1, 255, 256, 65536, -(2**31), 2**63, -(2**100)], "reals": [0.5, -1e300, float("inf")],
        "texts": ["", "a", "é" * 300, "\U0001f600", "\n"], "bytes": [b"", b"\x00\xff" * 200], "none": None,
        "flags": (True, False), "set": {1, 2}, "frozen": frozenset({3}), ("a", 1): {}, 7: [[], [[]]], "four": (1, 2, 3),
    }  # fmt: skip
    found = plain(pickle.dumps(value, protocol))
    if protocol == 2:  # bytes and sets are calls there
        assert {k: v for k, v in found.items() if k not in ("bytes", "set", "frozen")} == {
            k: v for k, v in value.items() if k not in ("bytes", "set", "frozen")
        }
    else:
        kept = {k: v for k, v in found.items() if not isinstance(v, Inert)}
        assert kept == {k: value[k] for k in kept} and "bytes" in kept


@pytest.mark.parametrize("protocol", [0, 1])
def test_old_protocols_too(protocol):
    value = {"a": [1, -5, 2**70, 0.25, None, True, "text", "é"], "b": (1, (2,))}
    assert plain(pickle.dumps(value, protocol)) == value


# ---------------------------------------------------------------------------------------------------------------- fuzz
def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed))
        kind = rng.randrange(5)
        if kind == 0:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del changed[place : place + rng.randint(1, 8)]
        elif kind == 3:
            other = rng.randrange(len(data))
            changed[place:place] = data[other : other + rng.randint(1, 30)]
        else:
            changed[place] = rng.choice(b"(.012FIJKLMNPQRSTUVXabcd}eghijl]opqrstuG)" + bytes(range(0x80, 0x99)))
        if not changed:
            return b"\0"
    return bytes(changed)


def fuzzed(path: Path, count: int, make: Callable[[random.Random], bytes], seed: int) -> int:
    """How many of so many files could still be opened; nothing but an error of ours may come."""
    rng = random.Random(seed)
    whole = 0
    for _ in range(count):
        path.write_bytes(make(rng))
        with contextlib.suppress(LogoformerError):
            read_all(path)
            whole += 1
    return whole


@pytest.mark.usefixtures("impatient")
def test_ten_thousand_damaged_files(tmp_path):
    """Pickles with right checksums, so that the machine sees each; whole archives; the old format; safetensors."""
    trap = tmp_path / "trap"
    path = tmp_path / "x.pth"
    hostile = {"x": Touches(trap), "state_dict": weights()}
    for seed, content in enumerate((mae_like(), former_like(), hostile)):
        pickled, storages = opened_up(saved(content))
        storages = {key: value for key, value in storages.items() if key.isdecimal()}
        whole = fuzzed(path, 2000, lambda rng, p=pickled, s=storages: archive(mutated(p, rng), s), seed)
        assert (0 < whole < 2000) or seed == 2
    for seed, data in enumerate((saved(mae_like()), saved(former_like(), legacy=True), safetensors_bytes(weights()))):
        fuzzed(path, 1334, lambda rng, d=data: mutated(d, rng), seed)
    assert not trap.exists() and os.listdir(tmp_path) == ["x.pth"]  # noqa: PTH208


def test_the_standard_library_agrees_on_what_runs(tmp_path):
    """The hostile base file of the fuzz is hostile: Python's unpickler runs it."""
    pickle.load(io.BytesIO(pickle.dumps(Touches(tmp_path / "trap"))))
    assert (tmp_path / "trap").exists()
