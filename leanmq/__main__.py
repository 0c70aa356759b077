"""``python -m leanmq``: the command line, where the script ``leanmq`` is not on the PATH."""

import sys

from leanmq.cli import main

if __name__ == "__main__":
    sys.exit(main())
