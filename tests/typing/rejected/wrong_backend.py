"""Backends that are none: mypy must reject each line that is marked with the code it says."""

from __future__ import annotations

from leanmq import AsyncLeanMQ, LeanMQ, Queue
from leanmq.backends.protocol import (
    Alter,
    Capabilities,
    Declare,
    Declared,
    Drop,
    Dropped,
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Listed,
    ListQueues,
    Peek,
    Peeked,
    Purge,
    Purged,
    QueueStats,
    Redrive,
    Redriven,
    SendBatch,
    Sent,
    Stats,
    Transact,
)


class Complete:
    """A backend, as far as types can tell."""

    def open(self) -> Capabilities:
        return Capabilities("complete")

    def close(self) -> None: ...

    def ping(self) -> None: ...

    def declare(self, request: Declare) -> Declared:
        raise NotImplementedError

    def drop(self, request: Drop) -> Dropped:
        raise NotImplementedError

    def send(self, batch: SendBatch) -> Sent:
        raise NotImplementedError

    def exchange(self, request: Exchange) -> Exchanged:
        raise NotImplementedError

    def extend(self, request: Extend) -> Extended:
        raise NotImplementedError

    def alter(self, request: Alter) -> Declared:
        raise NotImplementedError

    def list(self, request: ListQueues) -> Listed:
        raise NotImplementedError

    def transact(self, request: Transact) -> Sent:
        raise NotImplementedError

    def peek(self, request: Peek) -> Peeked:
        raise NotImplementedError

    def redrive(self, request: Redrive) -> Redriven:
        raise NotImplementedError

    def purge(self, request: Purge) -> Purged:
        raise NotImplementedError

    def stats(self, request: Stats) -> QueueStats:
        raise NotImplementedError


class WithoutExtend:
    """Everything but one method."""

    open = Complete.open
    close = Complete.close
    ping = Complete.ping
    declare = Complete.declare
    drop = Complete.drop
    send = Complete.send
    exchange = Complete.exchange
    alter = Complete.alter
    list = Complete.list
    transact = Complete.transact
    peek = Complete.peek
    redrive = Complete.redrive
    purge = Complete.purge
    stats = Complete.stats


class SendsOneMessage(Complete):
    """Takes a message where the seam hands over a batch."""

    def send(self, batch: bytes) -> Sent:  # expect: override
        raise NotImplementedError


class AnswersNothing(Complete):
    """Settles, and does not say what became of it."""

    def exchange(self, request: Exchange) -> None:  # expect: override
        raise NotImplementedError


LeanMQ(backend=Complete())
LeanMQ(backend=WithoutExtend())  # expect: arg-type
LeanMQ(backend=SendsOneMessage())  # expect: arg-type
LeanMQ(backend=AnswersNothing())  # expect: arg-type
AsyncLeanMQ(backend=Complete())  # expect: arg-type


def sends_what_it_should_not(queue: Queue[int]) -> None:
    """A typed queue takes its own payload only."""
    queue.send_message(1)
    queue.send_message("one")  # expect: arg-type
    queue.send_messages(["one"])  # expect: list-item
    queue.get_messages(block="yes")  # expect: arg-type
    queue.acknowledge_messages(7)  # expect: arg-type
