"""What is remembered of settled ids: found again however many there are, for as long as was asked, in few bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any, cast

import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr

from cancelq_worker.ledger import RedisLedger, memory_key
from cancelq_worker.records import Admission, Admitted, LanePlan, NewOutcome, RoundRequest
from cancelq_worker.trips import connect
from cancelq_worker.venues.bitget.adapter import Bitget
from cancelq_worker.venues.bitget.signing import Credentials
from tests.integration.rig import LANE

SECRET = SecretStr("test")
DIGEST = "0123abcd"
HOURS = 24
A_CALL = 250


class Book:
    """A lane's ledger that is told of ids whose outcome is known."""

    def __init__(self, client: aioredis.Redis) -> None:
        venue = Bitget(Credentials(SECRET, SECRET, SECRET))
        plan = LanePlan(
            lane=LANE, routes=venue.routes, buckets=venue.buckets, lease_us=5_000_000, gap_us=0, urgent_reserve=1
        )
        self.client = client
        self.ledger = RedisLedger(client, plan)
        self._entries = count(1)

    async def known(self, ids: Sequence[str], digest: str = DIGEST) -> int:
        """Admits refused entries with these ids; how many of them were known already. All are from now on."""
        known = 0
        for first in range(0, len(ids), A_CALL):
            part = ids[first : first + A_CALL]
            entries = [f"1-{next(self._entries)}" for _ in part]
            items = [NewOutcome(id_, "1-1", digest, _told(id_)) for id_ in part]
            admission = Admission(await self.ledger.cursor(), entries[0], entries[-1], items)
            reply = await self.ledger.round(RoundRequest(admission=admission))
            assert isinstance(reply.admitted, Admitted)
            assert reply.admitted.applied
            known += reply.admitted.duplicates
        return known

    async def buckets(self) -> list[str]:
        return [key.decode() async for key in self.client.scan_iter(match=LANE.key("ids:*"), count=1_000)]

    async def remembered(self) -> int:
        """Ids that are there, by the count that the scripts keep, which is held against the buckets."""
        value = await cast("Any", self.client.get(LANE.key("ids")))
        there: int = sum([await cast("Any", self.client.hlen(key)) for key in await self.buckets()])
        assert int(value.split()[0]) == there
        return there

    async def age(self, hours: int) -> None:
        """As if everything had been remembered that much earlier."""
        for key in await self.buckets():
            for id_key, value in (await cast("Any", self.client.hgetall(key))).items():
                word, hour = value.split()
                await cast("Any", self.client.hset(key, id_key, b"%b %d" % (word, int(hour) - hours)))

    async def trim(self) -> None:
        seconds, _ = await self.client.time()
        await self.ledger.trim(0, HOURS, seconds * 1000)


def _told(id_: str) -> dict[str, str]:
    return {"id": id_, "venue": LANE.venue, "account": LANE.account, "status": "rejected", "queued_us": "1"}


@pytest.fixture
async def book(redis_url: str) -> AsyncIterator[Book]:
    client = connect(redis_url)
    try:
        yield Book(client)
    finally:
        await client.aclose()


@pytest.mark.parametrize("many", [1, 64, 65, 1_000, 5_000])
async def test_every_id_is_found_again_however_many_there_are(book: Book, many: int) -> None:
    ids = [f"o-{n}" for n in range(many)]
    assert await book.known(ids) == 0
    assert await book.known(ids) == many
    assert await book.known([f"p-{n}" for n in range(many)]) == 0
    assert await book.remembered() == 2 * many


async def test_the_server_keeps_them_packed(book: Book) -> None:
    ids = [f"o-{n}" for n in range(5_000)]
    await book.known(ids)
    buckets = await book.buckets()
    encodings = {await cast("Any", book.client.object("encoding", key)) for key in buckets}
    size = sum([await cast("Any", book.client.memory_usage(key, samples=0)) for key in buckets])
    assert encodings == {b"listpack"}
    assert size / len(ids) < 60


async def test_fuller_buckets_of_before_are_split_little_by_little(book: Book) -> None:
    ids = [f"o-{n}" for n in range(2_000)]
    await book.known(ids)
    await _into_fuller_buckets(book)
    before = len(await book.buckets())
    assert before == 16
    assert await book.known(["p-1"]) == 0
    assert len(await book.buckets()) == before + 1
    assert await book.known(ids) == 2_000
    assert await book.known([f"q-{n}" for n in range(100)]) == 0
    assert len(await book.buckets()) == 66
    assert await book.known(ids) == 2_000
    assert await book.remembered() == 2_101


async def _into_fuller_buckets(book: Book) -> None:
    """As a version with 128 ids a bucket would have left them: each id in the bucket of its number's last four bits."""
    for key in await book.buckets():
        kept = await cast("Any", book.client.hgetall(key))
        await book.client.delete(key)
        for id_key, value in kept.items():
            fuller = LANE.key(f"ids:fuller:{id_key[-1] % 16}")
            await cast("Any", book.client.hset(fuller, id_key, value))
    for key in await book.buckets():
        await book.client.rename(key, key.replace("fuller:", ""))
    words = (await cast("Any", book.client.get(LANE.key("ids")))).split()
    await book.client.set(LANE.key("ids"), b" ".join([words[0], b"16", b"0", *words[3:]]))


async def test_an_id_is_known_for_as_long_as_was_asked_and_then_forgotten(book: Book) -> None:
    ids = [f"o-{n}" for n in range(300)]
    await book.known(ids)
    await book.age(HOURS)
    await book.trim()
    assert await book.known(ids) == 300
    await book.age(HOURS + 3)
    assert await book.known(ids[:1]) == 0  # too old to count, whether it was dropped yet or not
    for _ in range(len(await book.buckets()) + 1):
        await book.trim()
    assert await book.remembered() == 1


async def test_a_busy_lane_forgets_while_it_remembers(book: Book) -> None:
    await book.known([f"o-{n}" for n in range(2_000)])
    await book.trim()  # tells for how long
    await book.age(HOURS + 3)
    await book.known([f"p-{n}" for n in range(2_000)])
    assert await book.remembered() == 2_000


async def test_what_was_remembered_in_hours_before_is_known_until_they_are_dropped(book: Book) -> None:
    seconds, _ = await book.client.time()
    for hours_ago in (1, HOURS + 3):
        hour = str(seconds // 3600 - hours_ago)
        key = LANE.key(f"memory:{hour}")
        await cast("Any", book.client.hset(key, memory_key(f"old-{hours_ago}"), f"s{DIGEST}"))
        await book.client.zadd(LANE.key("memory"), {hour: int(hour)})
    assert await book.known(["old-1", f"old-{HOURS + 3}"]) == 2
    await book.trim()
    assert await book.known(["old-1", f"old-{HOURS + 3}"]) == 1
