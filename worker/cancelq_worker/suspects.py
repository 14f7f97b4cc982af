"""Intents that two workers ended with: a process carries one of them at a time.

The third end parks an intent for good, so it must be its own. Each of them travels alone in its call already
(take.lua); but a process has many calls on their way, and a poisoned intent that ends it would take all of them along.
So only one suspect is in a process' hands, from the take to the settlement, over all of its lanes.
"""

from __future__ import annotations

from cancelq_worker.clocks import monotonic_s
from cancelq_worker.records import Taken

TURN_S = 0.1


class Suspects:
    """The one turn of a process: who has it."""

    def __init__(self) -> None:
        self.holder: Turn | None = None


class Turn:
    """A lane's part in it. A turn lasts for some rounds: whoever sees a suspect and may not take it puts it off by a
    moment, so that no single round would meet it where many workers look."""

    def __init__(self, suspects: Suspects) -> None:
        self._all = suspects
        self._waits_till_s = 0.0  # how long it is believed that one waits
        self._ends_s = 0.0
        self._batch = ""

    def ask(self) -> bool:
        """Whether a take may bring a suspect. Asked for only where one waits, as no other lane may meanwhile."""
        now_s = monotonic_s()
        holder = self._all.holder
        if holder is not None and holder is not self and holder.over_at(now_s):
            holder = None  # a lane at rest
        if now_s < self._waits_till_s and not self._batch and holder is None:
            self._all.holder = self
            self._ends_s = now_s + TURN_S
        return self._all.holder is self and not self._batch

    def over_at(self, now_s: float) -> bool:
        """Whether this turn has brought nothing in its time."""
        return not self._batch and now_s >= self._ends_s

    def took(self, taken: Taken) -> None:
        """What a take brought."""
        if taken.suspects:
            self._waits_till_s = monotonic_s() + TURN_S
        if taken.batch and taken.batch.suspect:
            self._batch = taken.batch.id

    def round_over(self) -> None:
        """Some rounds that brought no suspect end the turn."""
        if self.over_at(monotonic_s()):
            self._leave()

    def over(self, batch_id: str) -> None:
        """That batch is settled, or its call is gone."""
        if self._batch == batch_id:
            self.end()

    def end(self) -> None:
        """Nobody knows any more what became of it: its lease ends by itself."""
        self._batch = ""
        self._leave()

    def _leave(self) -> None:
        if self._all.holder is self:
            self._all.holder = None
