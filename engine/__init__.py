"""The runtime: build engines, run a bundle, stream it. numpy and one backend; torch is never imported."""

from .result import Result as Result
from .runtime import Runtime as Runtime
from .runtime import load as load
from .stream import Stream as Stream
from .worker import Worker as Worker

__all__ = ["Result", "Runtime", "Stream", "Worker", "load"]
