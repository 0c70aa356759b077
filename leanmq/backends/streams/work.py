"""What the settle script is told of messages that were received, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from leanmq.backends.protocol import Extended, Held, Standing
from leanmq.backends.streams import refusals, replies
from leanmq.backends.streams.calls import Outcomes
from leanmq.backends.streams.keys import StreamKeys
from leanmq.backends.streams.running import Run
from leanmq.errors import LeanMQError

__all__ = ["Work", "milliseconds"]


@attrs.frozen
class Work:
    """What is to be done with messages of a queue.

    Attributes:
        keys: Of the queue, or of its dead letters.
        queue: Its name.
        verb: As the script calls it.
        messages: Each with its receipt, or known by its id alone.
        delay: Seconds until they are handed out again.
        reason: Why they failed.
        destination: The keys of the queue to which dead letters go.
    """

    keys: StreamKeys
    queue: str
    verb: str
    messages: Sequence[Held]
    delay: float = 0.0
    reason: str = ""
    destination: tuple[str, ...] = ()
    _groups: Mapping[str, tuple[list[str], Sequence[int]]] = attrs.field(init=False)

    @_groups.default
    def _group(self) -> Mapping[str, tuple[list[str], Sequence[int]]]:
        return replies.by_delivery(self.messages)

    def runs(self) -> list[Run]:
        """One for each delivery among the receipts."""
        keys = (*self.keys.for_work(), *self.destination)
        terms = (milliseconds(self.delay), self.reason)
        return [
            (keys, (self.verb, consumer, times, *terms, *entries))
            for rest, (entries, _) in self._groups.items()
            for times, consumer in (replies.parse_rest(rest),)
        ]

    def done(self, outcomes: Outcomes) -> Extended:
        """What came of it; raises the first error, in doubt if anything may be done."""
        standings = [Standing.GONE] * len(self.messages)
        lease = 0.0
        for (_, places), outcome in zip(self._groups.values(), outcomes, strict=True):
            try:
                reply = refusals.value(outcome, self.queue)
            except LeanMQError as error:
                error.in_doubt = any(
                    not isinstance(each, LeanMQError) or each.in_doubt for each in outcomes
                )
                raise
            lease = replies.lease(reply)
            found = replies.standings(reply)
            if len(found) == len(standings):
                return Extended(found, lease)
            for place, standing in zip(places, found, strict=True):
                standings[place] = standing
        return Extended(standings, lease)


def milliseconds(seconds: float) -> int:
    """As the scripts take it."""
    return round(seconds * 1000)
