"""Tries the key of a lane that is held because it was refused, for whoever resumes it: one harmless signed read shows
whether it works again, and another what it may do.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from redis.exceptions import RedisError

from cancelq_worker.clocks import monotonic_ns
from cancelq_worker.gate import Gate
from cancelq_worker.http import Exchange, NoAnswer, NotSent
from cancelq_worker.lane_parts import LaneParts
from cancelq_worker.records import KEY_WORKS, KeyTried, KeyWord, PermitUse, RoundRequest, Settlement
from cancelq_worker.repeating import discreet
from cancelq_worker.venues.port import Word

log = structlog.get_logger("cancelq.lane")

RIGHTS_TRIES, RIGHTS_PAUSE_S = 28, 0.25  # until it is our turn to ask what the key may do
PERMIT_TRIES, PERMIT_PAUSE_S = 30, 0.1  # until there is a permit for the read


class _NoPermit(NotSent):
    """The bucket had no permit in time."""


class KeyTrial:
    """One lane's key, tried on demand."""

    def __init__(self, parts: LaneParts, gate: Gate) -> None:
        self._p = parts
        self._gate = gate
        self._log = log.bind(lane=str(parts.plan.lane))

    async def on_demand(self) -> None:
        """An operator wants the lane resumed: one harmless signed read shows whether the key works again. What came of
        it is told to whoever asked."""
        asked = await self._p.ledger.take_probe()
        if not asked:
            return
        tried = await self.try_key()
        if tried.what is KeyWord.WORKS:
            self._gate.key_works()
            await self._p.ledger.lift("auth")
            self._log.info("the key works: the lane is open")
        else:
            self._log.error("the lane stays held", why=tried.why)
        await self._p.ledger.answer_probe(asked, tried)

    async def try_key(self) -> KeyTried:
        await self._gate.read_venue_time(paced=False)
        try:
            exchange = await self._probe_call()
        except (NotSent, NoAnswer) as error:
            self._log.error("the key could not be tried", why=str(error))
            no_permit = isinstance(error, _NoPermit)
            return KeyTried(KeyWord.UNTRIED, str(error) if no_permit else "the venue did not answer")
        reply = discreet(self._p.venue.read_probe(exchange.answer), exchange.answer)
        if reply.word is Word.OPEN:
            return await self._try_rights()
        said = f"{reply.code} {reply.text}".strip()[:240]
        refused = reply.word is Word.ACCOUNT
        return KeyTried(KeyWord.REFUSED if refused else KeyWord.UNTRIED, said or f"HTTP {exchange.answer.status}")

    async def _probe_call(self) -> Exchange:
        """The read that tries the key, with a permit: others may have been spent just before the lane was held, and are
        once it is open. Raises NotSent, NoAnswer."""
        venue, ledger = self._p.venue, self._p.ledger
        route = next(route for route in self._p.plan.routes if route.name == venue.probe_route)
        bucket = next(bucket for bucket in self._p.plan.buckets if bucket.name == route.bucket)
        member = f"{self._p.tag}-key-{monotonic_ns():x}"
        for _ in range(PERMIT_TRIES):
            if (wait_us := await ledger.permit(bucket, member)) is not None:
                break
            await asyncio.sleep(PERMIT_PAUSE_S)
        else:
            raise _NoPermit(f"the venue's limit of {bucket.name} left no call for it")
        await asyncio.sleep(wait_us / 1e6)
        signed = venue.sign(venue.probe_request(), self._p.venue_clock.now_us() // 1000)
        how, ended_ns, rtt_us = "n", 0, 0
        try:
            exchange = await self._gate.aside(self._p.look_door, signed, total_s=self._p.total_s, address=route.address)
            refused = venue.read_probe(exchange.answer).word is Word.REFUSED
            how, ended_ns = "r" if refused else "a", exchange.answered_ns
            rtt_us = (exchange.answered_ns - exchange.sent_ns) // 1000
            return exchange
        except NotSent:
            how = "u"
            raise
        finally:
            ago_us = (monotonic_ns() - ended_ns) // 1000 if ended_ns else 0
            use = PermitUse(bucket, 1, member, how, ago_us=ago_us, rtt_us=rtt_us)
            with contextlib.suppress(RedisError, OSError):  # else it is in use for as long as a call could live
                await ledger.round(RoundRequest([Settlement(use, [])]))

    async def _try_rights(self) -> KeyTried:
        """Of a key that reads: whether it may trade, and must not be refused as it may withdraw, where the venue tells
        now. What it does not tell is asked again within the hour."""
        if self._p.venue.rights_request() is None:
            return KEY_WORKS
        for _ in range(RIGHTS_TRIES):
            if await self._p.ledger.may_ask_rights():
                break
            await asyncio.sleep(RIGHTS_PAUSE_S)
        else:
            return KeyTried(KeyWord.UNTRIED, "it was not our turn to ask what the key may do")
        try:
            rights = await self._gate.key_rights()
        except (NotSent, NoAnswer):
            return KEY_WORKS
        if rights and rights.trade is False:
            return KeyTried(KeyWord.REFUSED, "the key may not trade spot")
        if rights and rights.withdraw and self._gate.minds_rights:
            return KeyTried(KeyWord.REFUSED, "the key may withdraw, and the settings do not allow it")
        return KEY_WORKS
