"""What producers and consumers noted, and what must be true of it at the end. Pure data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

import attrs

__all__ = ["Finding", "History"]

SHOWN: Final = 5


@attrs.frozen
class Finding:
    """Something that must not be.

    Attributes:
        what: Which promise was broken.
        payloads: Of the messages that it was broken for, if it is known which.
        moments: What was noted of the first of them, in order of time.
    """

    what: str
    payloads: tuple[Any, ...] = ()
    moments: tuple[Moment, ...] = ()

    def __str__(self) -> str:
        if not self.payloads:
            return self.what
        some = ", ".join(map(str, self.payloads[:SHOWN]))
        more = f" and {len(self.payloads) - SHOWN} others" if len(self.payloads) > SHOWN else ""
        lines = [f"{self.what}: {len(self.payloads)} messages: {some}{more}"]
        return "\n    ".join([*lines, *map(str, self.moments)])


@attrs.frozen
class Moment:
    """One delivery, or what became of it.

    Attributes:
        at: Seconds on the clock of the run.
        what: "got", "acknowledged", or what else was done.
        who: The consumer.
        message_id: Its id.
        count: Which delivery it was.
    """

    at: float
    what: str
    who: str
    message_id: str
    count: int

    def __str__(self) -> str:
        return f"{self.at:10.3f} {self.who} {self.what} {self.message_id}, delivery {self.count}"


@attrs.define
class History:
    """All that was noted in a run. Payloads are unique.

    Attributes:
        lease: Seconds. A message that was held for longer may come again although it was
            acknowledged in the end.
        confirmed: Id by payload of each send that returned one.
        unknown: Payloads of sends whose outcome nobody knows.
        refused: Payloads of sends that were surely not carried out.
        moments: By payload.
        errors: By type, what producers and consumers were told.
    """

    lease: float
    confirmed: dict[Any, str] = attrs.field(factory=dict)
    unknown: set[Any] = attrs.field(factory=set)
    refused: set[Any] = attrs.field(factory=set)
    moments: dict[Any, list[Moment]] = attrs.field(factory=lambda: defaultdict(list))
    errors: Counter[str] = attrs.field(factory=Counter)

    def note(self, payload: Any, moment: Moment) -> None:
        """A delivery, or what became of it."""
        self.moments[payload].append(moment)

    def findings(self) -> list[Finding]:
        """What must not be, once the queue is empty."""
        seen = self.moments.keys()
        checks = {
            "confirmed, and never handed out": [p for p in self.confirmed if p not in seen],
            "said to be not stored, and handed out": [p for p in self.refused if p in seen],
            "handed out, and never sent": seen
            - self.confirmed.keys()
            - self.unknown
            - self.refused,
            "stored twice": [
                p for p, m in self.moments.items() if len({x.message_id for x in m}) > 1
            ],
            "handed out under another id than the send returned": [
                p
                for p, own in self.confirmed.items()
                if any(own != m.message_id for m in self.moments.get(p, ()))
            ],
            "acknowledged, and handed out again": [
                p for p, m in self.moments.items() if self._again(m)
            ],
        }
        return [self._finding(what, payloads) for what, payloads in checks.items() if payloads]

    def _finding(self, what: str, payloads: Iterable[Any]) -> Finding:
        found = tuple(payloads)
        moments = sorted(self.moments.get(found[0], ()), key=lambda moment: moment.at)
        return Finding(what, found, tuple(moments))

    def _again(self, moments: Iterable[Moment]) -> bool:
        """Whether a message came again after it was acknowledged in time."""
        done: float | None = None
        got: dict[tuple[str, int], float] = {}
        for moment in sorted(moments, key=lambda moment: moment.at):
            delivery = moment.who, moment.count
            if moment.what == "got":
                if done is not None:
                    return True
                got[delivery] = moment.at
            elif moment.what == "acknowledged" and moment.at - got[delivery] < self.lease:
                done = moment.at if done is None else done
        return False
