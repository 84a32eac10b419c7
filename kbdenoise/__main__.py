"""`python -m kbdenoise` is the command `kbdenoise`."""

import sys

from kbdenoise.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
