"""The command line: ``leanmq``, and ``python -m leanmq``.

Importing this loads click alone; a command loads what it needs when it runs.
"""

from leanmq.cli.root import main

__all__ = ["main"]
