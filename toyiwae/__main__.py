"""`python -m toyiwae`: the command line."""

import sys

from toyiwae.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
