"""TensorRT-RTX's runtime cache: kernels that RTX compiled for this card, kept so that the next start is quick.

It holds native code, so it lives in the user's own trust store, outside the bundle, and is used only if its hash is the
one that a program of this user recorded (`trust.py`).
"""

from __future__ import annotations

import warnings

from ...errors import LogoformerError
from ..machine.environment import Running
from .store import TrustStore, cache_name

MAX_CACHE_BYTES = 256 << 20


class RuntimeCache:
    """The cache of one engine on one card; see `trt_engine.CacheStore`.

    Args:
        running: what it belongs to.
        engine_sha256: and of which engine.
        trust: where it lives; the user's own store when None.
    """

    def __init__(self, running: Running, engine_sha256: str, trust: TrustStore | None = None) -> None:
        self.name = cache_name("runtime", running, engine_sha256[:16])
        self._trust = trust or TrustStore()

    def load(self) -> bytes | None:
        """What was kept and is still trusted; says aloud when something lies there that is not."""
        data, why = self._trust.admit_cache(self.name, MAX_CACHE_BYTES)
        if why:
            warnings.warn(f"{why}; kernels are compiled anew", RuntimeWarning, stacklevel=2)
        return data

    def save(self, data: bytes) -> None:
        """Keeps it; where that fails, the next start is slow again and no more than that."""
        try:
            self._trust.record_cache(self.name, data)
        except LogoformerError as error:
            warnings.warn(f"the runtime cache was not kept: {error.what}", RuntimeWarning, stacklevel=2)
