"""Which names a checkpoint may hold: what is data of torch and numpy, and nothing else of them."""

from __future__ import annotations

import argparse
import collections
import functools
import pathlib
import re
import struct

import pytest
from foreign_files import archive, opened_up, saved, weights
from logoformer.errors import RefusedError
from logoformer.model.foreign.inert import Name
from logoformer.model.foreign.names import is_code
from logoformer.model.foreign.reader import open_foreign

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

CODE = (
    "torch.utils.collect_env.run", "torch.fx.graph_module._exec_with_source", "torch.load",
    "torch.fx.graph_module.reduce_graph_module",
    "torch.hub.load", "torch.jit.load", "torch.serialization.load", "torch.storage._load_from_bytes",
    "torch._utils._import_dotted_name", "torch.utils.cpp_extension.load_inline", "torch.package.PackageImporter",
    "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler", "torch._dynamo.optimize",
    "torch.nn.modules.module.F", "torch.nn.functional.importlib", "torch.nn.importlib.import_module", "torch.os",
    "torch.ops.load_library", "torch.classes.load_library", "torch.compile", "torch.from_file", "torch.save",
    "numpy.load", "numpy.loads", "numpy.save", "numpy.fromfile", "numpy.memmap", "numpy.genfromtxt", "numpy.frompyfunc",
    "numpy.vectorize", "numpy.ctypeslib.load_library", "numpy.testing._private.utils.runstring", "numpy.lib.npyio.load",
    "numpy.f2py.compile", "numpy.distutils.exec_command.exec_command", "numpy.core.multiarray.fromfile",
    "numpy._core.multiarray.frombuffer", "numpy.ctypeslib.os", "torch.optim.optimizer.NamedTuple",
    "re.compile", "re._compiler", "re.sys", "collections.namedtuple", "dataclasses.make_dataclass",
    "logging.config.listen", "logging.config.fileConfig",
)  # fmt: skip


def name(dotted: str) -> Name:
    return Name(*dotted.rpartition(".")[::2])


@pytest.mark.parametrize("dotted", CODE)
def test_functions_and_modules_of_torch_numpy_and_the_standard_library_are_code(dotted):
    assert is_code(name(dotted))
    module, _, last = dotted.rpartition(".")
    top, _, rest = module.partition(".")
    assert is_code(Name(top, f"{rest}.{last}" if rest else f"nn.{last}"))  # as protocol 4 can write it


@pytest.mark.parametrize(
    "dotted", ["torch.utils.collect_env.run", "numpy.load", "torch.fx.graph_module._exec_with_source"]
)
def test_a_file_that_names_such_a_thing_is_refused(tmp_path, dotted):
    pickled, storages = opened_up(saved({"model": weights()}))
    module, _, last = dotted.rpartition(".")
    command = b"touch ran"
    call = f"c{module}\n{last}\n".encode() + b"X" + struct.pack("<I", len(command)) + command + b"\x85R0"
    start = pickled.index(b"}")  # after the protocol: a value that is dropped again
    path = tmp_path / "x.pth"
    kept = {key: data for key, data in storages.items() if key.isdecimal()}
    path.write_bytes(archive(pickled[:start] + call + pickled[start:], kept))
    with pytest.raises(RefusedError, match=rf"{re.escape(dotted)}.*Nothing was run"), open_foreign(path):
        pass


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.filterwarnings("ignore")
def test_what_trainings_save_is_no_code(tmp_path, protocol, legacy):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.functional.gelu)
    network = nn.Sequential(nn.Conv3d(3, 8, 1), nn.BatchNorm3d(8), nn.GELU(), layer, nn.LSTM(8, 8), nn.Dropout(0.1))
    optimizer = torch.optim.AdamW(network.parameters())
    args = argparse.Namespace(
        pattern=re.compile("a+", re.IGNORECASE), out=pathlib.PurePosixPath("/x"), device=torch.device("cpu"),
        dtype=torch.float16, low=torch.bfloat16, order=torch.channels_last, activation=functools.partial(nn.ReLU, True),
        tied=nn.functional.relu, version=torch.torch_version.TorchVersion("2.1.0"),
    )  # fmt: skip
    content = {
        "network": network, "optimizer": optimizer, "optimizer_state": optimizer.state_dict(), "args": args,
        "scaler": torch.amp.GradScaler("cpu"), "rng": torch.get_rng_state(), "numpy_rng": np.random.get_state(),
        "generator": np.random.default_rng(0), "old": np.random.RandomState(0), "sparse": torch.eye(3).to_sparse(),
        "values": [np.float64(1), np.int64(2), np.bool_(True), np.str_("a"), np.zeros((2, 3))],
        "day": np.datetime64("2024-01-01"), "seed": np.random.SeedSequence(1),
        "counts": collections.Counter("aab"), "masked": np.ma.array([1, 2], mask=[0, 1]), "size": torch.Size([1, 2]),
        "halves": torch.ones(3, dtype=torch.bfloat16), "marked": nn.Buffer(torch.zeros(2)),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8), "type": np.dtype("float32"),
        "kinds": [np.float32, np.int8, nn.Linear, torch.optim.SGD, torch.FloatTensor],
    }  # fmt: skip
    path = tmp_path / "x.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    with open_foreign(path) as found:
        assert "re._compile" in found.names and set(found.content) == set(content)


def test_every_dtype_layout_and_scalar_type_is_data():
    kinds = (torch.dtype, torch.layout, torch.memory_format)
    assert [key for key in dir(torch) if isinstance(getattr(torch, key), kinds) and is_code(Name("torch", key))] == []
    scalars = [kind.__name__ for kind in np.sctypeDict.values() if kind.__module__ == "numpy"]  # of ml_dtypes not
    assert [kind for kind in scalars if is_code(Name("numpy", kind))] == []
    for core in ("numpy.core", "numpy._core"):
        assert not is_code(Name(f"{core}.multiarray", "_reconstruct")) and is_code(Name(f"{core}.os", "system"))


def test_a_value_that_pickle_found_in_another_module_of_torch_is_data():
    """`torch.channels_last` has no module of its own: pickle names the first loaded one that holds `torch`."""
    for module in ("torch._utils", "torch.nn.modules.conv", "torch"):
        assert not is_code(Name(module, "torch.channels_last"))
        assert is_code(Name(module, "torch.load")) and is_code(Name(module, "torch.os.system"))
        assert is_code(Name(module, "torch.torch.hub.load"))
