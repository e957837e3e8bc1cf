"""The networks of the package are the ones that were packed; no other file is run unseen."""

import zipfile
from pathlib import Path

import pytest
from logoformer.bundle import TensorSpec
from logoformer.bundle.files import sha256
from logoformer.camera import faces
from logoformer.camera.faces.networks import STORED, check_static, open_network, open_stored
from logoformer.errors import RefusedError

WEIGHTS = Path(faces.__file__).parent / "weights"


def test_the_notice_names_every_file_and_its_hash():
    notice = (WEIGHTS / "NOTICE").read_text(encoding="utf-8")
    assert {path.name for path in WEIGHTS.iterdir()} == {*STORED, "NOTICE", "LICENSE"}
    for name, digest in STORED.items():
        assert sha256((WEIGHTS / name).read_bytes()) == digest
        assert name in notice and digest in notice
    assert "Apache License" in (WEIGHTS / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STORED)
def test_a_changed_file_is_refused_before_a_runtime_sees_it(name, tmp_path, monkeypatch):
    data = bytearray((WEIGHTS / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("logoformer.camera.faces.networks.open_network", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(RefusedError, match="SHA-256 differs"):
        open_stored(name, folder=tmp_path)


def test_a_missing_file_is_said_and_how_to_get_it_back(tmp_path):
    with pytest.raises(RefusedError, match="cannot be read") as caught:
        open_stored(next(iter(STORED)), folder=tmp_path)
    assert caught.value.next.startswith("pip install --force-reinstall")


def test_a_package_inside_a_zip_file_has_its_networks(tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        for name in STORED:
            archive.write(WEIGHTS / name, f"weights/{name}")
    for name in STORED:
        session = open_stored(name, folder=zipfile.Path(tmp_path / "wheel.zip", "weights/"))
        assert len(session.outputs) == 4
        session.close()


@pytest.mark.parametrize("data", [b"", b"no network", b"\x3a\x00"])
def test_what_is_no_network_is_refused(data):
    with pytest.raises(RefusedError):
        open_network(data, "some.onnx")


def test_open_and_huge_sizes_are_refused():
    with pytest.raises(RefusedError, match="'x' are open") as caught:
        check_static("a.onnx", [TensorSpec("x", "float32", (1, 3, 0, 0))])
    assert "make_dynamic_shape_fixed" in caught.value.next
    with pytest.raises(RefusedError, match="too large"):
        check_static("a.onnx", [TensorSpec("x", "float32", (1, 3, 1 << 20, 1 << 20))])
    check_static("a.onnx", [TensorSpec("x", "float32", (1, 3, 640, 640))])
