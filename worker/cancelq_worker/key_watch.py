"""A key that may withdraw is refused, where the venue tells: the lane is held until it has another, or the settings
allow this one.

Asked when a lane is opened and about every hour, as a right can be added later: one small call of each worker that
watches the lane, in turns, which counts in no bucket of a route. While the lane is held for its key nobody asks: the
turn is left to whoever tries the key for an operator's `resume`, who asks then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from cancelq_worker.clocks import monotonic_s
from cancelq_worker.gate import Gate
from cancelq_worker.http import NoAnswer, NotSent
from cancelq_worker.lane_parts import LaneParts
from cancelq_worker.records import Hold
from cancelq_worker.venues.port import KeyRights

log = structlog.get_logger("cancelq.lane")

EVERY_S = 3_600.0
#: After a question that could not be asked or was not answered.
AGAIN_S, AGAIN_MOST_S = 3.0, 300.0
TURN_S = 1.0  # how late a turn may still be used


class KeyWatch:
    """One lane's key under watch. `close` is given the hold that closes the lane."""

    def __init__(self, parts: LaneParts, gate: Gate, close: Callable[[Hold], None]) -> None:
        self._p = parts
        self._gate = gate
        self._close = close
        self._log = log.bind(lane=str(parts.plan.lane))

    async def serve(self) -> None:
        """Until cancelled, or at once where nothing is to be asked."""
        if not self._gate.minds_rights:
            return
        again_s = AGAIN_S
        while True:
            rights = await self.ask()
            if rights is None:
                await asyncio.sleep(again_s * random.uniform(0.5, 1.5))
                again_s = min(2 * again_s, AGAIN_MOST_S)
                continue
            if rights.withdraw:
                self._refuse()
            again_s = AGAIN_S
            await asyncio.sleep(EVERY_S * random.uniform(0.9, 1.1))

    async def ask(self) -> KeyRights | None:
        """None if it is another's turn, the key is refused anyhow, or the venue does not say."""
        try:
            if await self._p.ledger.key_refused():
                return None
            begun_s = monotonic_s()
            if not await self._p.ledger.may_ask_rights() or monotonic_s() - begun_s > TURN_S:
                return None  # or this process stood still, and its turn may be over
            return await self._gate.key_rights()
        except (NotSent, NoAnswer, RedisError, OSError) as error:
            self._log.info("what the key may do could not be asked", why=str(error)[:200])
            return None

    def _refuse(self) -> None:
        lane = self._p.plan.lane
        self._log.error("the key may withdraw: the lane is held, its intents are kept", remedy=remedy(str(lane)))
        self._close(Hold("*", "auth", -1, f"the key may withdraw; {remedy(str(lane))}"))


def remedy(lane: str) -> str:
    """What to do about a key that may withdraw."""
    return f"make one that may only read and trade spot (or set allow_withdraw_key), then: cancelq resume {lane}"
