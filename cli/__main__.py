"""`python -m logoformer.cli`: the command line under its name of version 0.1."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
