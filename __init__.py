"""logoformer: LOGO-Former from a PyTorch checkpoint to a camera on an edge GPU.

    import logoformer
    with logoformer.load("face.bundle") as runtime:
        print(runtime("clip.mp4").label)

Everything here is lazy: importing this package imports nothing else of it.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import clips as clips
    from . import errors as errors
    from .bundle import Bundle as Bundle
    from .engine import Result as Result
    from .engine import Runtime as Runtime
    from .engine import Stream as Stream
    from .engine import Worker as Worker
    from .engine import load as load

# The package logs under its own name and is silent until somebody adds a handler.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
__all__ = ["Bundle", "Result", "Runtime", "Stream", "Worker", "clips", "errors", "load"]

_HOMES = {"Bundle": ".bundle", **dict.fromkeys(("Result", "Runtime", "Stream", "Worker", "load"), ".engine")}
_MODULES = ("clips", "errors")


def _read_clip(*arguments: Any) -> Any:
    return import_module(".camera.clip_files", __name__).read_clip(*arguments)


def __getattr__(name: str) -> Any:
    if name == "Engine":
        import warnings

        warnings.warn("logoformer.Engine is now logoformer.Runtime.", DeprecationWarning, stacklevel=2)
        return __getattr__("Runtime")
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES[name], __name__)
    if _HOMES[name] == ".engine":
        home.Runtime.read_clip = _read_clip  # engine/ does not know camera/, which lies above it
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
