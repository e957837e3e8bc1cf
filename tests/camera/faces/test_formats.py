"""Detectors from files, against loops over cells; YuNet against OpenCV's own reading of the same file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from logoformer.bundle import TensorSpec
from logoformer.camera.faces.formats import RETINAFACE, SCRFD, YUNET, open_detector, recognize
from logoformer.errors import BadInputError, RefusedError

onnx = pytest.importorskip("onnx", reason="onnx is not installed (the extra 'export')")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")

H, W = 96, 128
CELLS = {stride: (H // stride, W // stride) for stride in (8, 16, 32)}


def network(path: Path, outputs: dict[str, np.ndarray], shape=(1, 3, H, W), kind=1) -> Path:
    """A file whose outputs are these arrays, plus the mean of the input's first channel times 0."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Conv", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "one"], ["flat"]),
    ]
    weights = [
        numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "zero"),
        numpy_helper.from_array(np.array([1, 1, 1], np.int64), "one"),
    ]
    infos = []
    for name, value in outputs.items():
        weights.append(numpy_helper.from_array(value.astype(np.float32), f"{name}.value"))
        nodes.append(helper.make_node("Add", [f"{name}.value", "flat"], [name]))
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
    graph = helper.make_graph(nodes, "detector", [helper.make_tensor_value_info("input", kind, shape)], infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def chosen(rng, stride: int, anchors: int) -> int:
    rows, columns = CELLS[stride]
    row, column = int(rng.integers(1, rows - 1)), int(rng.integers(1, columns - 1))
    return (row * columns + column) * anchors + anchors - 1


def expect(found, score, box, points, scale):
    """One detection; `box` and five points in pixels of the input, which is `scale` of the frame."""
    assert found.score == pytest.approx(score, abs=1e-5)
    assert found.box == pytest.approx([value / scale for value in box], abs=1e-3)
    places = [(x / scale, y / scale) for x, y in points]
    assert found.points["left_eye"] == pytest.approx(places[0], abs=1e-3)
    assert found.points["right_eye"] == pytest.approx(places[1], abs=1e-3)
    assert found.points["nose"] == pytest.approx(places[2], abs=1e-3)
    middle = [(a + b) / 2 for a, b in zip(places[3], places[4], strict=True)]
    assert found.points["mouth"] == pytest.approx(middle, abs=1e-3)


def yunet(rng, stride: int, at: int, score=(0.9, 0.81)) -> tuple[dict[str, np.ndarray], list, list]:
    """Outputs of a YuNet that sees one face, and its box and points by a walk over the cells."""
    outputs, box, points = {}, [], []
    for s, (rows, columns) in CELLS.items():
        n = rows * columns
        outputs[f"cls_{s}"], outputs[f"obj_{s}"] = np.zeros((1, n, 1)), np.zeros((1, n, 1))
        outputs[f"bbox_{s}"], outputs[f"kps_{s}"] = rng.normal(0, 0.3, (1, n, 4)), rng.normal(0, 0.3, (1, n, 10))
        if s == stride:
            outputs[f"cls_{s}"][0, at], outputs[f"obj_{s}"][0, at] = score
            row, column = divmod(at, columns)
            dx, dy, w, h = outputs[f"bbox_{s}"][0, at]
            x, y = (column + dx) * s, (row + dy) * s
            wide, high = math.exp(w) * s, math.exp(h) * s
            box = [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]
            k = outputs[f"kps_{s}"][0, at]
            points = [((column + k[2 * i]) * s, (row + k[2 * i + 1]) * s) for i in range(5)]
    order = [f"{kind}_{s}" for kind in ("cls", "obj", "bbox", "kps") for s in CELLS]
    return {name: outputs[name] for name in order}, box, points


@pytest.mark.parametrize("stride", CELLS)
def test_yunet(tmp_path, rng, stride):
    outputs, box, points = yunet(rng, stride, chosen(rng, stride, 1))
    (found,) = open_detector(network(tmp_path / "n.onnx", outputs)).detect(np.zeros((2 * H, 2 * W, 3), np.uint8))
    expect(found, math.sqrt(0.9 * 0.81), box, points, 0.5)


@pytest.mark.parametrize("stride", CELLS)
def test_yunet_is_read_as_opencv_reads_it(tmp_path, rng, stride):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'camera')")
    path = network(tmp_path / "n.onnx", yunet(rng, stride, chosen(rng, stride, 1))[0])
    frame = np.zeros((H, W, 3), np.uint8)
    _, rows = cv2.FaceDetectorYN.create(str(path), "", (W, H), 0.5).detect(frame)
    (found,) = open_detector(path).detect(frame)
    left, top, wide, high = rows[0, :4]
    assert found.box == pytest.approx([left, top, left + wide, top + high], abs=0.01)
    assert found.score == pytest.approx(rows[0, 14], abs=1e-4)
    # OpenCV's order: the person's right eye first, which is on the left of the picture.
    assert found.points["left_eye"] == pytest.approx(rows[0, 4:6], abs=0.01)
    assert found.points["nose"] == pytest.approx(rows[0, 8:10], abs=0.01)


@pytest.mark.parametrize("leading", [(), (1,)])
@pytest.mark.parametrize("stride", CELLS)
def test_scrfd(tmp_path, rng, stride, leading):
    at = chosen(rng, stride, 2)
    outputs, box, points = {}, [], []
    for s, (rows, columns) in CELLS.items():
        n = rows * columns * 2
        scores, sides, places = np.zeros((n, 1)), rng.uniform(0.5, 2, (n, 4)), rng.normal(0, 1, (n, 10))
        if s == stride:
            scores[at] = 0.75
            row, column = divmod(at // 2, columns)
            x, y = column * s, row * s
            box = [x - sides[at][0] * s, y - sides[at][1] * s, x + sides[at][2] * s, y + sides[at][3] * s]
            points = [(x + places[at][2 * i] * s, y + places[at][2 * i + 1] * s) for i in range(5)]
        for kind, value in (("score", scores), ("bbox", sides), ("kps", places)):
            outputs[f"{kind}_{s}"] = value.reshape(*leading, *value.shape)
    outputs = {f"{kind}_{s}": outputs[f"{kind}_{s}"] for kind in ("score", "bbox", "kps") for s in CELLS}
    path = network(tmp_path / "n.onnx", outputs) if leading else flat(network, tmp_path, outputs)
    (found,) = open_detector(path).detect(np.zeros((H, W, 3), np.uint8))
    expect(found, 0.75, box, points, 1.0)


def flat(make, folder: Path, outputs) -> Path:
    """The same with outputs of rank 2, as insightface's files have them."""
    path = make(folder / "n.onnx", outputs)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "one":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 1], np.int64), "one"))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("stride", CELLS)
def test_retinaface(tmp_path, rng, stride):
    sides = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
    total = sum(rows * columns * 2 for rows, columns in CELLS.values())
    boxes, scores, places = rng.normal(0, 1, (1, total, 4)), np.zeros((1, total, 2)), rng.normal(0, 1, (1, total, 10))
    offset, row, column, anchor = 0, 1, 2, 1
    for s, (rows, columns) in CELLS.items():
        if s == stride:
            break
        offset += rows * columns * 2
    at = offset + (row * CELLS[stride][1] + column) * 2 + anchor
    scores[0, at] = 0.3, 0.7
    x, y, side = (column + 0.5) * stride, (row + 0.5) * stride, sides[stride][anchor]
    dx, dy, w, h = boxes[0, at]
    cx, cy, wide, high = x + 0.1 * dx * side, y + 0.1 * dy * side, side * math.exp(0.2 * w), side * math.exp(0.2 * h)
    points = [(x + 0.1 * places[0, at, 2 * i] * side, y + 0.1 * places[0, at, 2 * i + 1] * side) for i in range(5)]
    path = network(tmp_path / "n.onnx", {"bbox": boxes, "conf": scores, "landm": places})
    (found,) = open_detector(path).detect(np.zeros((H, W, 3), np.uint8))
    expect(found, 0.7, [cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2], points, 1.0)


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def grids(per_cell: int, numbers: dict[int, int]) -> list[TensorSpec]:
    return [
        spec(f"{n}_{s}_{i}", 1, r * c * per_cell, n)
        for s, (r, c) in CELLS.items() for n, count in numbers.items() for i in range(count)
    ]  # fmt: skip


def test_the_channels_are_those_that_each_network_was_trained_on(tmp_path, rng):
    outputs, *_ = yunet(rng, 8, 20)
    detector = open_detector(network(tmp_path / "n.onnx", outputs))
    frame = np.zeros((H, 2 * W, 3), np.uint8)
    frame[...] = (200, 100, 50)
    detector.detect(frame)
    seen = detector._session.input("input")[0]
    assert seen[:, H // 2, W // 2].tolist() == [50, 100, 200]  # blue, green, red, as they are
    assert (seen[:, : H // 4] == 0).all()  # black above


def nothing(kind: str) -> dict[str, np.ndarray]:
    """Outputs of a network of one kind that sees nobody."""
    if kind == "RetinaFace":
        total = sum(2 * rows * columns for rows, columns in CELLS.values())
        return {f"out_{width}": np.zeros((1, total, width)) for width in (4, 2, 10)}
    return {
        f"out_{width}_{s}": np.zeros((1, 2 * rows * columns, width))
        for width in (1, 4, 10) for s, (rows, columns) in CELLS.items()
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind,red,black",
    [
        # insightface, scrfd.py: blobFromImage(..., 1/128, mean 127.5, swapRB): red, green, blue.
        ("SCRFD", [(255 - 127.5) / 128, -127.5 / 128, -127.5 / 128], [-127.5 / 128] * 3),
        # biubug6/Pytorch_Retinaface, detect.py: cv2.imread, less (104, 117, 123): blue, green, red.
        ("RetinaFace", [-104, -117, 255 - 123], [-104, -117, -123]),
    ],
)
def test_one_red_pixel_arrives_in_the_channels_and_numbers_of_its_network(tmp_path, kind, red, black):
    detector = open_detector(network(tmp_path / "n.onnx", nothing(kind)))
    assert detector.kind.name == kind
    frame = np.zeros((H // 2, W, 3), np.uint8)  # half as high: black above and below
    frame[10, 20] = (255, 0, 0)
    assert detector.detect(frame) == []
    seen = detector._session.input("input")[0]
    assert seen[:, H // 4 + 10, 20].tolist() == pytest.approx(red)
    assert seen[:, 0, 0].tolist() == pytest.approx(black) and seen[:, H // 2, 0].tolist() == pytest.approx(black)


@pytest.mark.parametrize(
    "outputs,kind",
    [
        (grids(1, {1: 2, 4: 1, 10: 1}), YUNET),
        (grids(2, {1: 1, 4: 1, 10: 1}), SCRFD),
        ([spec("a", 1, 504, 4), spec("b", 1, 504, 2), spec("c", 1, 504, 10)], RETINAFACE),
    ],
)
def test_networks_are_told_by_their_outputs_in_any_order(outputs, kind):
    takes = [spec("input", 1, 3, H, W)]
    assert recognize(takes, outputs, "x.onnx") is kind
    assert recognize(takes, outputs[::-1], "x.onnx") is kind
    for wrong in (outputs[1:], [*outputs, spec("more", 1, 7)], []):
        with pytest.raises(RefusedError, match="no face detector") as caught:
            recognize(takes, wrong, "x.onnx")
        assert "YuNet 12 outputs" in caught.value.cause and "RetinaFace 3" in caught.value.cause


@pytest.mark.parametrize(
    "takes",
    [
        [], [spec("a", 1, 3, H, W), spec("b", 1, 3, H, W)], [spec("a", 1, H, W, 3)], [spec("a", 1, 3, H + 1, W)],
        [spec("a", 2, 3, H, W)], [spec("a", 1, 3, H, W, dtype="uint8")],
    ],
)  # fmt: skip
def test_networks_that_take_something_else_are_refused(takes):
    with pytest.raises(RefusedError, match="no face detector"):
        recognize(takes, grids(1, {1: 2, 4: 1, 10: 1}), "x.onnx")


def test_points_are_needed(tmp_path):
    """SCRFD's files without points have six outputs."""
    with pytest.raises(RefusedError, match="gives 6 outputs"):
        recognize([spec("input", 1, 3, H, W)], grids(2, {1: 1, 4: 1}), "scrfd.onnx")


def test_open_sizes_are_refused_with_the_tool_that_closes_them(tmp_path, rng):
    path = network(tmp_path / "n.onnx", yunet(rng, 8, 20)[0], shape=(1, 3, "h", "w"))
    with pytest.raises(RefusedError, match="sizes of tensor 'input' are open") as caught:
        open_detector(path)
    assert "make_dynamic_shape_fixed" in caught.value.next


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x08\x07" * 50])
def test_what_is_no_onnx_file_is_refused(tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(RefusedError):
        open_detector(tmp_path / "x.onnx")
    with pytest.raises(BadInputError, match="does not exist"):
        open_detector(tmp_path / "y.onnx")


def test_data_outside_the_file_is_refused(tmp_path, small_onnx):
    (tmp_path / "x.onnx").write_bytes(small_onnx("fp32", external=True))
    with pytest.raises(RefusedError, match="outside the file"):
        open_detector(tmp_path / "x.onnx")


def test_the_packages_own_files_are_no_detectors_of_these_kinds():
    from logoformer.camera.faces import networks

    for name in networks.STORED:
        with pytest.raises(RefusedError, match="no face detector"):
            open_detector(Path(networks.__file__).parent / "weights" / name)
