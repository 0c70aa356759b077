"""Notices data of LeanMQ 0.2.0 under the same prefix. It is never read, and never touched."""

from __future__ import annotations

from leanmq.backends.streams.calls import Call, Outcomes
from leanmq.backends.streams.keys import older_registry_key
from leanmq.backends.streams.running import Operation

__all__ = ["notices"]


def notices(prefix: str) -> Operation[tuple[str, ...]]:
    """What an operator should be told; what cannot be looked at is passed over in silence."""
    key = older_registry_key(prefix)
    outcomes: Outcomes = yield Call((("SCARD", key),), slot=key, idempotent=True)
    found = outcomes[0]
    if not isinstance(found, int) or not found:
        return ()
    return (
        f"{found} queues of LeanMQ 0.2.0 are kept under the prefix {prefix!r} (key {key!r}). Their "
        "messages are neither read nor touched: let the older version work them off, then delete "
        "its keys",
    )
