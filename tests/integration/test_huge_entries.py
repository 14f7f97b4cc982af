"""A backlog of entries that are too large to be read at once stops no lane: they are read fewer at a time, and told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import RedisError

from cancelq.contract import MAX_ENTRY_BYTES, Status
from cancelq_worker.page_size import PageSize
from cancelq_worker.records import RoundRequest, Scanned
from tests.integration.lone_ledger import lone_desk
from tests.integration.rig import desk

pytestmark = pytest.mark.one_server

PIECE = 65_536
BYTES_A_SECOND = 3_000_000


@asynccontextmanager
async def narrow_way(redis_url: str) -> AsyncIterator[str]:
    """To the server; what it answers comes at a steady rate, as over a long line."""
    port = int(redis_url.rsplit(":", 1)[1].partition("/")[0])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)

        async def forth() -> None:
            while piece := await reader.read(PIECE):
                up_writer.write(piece)

        there = asyncio.ensure_future(forth())
        try:
            with contextlib.suppress(OSError):
                while piece := await up_reader.read(PIECE):
                    await asyncio.sleep(len(piece) / BYTES_A_SECOND)
                    writer.write(piece)
                    await writer.drain()
        finally:
            there.cancel()
            up_writer.transport.abort()
            writer.transport.abort()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield redis_url.replace(f":{port}", f":{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()


async def test_a_backlog_that_cannot_be_read_at_once_is_read_bit_by_bit(redis_url: str) -> None:
    """Twelve megabytes, of which a round may carry seven or so."""
    async with narrow_way(redis_url) as narrow, desk(redis_url, workers=0) as rig:
        await rig.client.xgroup_create(rig.lane.inbox, "made", id="$", mkstream=True)
        ids = [await rig.client.xadd(rig.lane.inbox, {"reason": "x" * 1_000_000}) for _ in range(12)]
        huge = [entry.decode() if isinstance(entry, bytes) else entry for entry in ids]
        order = rig.order()
        wanted = await rig.send(symbol="BTCUSDT", order_id=order)
        rig.start(CANCELQ_REDIS_URL=narrow)
        assert (await rig.final(wanted, within_s=90)).status is Status.cancelled
        told = await rig.finals(huge)
        assert {event.status for event in told.values()} == {Status.rejected}
        assert rig.truth(order)["state"] == "cancelled"


async def test_huge_entries_that_say_they_are_urgent_are_not_gathered_ahead(redis_url: str) -> None:
    """Fifty of them were an answer that no round can wait for, again and again until the last one had its turn."""
    async with lone_desk(redis_url) as desk:
        await desk.add(priority="urgent", reason="x" * MAX_ENTRY_BYTES)
        urgent = await desk.add(symbol="BTCUSDT", order_id="11", priority="urgent")
        scanned = (await desk.ledger.round(RoundRequest(scan_after="0-0"))).scanned
        assert isinstance(scanned, Scanned)
        assert [entry_id for entry_id, _ in scanned.urgent] == [scanned.last] == [urgent]


def test_many_lanes_share_what_a_process_holds_down_to_a_page_of_looks_each() -> None:
    page = PageSize(250)
    assert [page.among(lanes) for lanes in (0, 1, 50, 80, 250, 5_000)] == [250, 250, 250, 156, 125, 125]
    page.now = 3
    assert page.among(5_000) == 3


def test_pages_shrink_to_one_and_grow_again() -> None:
    page = PageSize(250)
    sizes = []
    for _ in range(5):
        with contextlib.suppress(RedisError), page.tried():
            raise RedisError
        sizes.append(page.now)
    assert sizes == [62, 15, 3, 1, 1]
    for _ in range(9):
        with page.tried():
            pass
        sizes.append(page.now)
    assert sizes[5:] == [2, 4, 8, 16, 32, 64, 128, 250, 250]
    with contextlib.suppress(ValueError), page.tried():
        raise ValueError
    assert page.now == 250, "what is no failure of the trip does not count"
