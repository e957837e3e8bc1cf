"""Model repositories for NVIDIA Triton, and a client that survives its restarts.

Nothing here is a server of our own. `repository.py` writes what a Triton needs, `stream_model.py` and `clip_model.py`
run inside its Python backend, `client.py` and `check.py` talk to it.
"""

from .client import StreamClient as StreamClient

__all__ = ["StreamClient"]
