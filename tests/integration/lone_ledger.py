"""An inbox and a ledger for tests of single steps, without anybody who serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import redis.asyncio as aioredis
from pydantic import SecretStr

from cancelq.contract import Lane
from cancelq_worker.intake import Intake
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import Admitted, LanePlan, RoundRequest, Taken, TakeRequest
from cancelq_worker.state import ALONE, SUSPECT_STRIKES, State
from cancelq_worker.trips import RawEntry, command, connect
from cancelq_worker.trips import read_entries as entries_of
from cancelq_worker.venues.bitget.adapter import Bitget
from cancelq_worker.venues.bitget.signing import Credentials
from tests.integration.rig import LANE

SECRET = SecretStr("test")


async def make_suspect(client: aioredis.Redis, lane: Lane, id_: str) -> None:
    """As if two workers had ended with an admitted intent."""
    state = State.parse(await command(client, "HGET", lane.key("state"), id_))
    state.strikes, state.cap = SUSPECT_STRIKES, ALONE
    await command(client, "HSET", lane.key("state"), id_, state.pack())


class Desk:
    """An inbox and a ledger, without anybody who serves them."""

    def __init__(self, client: aioredis.Redis) -> None:
        venue = Bitget(Credentials(SECRET, SECRET, SECRET))
        plan = LanePlan(
            lane=LANE, routes=venue.routes, buckets=venue.buckets, lease_us=5_000_000, gap_us=0, urgent_reserve=1
        )
        self.client = client
        self.ledger = RedisLedger(client, plan)
        self.intake = Intake(LANE, venue, "w1")

    async def add(self, **fields: str) -> str:
        flat = [word for pair in fields.items() for word in pair]
        return str((await command(self.client, "XADD", LANE.inbox, "*", *flat)).decode())

    async def read(self, after: str = "0-0") -> list[RawEntry]:
        return entries_of(await command(self.client, "XREAD", "STREAMS", LANE.inbox, after)).get(LANE.inbox, [])

    async def overtake(self, entries: list[RawEntry]) -> Admitted:
        reply = await self.ledger.round(RoundRequest(overtaking=self.intake.overtake(entries)))
        assert isinstance(reply.overtook, Admitted)
        return reply.overtook

    async def admit(self, entries: list[RawEntry], overtaken: tuple[str, ...] | None = None) -> Admitted:
        cursor = await self.ledger.cursor()
        reply = await self.ledger.round(RoundRequest(admission=self.intake.prepare(cursor, entries, overtaken or ())))
        assert isinstance(reply.admitted, Admitted)
        return reply.admitted

    async def intents(self) -> list[str]:
        return sorted(key.decode() for key in await cast("Any", self.client.hkeys(LANE.key("intents"))))

    async def take(self, batch_id: str) -> Taken:
        reply = await self.ledger.round(RoundRequest(takes=[TakeRequest("c", batch_id)]))
        (taken,) = reply.taken
        assert isinstance(taken, Taken)
        return taken


@asynccontextmanager
async def lone_desk(redis_url: str) -> AsyncIterator[Desk]:
    """A lane that is open, and served by nobody."""
    client = connect(redis_url)
    client.response_callbacks.pop("XREAD", None)
    desk = Desk(client)
    await desk.ledger.open()
    try:
        yield desk
    finally:
        await client.aclose()
