"""How messages are shown: a row of a table, or one message with all that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmq.cli.output import Column
from leanmq.cli.text import moment, payload, printable

if TYPE_CHECKING:
    from leanmq import StoredMessage

__all__ = ["DEAD", "DETAILS", "STORED", "row_of"]

_ID = Column("id", "ID")
_SENT = Column("sent_at", "SENT", show=moment)
_DELIVERIES = Column("deliveries", "DELIVERIES", right=True)
_DATA = Column("data", "DATA", show=payload)

STORED = (_ID, _SENT, _DELIVERIES, Column("state", "STATE"), _DATA)
"""Columns of messages of a queue."""

DEAD = (_ID, _SENT, _DELIVERIES, Column("error", "ERROR"), _DATA)
"""Columns of dead letters."""

DETAILS = (
    Column("id", "id"),
    Column("queue", "queue"),
    Column("state", "state"),
    Column("sent_at", "sent", show=moment),
    Column("deliveries", "deliveries"),
    Column("redrives", "redrives"),
    Column("error", "error", show=lambda text: printable(text or "-", 1_000)),
    Column("key", "key"),
    Column("message_id", "message id"),
    Column("headers", "headers", show=lambda headers: payload(headers, 2_000)),
    Column("failures", "failures", show=lambda failures: _failures(failures)),
    Column("data", "data", show=lambda data: payload(data, 10_000)),
)
"""Everything of one message."""


def row_of(message: StoredMessage[Any]) -> dict[str, Any]:
    """A message by the names that it has in JSON."""
    return {
        "id": message.id,
        "queue": message.queue,
        "state": message.state,
        "sent_at": message.timestamp,
        "due_at": message.due_at,
        "deliveries": message.delivery_count,
        "redrives": message.redrives,
        "error": message.error,
        "key": message.key,
        "message_id": message.message_id,
        "headers": dict(message.headers),
        "failures": [
            {"at": f.at, "delivery": f.delivery_count, "reason": f.reason} for f in message.failures
        ],
        "data": message.data,
    }


def _failures(failures: list[dict[str, Any]]) -> str:
    """One a line, under each other."""
    lines = [
        f"{moment(f['at'])}, delivery {f['delivery']}: {printable(f['reason'] or '-', 1_000)}"
        for f in failures
    ]
    return ("\n" + " " * 12).join(lines) or "-"
