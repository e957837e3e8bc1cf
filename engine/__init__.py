"""The runtime: build engines, run a bundle, stream it. numpy and one backend; torch is never imported."""

from .engine import Engine as Engine
from .engine import load as load
from .result import Result as Result
from .stream import Stream as Stream
from .worker import Worker as Worker

__all__ = ["Engine", "Result", "Stream", "Worker", "load"]
