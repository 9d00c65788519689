"""`python -m winnow` is the command `winnow`."""

import sys

from winnow.cli import main

if __name__ == "__main__":
    sys.exit(main())
