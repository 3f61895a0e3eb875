"""python -m nbnet: the same as the command nbnet."""

import sys

from nbnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
