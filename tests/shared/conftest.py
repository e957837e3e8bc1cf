from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def descriptors():
    """Fails the test when it leaves a file descriptor open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before
