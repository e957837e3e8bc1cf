"""Answers of a whole archive in one file: plainly one after the other, or on Ray."""

from .answering import LabelConfig as LabelConfig
from .answering import Labeller as Labeller
from .answering import PlainLabeller as PlainLabeller
from .archive import LabelReport as LabelReport
from .archive import label_archive as label_archive
from .on_ray import RayConfig as RayConfig
from .on_ray import RayLabeller as RayLabeller
