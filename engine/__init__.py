"""The runtime: opens a bundle, answers clips and streams. Needs numpy and one backend."""

from .core import Result as Result
from .runtime import Runtime as Runtime
from .runtime import load as load
from .stream import Stream as Stream
from .worker import Worker as Worker

__all__ = ["Result", "Runtime", "Stream", "Worker", "load"]
