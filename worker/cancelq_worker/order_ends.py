"""An order's end ends every open intent that names it, also one that was not sent yet.

It is told by the order stream, or by the call of another intent of the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from cancelq_worker.carrier import Carrier
from cancelq_worker.clocks import monotonic_ns
from cancelq_worker.lane_parts import Outcome
from cancelq_worker.ledger import Ledger
from cancelq_worker.records import End, Move, Settlement
from cancelq_worker.rulings import Finish, ended_by_push, learn
from cancelq_worker.state import Work
from cancelq_worker.venues.port import Push

ORDERS = 100  # orders whose intents are ended in one script
KEPT_NS = 10_000_000_000  # how long an order's end waits for an intent's call to end
AGAIN_S = 0.02


class OrderEnds:
    """Of one lane: the ends that are known, until the intents that name them have theirs."""

    def __init__(
        self,
        ledger: Ledger,
        carrier: Carrier,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        settle: Callable[[Outcome], None],
    ) -> None:
        """`spawn` runs what the lane is to wait for before it ends; `settle` is given what its next round settles."""
        self._ledger = ledger
        self._carrier = carrier
        self._spawn = spawn
        self._settle = settle
        self._known: dict[str, tuple[Finish, int]] = {}
        self._at_work = False

    def pushed(self, pushes: Sequence[Push]) -> None:
        """What the order stream told."""
        for push in pushes:
            finish = ended_by_push(push.reply)
            if finish:
                self.know(dict.fromkeys(push.keys, finish))

    def know(self, ended: Mapping[str, Finish]) -> None:
        """These orders, by key, have ended. What shares a key with one of them is not its own yet: an id may have been
        learnt wrongly, or be borne by the next order."""
        until_ns = monotonic_ns() + KEPT_NS
        self._known.update({key: (finish, until_ns) for key, finish in ended.items()})
        if self._known and not self._at_work:
            self._at_work = True
            self._spawn(self._end_all())

    async def _end_all(self) -> None:
        """Ends the intents that name orders whose end is known. One that is in a call at this moment is left to its
        call, which knows its own times, and ended right after it; the others do not wait for that call."""
        try:
            while self._known:
                keys = list(self._known)[:ORDERS]
                try:
                    works, left_alone = await self._ledger.claim(keys)
                except (RedisError, OSError):
                    left_alone, works = 1, []
                self._end_works(works, {key: self._known[key][0] for key in keys})
                now_ns = monotonic_ns()
                for key in keys:
                    finish, until_ns = self._known.pop(key)
                    if left_alone and until_ns >= now_ns and not self._carrier.draining:
                        self._known[key] = finish, until_ns  # behind all others
                if left_alone:
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._at_work = False

    def _end_works(self, works: Sequence[Work], ended: dict[str, Finish]) -> None:
        ends: list[End | Move] = []
        for work in works:
            orders = self._carrier.orders(work, work.before)
            told = (ended[key] for key in orders if key in ended)
            finish = next((end for end in told if work.target.may_be(end.reply)), None)
            if finish:
                state = work.before.at_rest(work.fence)
                learn(state, finish.reply)
                event = self._carrier.event(work, state, finish.status, finish.evidence, finish.detail, finish.reply)
                ends.append(End(work, event, state.attempts > 0, True, orders))
            else:
                ends.append(Move(work, work.before.at_rest(work.fence), None))
        if ends:
            self._settle(Outcome(Settlement(None, ends), monotonic_ns(), ended))
