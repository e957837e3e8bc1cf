"""The bundle: the folder that a checkpoint becomes and a device runs."""

from .bundle import GRAPHS as GRAPHS
from .bundle import MIXED as MIXED
from .bundle import PRECISIONS as PRECISIONS
from .bundle import SWEEP_AFTER_S as SWEEP_AFTER_S
from .bundle import Bundle as Bundle
from .bundle import BundleWriter as BundleWriter
from .bundle import Golden as Golden
from .bundle import GraphEntry as GraphEntry
from .bundle import StreamSpec as StreamSpec
from .bundle import TensorSpec as TensorSpec
from .bundle import replace_manifest as replace_manifest
