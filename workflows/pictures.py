"""Pictures of a verb's figures, as SVG: matrix, plane, bars, and lines on logarithmic axes.

Drawn by matplotlib, which the extras `train` and `export` bring. Equal figures give equal files: no date, no random
name, no setting of the user's. Text stays text, and what comes from files is never read as mathematics.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import needing, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, readable with any colour vision, and greys for further classes.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000", "#777777", "#bbbbbb")
_DASHES = ("-", "-", "-", (0, (5, 3)), (0, (3, 3)), (0, (1, 2)))  # drawn in this order: dashes over full lines


def confusion_svg(classes: Sequence[str], confusion: npt.NDArray[np.int64]) -> str:
    """The matrix by share of the true class; counts are written in.

    Args:
        classes: C names.
        confusion: counts `[C, C]`, true class by row.
    """
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    places, names = np.arange(len(classes)) + 0.5, [printable(name) for name in classes]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=2)
        for (row, column), share in np.ndenumerate(shares):
            shown, ink = f"{share:.0%}\n{confusion[row, column]}", "white" if share > 0.55 else "black"
            axes.text(column + 0.5, row + 0.5, shown, ha="center", va="center", color=ink)
        axes.set_xticks(places, names, rotation=30)
        axes.set_yticks(places, names)
        axes.set(title="Confusion matrix", xlabel="answer", ylabel="truth", aspect="equal")
        axes.invert_yaxis()

    return _svg(1.5 + 0.75 * len(classes), 1.5 + 0.75 * len(classes), draw)


def plane_svg(classes: Sequence[str], labels: npt.NDArray[np.int64], points: npt.NDArray[np.float64]) -> str:
    """A scatter of points `[N, 2]`, coloured by class."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number in range(len(classes)):
            color = COLORS[number % len(COLORS)]
            axes.plot(*points[labels == number].T, "o", markersize=4, markeredgewidth=0, alpha=0.75, color=color)
        axes.set(title="Features of the clips, t-SNE")
        axes.set_axis_off()
        figure.legend(axes.lines, [printable(name) for name in classes], loc="outside right upper")

    return _svg(8, 6.5, draw)


def tsne(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """t-SNE by scikit-learn, `[N, d]` -> `[N, 2]`; distances between groups mean little.

    Raises:
        MachineError: scikit-learn is not installed.
    """
    with needing("sklearn", "train", "The picture of features"):
        from sklearn.manifold import TSNE
    perplexity = min(30.0, max(2.0, (len(features) - 1) / 4))
    plane: npt.NDArray[np.float64] = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return plane


def bars_svg(title: str, rows: Sequence[tuple[str, float, bool]], marked: str) -> str:
    """One horizontal bar a row.

    Args:
        title: above.
        rows: (name, share, marked), from top to bottom; what is not finite is as long as the longest.
        marked: what the second colour means.
    """
    names, shares, hits = zip(*rows, strict=True)
    longest = max((share for share in shares if math.isfinite(share)), default=1.0)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        widths = [share if math.isfinite(share) else longest for share in shares]
        colors = [COLORS[3] if hit else COLORS[0] for hit in hits]
        drawn = axes.barh(range(len(rows)), widths, color=colors)
        axes.bar_label(drawn, [f"{s:.2%}" if math.isfinite(s) else "not finite" for s in shares], padding=3)
        axes.set_yticks(range(len(rows)), [printable(name, 60) for name in names])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        figure.suptitle(printable(title, 200), fontsize="medium", fontweight="bold")
        axes.set_title(printable(marked, 200), fontsize="medium", color=COLORS[3])

    return _svg(9, 1 + 0.22 * len(rows), draw)


@dataclass(frozen=True)
class Panel:
    """Lines on one pair of logarithmic axes, where a power is a straight line.

    Attributes:
        title: what is drawn upwards.
        axis: what is drawn to the right.
        lines: by name, points (x, y).
    """

    title: str
    axis: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def lines_svg(title: str, panels: Sequence[Panel]) -> str:
    """Panels row by row, two in each; lines differ in dashes too, because several may coincide."""

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        grid = figure.subplots(math.ceil(len(panels) / 2), 2, squeeze=False)
        for panel, axes in zip(panels, grid.flat, strict=True):
            for number, points in enumerate(panel.lines.values()):
                dashes, color = _DASHES[number % len(_DASHES)], COLORS[number % len(COLORS)]
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linestyle=dashes, color=color)
            axes.set(title=panel.title, xlabel=panel.axis, xscale="log", yscale="log")
            axes.set_xticks(sorted({x for points in panel.lines.values() for x, _ in points}))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            for side in (axes.xaxis, axes.yaxis):
                side.set_major_formatter("{x:g}")
                side.set_minor_formatter(NullFormatter())
            axes.grid(color="#d8dee4")
        figure.suptitle(title)
        figure.legend(grid.flat[0].lines, list(panels[0].lines), loc="outside lower center", ncols=6)

    return _svg(9, 0.8 + 2.4 * math.ceil(len(panels) / 2), draw)


def _svg(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """A figure of `width` x `height` inches, filled by `draw`, as SVG that loads nothing.

    Raises:
        MachineError: matplotlib is not installed.
    """
    with needing("matplotlib", "train", "A picture"):
        from matplotlib import style
        from matplotlib.figure import Figure
    settings = {"svg.hashsalt": "logoformer", "svg.fonttype": "none", "text.parse_math": False, "font.size": 9}
    written = io.StringIO()
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font at hand lacks; the reader's may have them
        figure = Figure((width, height), layout="constrained")
        draw(figure)
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = written.getvalue()
    return text[text.index("<svg") :]  # the document type before it names a file on the web
