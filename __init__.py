"""logoformer: LOGO-Former from a PyTorch checkpoint to a camera on an edge GPU.

    import logoformer
    with logoformer.load("face.bundle") as engine:
        print(engine(clip, color="rgb").label)

Everything here is lazy: importing this package imports nothing else of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import Bundle as Bundle
    from .engine import Result as Result
    from .engine import Runtime as Runtime
    from .engine import Stream as Stream
    from .engine import Worker as Worker
    from .engine import load as load

# The package logs under its own name and is silent until somebody adds a handler.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
__all__ = ["Bundle", "Result", "Runtime", "Stream", "Worker", "load"]

_HOMES = {"Bundle": ".bundle", **dict.fromkeys(("Runtime", "Result", "Stream", "Worker", "load"), ".engine")}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
