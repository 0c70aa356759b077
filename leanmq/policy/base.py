"""What every part of a queue's policy has at hand."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from leanmq.backends.protocol import QueueRef, Settings
from leanmq.policy.codec import JSON, Codec
from leanmq.policy.core import ClientCore

__all__ = ["QueuePolicy", "chunks"]


@attrs.frozen
class QueuePolicy:
    """One queue (or its dead letters) of one client.

    Attributes:
        asked: Settings that the handle was opened with.
        codec: Payloads to bytes and back.
    """

    core: ClientCore
    ref: QueueRef
    asked: Settings
    codec: Codec = JSON


def chunks(ids: list[str], size: int) -> Iterable[list[str]]:
    """The ids in lists of at most ``size``."""
    return (ids[i : i + size] for i in range(0, len(ids), size))
