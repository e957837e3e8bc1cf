"""`python -m logoformer.cli`, kept for scripts of version 0.1; the same as `python -m logoformer`."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
