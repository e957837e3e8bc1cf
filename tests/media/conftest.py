from __future__ import annotations

import os

from logoformer.media.opencv import QUIET

os.environ.update(QUIET)  # before any test imports OpenCV
