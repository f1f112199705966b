"""``python -m reidlib``: the same as the command ``reidlib``."""

import sys

from reidlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
