"""Testing an application that uses LeanMQ: what its tests import. See ``docs/testing.md``.

The fixtures are in ``leanmq.testing.plugin``, which pytest finds by itself.
"""

from leanmq.testing.clock import ManualClock
from leanmq.testing.draining import Drained, drain, drain_async
from leanmq.testing.sent import assert_sent, assert_sent_async

__all__ = [
    "Drained",
    "ManualClock",
    "assert_sent",
    "assert_sent_async",
    "drain",
    "drain_async",
]
