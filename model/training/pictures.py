"""Two pictures of an evaluation, as SVG: the confusion matrix, and the clips' features on a plane.

The plane is t-SNE of the [CLS] features that the classifier reads, as papers of this field show it. Distances between
groups in such a picture mean little; it is there to be looked at, and `spread` gives the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from ...errors import missing_package

# Okabe and Ito's palette, readable with any colour vision, and greys for further classes.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000", "#777777", "#bbbbbb")
_CELL, _MARGIN = 56, 110


def confusion_svg(classes: Sequence[str], confusion: npt.NDArray[np.int64]) -> str:
    """The matrix by share of the true class; counts are written in.

    Args:
        classes: C names.
        confusion: counts `[C, C]`, true class by row.
    """
    count = len(classes)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = _MARGIN + count * _CELL + 10
    parts = []
    for row in range(count):
        for column in range(count):
            x, y, share = _MARGIN + column * _CELL, _MARGIN + row * _CELL, float(shares[row, column])
            ink = "#fff" if share > 0.55 else "#111"
            parts.append(f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="{_CELL - 2}" fill="{_blue(share)}"/>')
            parts.append(_text(x + _CELL / 2, y + 26, f"{share:.0%}", ink))
            parts.append(_text(x + _CELL / 2, y + 42, str(int(confusion[row, column])), ink, 10))
        middle = _MARGIN + row * _CELL + 32
        parts.append(_text(_MARGIN - 8, middle, classes[row], "#111", anchor="end"))
        parts.append(_text(middle - 4, _MARGIN - 10, classes[row], "#111", 11))
    parts.append(_text(_MARGIN - 8, 24, "truth by row, answer by column", "#555", 11, anchor="start"))
    return _svg(side, side, "Confusion matrix", parts)


def plane_svg(classes: Sequence[str], labels: npt.NDArray[np.int64], points: npt.NDArray[np.float64]) -> str:
    """A scatter of points `[N, 2]`, coloured by class."""
    side = 640
    low, high = points.min(0), points.max(0)
    placed = 20 + (points - low) / np.maximum(high - low, 1e-9) * (side - 40)
    parts = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{COLORS[label % len(COLORS)]}" fill-opacity="0.75"/>'
        for (x, y), label in zip(placed, labels, strict=True)
    ]
    for number, name in enumerate(classes):
        y = 24 + 18 * number
        parts.append(f'<circle cx="{side + 14}" cy="{y - 4}" r="5" fill="{COLORS[number % len(COLORS)]}"/>')
        parts.append(_text(side + 26, y, name, "#111", anchor="start"))
    return _svg(side + 140, side, "Features of the clips, t-SNE", parts)


def tsne(features: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float64]:
    """t-SNE by scikit-learn: `[N, d]` -> `[N, 2]`.

    Raises:
        MachineError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise missing_package("sklearn", "train", "The picture of features") from error
    perplexity = min(30.0, max(2.0, (len(features) - 1) / 4))
    plane: npt.NDArray[np.float64] = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        features
    )
    return plane


def spread(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Mean distance of clips to their class's centre, over the mean distance between the centres of classes.

    Smaller is more compact. Distances are Euclidean on features scaled to unit length, because a network may change the
    length of all its features for nothing.

    Args:
        features: `[N, d]`.
        labels: int64 `[N]`; at least two classes.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    present = np.unique(labels)
    centres = np.stack([unit[labels == c].mean(0) for c in present])  # [C, d]
    inside = np.mean(
        [np.linalg.norm(unit[labels == c] - m, axis=1).mean() for c, m in zip(present, centres, strict=True)]
    )
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(len(present), 1)].mean()
    return float(inside / apart)


def _blue(share: float) -> str:
    red, green, blue = (round(255 + share * (end - 255)) for end in (8, 69, 148))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _text(x: float, y: float, text: str, fill: str, size: int = 13, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" role="img">'
    )
    return "\n".join(
        [head, f"<title>{title}</title>", '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"]
    )
