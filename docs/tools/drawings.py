"""Draw the pictures of docs/architecture.md: `python docs/tools/drawings.py` (a part of `make picture`).

Each picture is a list of boxes on a grid and arrows between them. It has a background of its own and follows the
reader's light or dark scheme, so it is legible on any page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1]
COLUMN, ROW, MARGIN = 190, 86, 20  # pixels
BOX_WIDTH, BOX_HEIGHT = 160, 58
STYLE = """
  .page { fill: #ffffff } .box { fill: #eef2fb; stroke: #4a63a8 } .store { fill: #fdf3e1; stroke: #a86f1b }
  .line { stroke: #5a6272; fill: none } .head { fill: #5a6272 }
  text { font-family: sans-serif; fill: #1b2130; text-anchor: middle } .name { font-size: 14px; font-weight: 600 }
  .note { font-size: 11px; fill: #4b5365 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #1d212b } .box { fill: #2a3350; stroke: #8ea6ec } .store { fill: #43331a; stroke: #e0ab5c }
    .line { stroke: #a4adbf } .head { fill: #a4adbf } text { fill: #edf0f7 } .note { fill: #c3cad8 }
  }
"""


@dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
        column, row: place on the grid; halves are allowed.
        name: the bold line.
        note: the small line under it.
        store: a file or folder, drawn in another colour.
        wide: columns that it spans.
    """

    column: float
    row: float
    name: str
    note: str = ""
    store: bool = False
    wide: int = 1

    @property
    def left(self) -> float:
        """Pixels from the left."""
        return MARGIN + self.column * COLUMN

    @property
    def top(self) -> float:
        """Pixels from the top."""
        return MARGIN + self.row * ROW

    @property
    def width(self) -> float:
        """Pixels."""
        return BOX_WIDTH + (self.wide - 1) * COLUMN


def draw(title: str, boxes: Mapping[str, Box], arrows: Sequence[tuple[str, str]]) -> str:
    """An SVG of boxes and arrows.

    Args:
        title: read aloud in place of the picture.
        boxes: by a short key.
        arrows: (from, to), down or to a side.
    """
    width = max(box.left + box.width for box in boxes.values()) + MARGIN
    height = max(box.top + BOX_HEIGHT for box in boxes.values()) + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="page" width="{width:g}" height="{height:g}" rx="10"/>',
    ]
    lines += [_arrow(boxes[start], boxes[end]) for start, end in arrows]
    lines += [_box(box) for box in boxes.values()]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _box(box: Box) -> str:
    middle = box.left + box.width / 2
    base = box.top + BOX_HEIGHT / 2 + (-2 if box.note else 5)
    shape = f'<rect class="{"store" if box.store else "box"}" x="{box.left:g}" y="{box.top:g}"'
    lines = [f'{shape} width="{box.width:g}" height="{BOX_HEIGHT}" rx="7"/>']
    lines.append(f'<text class="name" x="{middle:g}" y="{base:g}">{escape(box.name)}</text>')
    if box.note:
        lines.append(f'<text class="note" x="{middle:g}" y="{base + 18:g}">{escape(box.note)}</text>')
    return "\n".join(lines)


def _arrow(start: Box, end: Box) -> str:
    if end.top > start.top:  # down, from the nearest point of the upper box
        x2 = end.left + end.width / 2
        x1 = min(max(x2, start.left + 10), start.left + start.width - 10)
        x2 = min(max(x1, end.left + 10), end.left + end.width - 10)
        y1, y2 = start.top + BOX_HEIGHT, end.top - 1
    elif end.left > start.left:
        x1, x2 = start.left + start.width, end.left - 1
        y1 = y2 = start.top + BOX_HEIGHT / 2
    else:
        x1, x2 = start.left, end.left + end.width + 1
        y1 = y2 = start.top + BOX_HEIGHT / 2
    return f'<path class="line" d="M{x1:g} {y1:g} {x2:g} {y2:g}" marker-end="url(#head)"/>'


TREE = draw(
    "The folders of the package: each imports only what is drawn below it",
    {
        "cli": Box(0, 0, "cli/", "parses, prints", wide=2),
        "studies": Box(2, 0, "studies/", "writes figures and pages", wide=2),
        "workflows": Box(0, 1, "workflows/", "one file a verb: composes what is below", wide=4),
        "benchmarks": Box(0, 2, "benchmarks/", "load, baselines, sensors, reports", wide=4),
        "camera": Box(0, 3, "camera/", "sources to answers"),
        "export": Box(1, 3, "export/", "checkpoint to graphs"),
        "calibration": Box(2, 3, "calibration/", "INT8, accuracy gate"),
        "serving": Box(3, 3, "serving/", "models for Triton"),
        "model": Box(1, 4, "model/", "PyTorch: networks, data, training", wide=2),
        "engine": Box(0, 5, "engine/", "runtime, sessions, builder, trust: numpy and one backend", wide=4),
        "media": Box(0, 6, "media/", "videos and pictures"),
        "bundle": Box(1, 6, "bundle/", "the folder format"),
        "clips": Box(2, 6, "clips.py", "sampling, colours"),
        "errors": Box(3, 6, "errors.py", "errors, exit codes"),
    },
    [
        ("cli", "workflows"), ("studies", "workflows"), ("workflows", "benchmarks"),
        ("benchmarks", "camera"), ("benchmarks", "export"), ("benchmarks", "calibration"),
        ("export", "model"), ("calibration", "model"), ("camera", "engine"), ("model", "engine"),
        ("benchmarks", "serving"), ("serving", "engine"),
        ("media", "bundle"), ("engine", "bundle"), ("engine", "clips"), ("engine", "errors"),
    ],
)  # fmt: skip

FRAME = draw(
    "The way of a frame: from the camera through the ring to an answer",
    {
        "camera": Box(0, 0, "camera", "uint8 [H, W, 3], time in s"),
        "check": Box(1, 0, "check, resize", "uint8 [S, S, 3]"),
        "frame": Box(2, 0, "graph `frame`", "once for each new frame"),
        "ring": Box(3, 0, "ring", "tokens of the last seconds", store=True),
        "pick": Box(3, 1, "pick by time", "order: the training pattern"),
        "temporal": Box(2, 1, "graph `temporal`", "every `hop` kept frames"),
        "result": Box(1, 1, "Result", "label, probabilities, age"),
        "program": Box(0, 1, "your program"),
    },
    [
        ("camera", "check"), ("check", "frame"), ("frame", "ring"), ("ring", "pick"),
        ("pick", "temporal"), ("temporal", "result"), ("result", "program"),
    ],
)  # fmt: skip

CHECKPOINT = draw(
    "The way of a checkpoint: from training through the bundle to a device",
    {
        "data": Box(0, 0, "data set", "DFEW, FERV39k, ... or synth", store=True),
        "train": Box(1, 0, "train", "model/training"),
        "ckpt": Box(2, 0, "checkpoint", "safetensors + config.json", store=True),
        "export": Box(3, 0, "export", "traces, compares with PyTorch"),
        "bundle": Box(3, 1, "bundle", "manifest, graphs, golden clips", store=True),
        "quantize": Box(2, 1, "quantize", "INT8 in the graph"),
        "verify": Box(1, 1, "verify", "answers, then a verdict"),
        "build": Box(3, 2, "build", "TensorRT, TensorRT-RTX"),
        "engines": Box(2, 2, "engines", "compiled, hashed, trusted", store=True),
        "load": Box(1, 2, "load", "checks, then a Runtime"),
        "program": Box(0, 2, "your program"),
    },
    [
        ("data", "train"), ("train", "ckpt"), ("ckpt", "export"), ("export", "bundle"),
        ("bundle", "quantize"), ("quantize", "verify"), ("bundle", "build"), ("build", "engines"),
        ("engines", "load"), ("verify", "load"), ("load", "program"),
    ],
)  # fmt: skip

PICTURES = {"tree.svg": TREE, "way-of-a-frame.svg": FRAME, "way-of-a-checkpoint.svg": CHECKPOINT}


def main() -> None:
    """Writes all pictures."""
    for name, svg in PICTURES.items():
        (FOLDER / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
