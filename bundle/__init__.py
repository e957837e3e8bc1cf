"""The bundle, the folder that a checkpoint becomes and a device runs.

    face.bundle/
      manifest.json                                  the one index, with a digest over itself
      graphs/<graph>.<precision>.b<N>.<hash8>.onnx
      golden/<hash8>.npz
      calibration/<hash8>.json                       which clips INT8 was calibrated on, and the ranges they gave
      engines/                                       see engine/trust/index.py; may live elsewhere

Files are named by their content and never change. A change writes new files and then replaces the index in one step,
so a reader always sees a whole bundle; what no index names any more is swept an hour later at the earliest.

Nothing of a bundle reaches a runtime before it was checked: regular file, no link, size, digest, hash. A digest is not
authenticity: it tells damage, not malice (SECURITY.md).
"""

from .alignment import Alignment as Alignment
from .entries import GRAPHS as GRAPHS
from .entries import MIXED as MIXED
from .entries import PRECISIONS as PRECISIONS
from .entries import Golden as Golden
from .entries import GraphEntry as GraphEntry
from .entries import StreamSpec as StreamSpec
from .entries import TensorSpec as TensorSpec
from .reader import Bundle as Bundle
from .sealed import SWEEP_AFTER_S as SWEEP_AFTER_S
from .writer import BundleWriter as BundleWriter
from .writer import replace_manifest as replace_manifest
from .writer import replace_manifests as replace_manifests
from .writer import require_changeable as require_changeable
