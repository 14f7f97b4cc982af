"""BingX lanes that heard many equal errors: its lock is never reached, and what is live is still cancelled."""

from __future__ import annotations

import time

import pytest

from cancelq.contract import Lane, Status
from cancelq_worker import operate
from cancelq_worker.state import State
from cancelq_worker.trips import command
from tests.integration.floor import Floor, floor
from tests.integration.lone_ledger import make_suspect

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(180)]

ENV = {"CANCELQ_LOOKUP_BUDGET_MS": "2000"}
PAIR = "BTC-USDT"


async def hear_errors(desk: Floor, lane: Lane, many: int) -> None:
    """Cancels of orders that never existed, one after the other, until `cancel` and `query` have errors enough."""
    for n in range(many):
        id_ = await desk.send(lane, symbol=PAIR, order_id=str(1_400_000_000_000_000_000 + n))
        assert (await desk.final(lane, id_)).status == Status.not_found


async def steady_us(desk: Floor, lane: Lane) -> int:
    """The lane's steady clock."""
    return int((await desk.get(lane.key("clock"))).split()[1])


async def remember_errors(desk: Floor, lane: Lane) -> None:
    """The same, as a lane remembers it: eight of one code at `cancel` and at `query`."""
    await desk.until(lambda: desk.get(lane.key("clock")))
    steady = await steady_us(desk, lane)
    for bucket in ("cancel", "query"):
        rows = [word for n in range(8) for word in (str(steady), f"100404 x-{n}")]
        await command(desk.client, "ZADD", lane.key(f"errors:{bucket}"), *rows)


async def long_history(desk: Floor, lane: Lane) -> None:
    """Thirteen pages of it, and endpoints that are closed by equal errors."""
    await remember_errors(desk, lane)
    for _ in range(1_250):
        desk.order(lane, state="filled")


def never_were(many: int) -> list[dict[str, str]]:
    """Cancels of orders that the venue never had."""
    return [{"symbol": PAIR, "order_id": str(1_400_000_000_000_000_000 + n)} for n in range(many)]


async def all_trusted(desk: Floor, lane: Lane, ids: list[str]) -> bool:
    """Whether a look has passed of each of these suspects, so that the next ones go in company."""
    lines = await command(desk.client, "HMGET", lane.key("state"), *ids)
    return all("trust" in State.parse(line).notes for line in lines)


def equal_errors(desk: Floor, lane: Lane) -> int:
    """The most calls of one endpoint that ended in one code."""
    seen: dict[tuple[str, str], int] = {}
    for call in desk.calls(lane):
        if call["code"] not in ("0", "100410"):
            seen[call["endpoint"], call["code"]] = seen.get((call["endpoint"], call["code"]), 0) + 1
    return max(seen.values(), default=0)


@pytest.mark.parametrize("listed", [True, False], ids=["lists tell client ids", "lists do not"])
async def test_live_orders_named_by_client_id_are_cancelled_all_the_same(redis_url: str, listed: bool) -> None:
    async with floor(redis_url, "bingx:main", env=ENV, bingx_list_client_ids=listed) as desk:
        (lane,) = desk.lanes
        await (remember_errors(desk, lane) if listed else hear_errors(desk, lane, 9))
        orders = [desk.order(lane, client_id=f"live{n}") for n in range(12)]
        stop = desk.order(lane, "stop", client_id="trigger1")
        entries = [{"symbol": PAIR, "client_order_id": f"live{n}"} for n in range(12)]
        entries.append({"scope": "stop", "symbol": PAIR, "client_order_id": "trigger1"})
        ids = await desk.send_all(lane, entries)
        finals = await desk.finals(lane, ids)
        assert {event.status for event in finals.values()} == {Status.cancelled}
        assert [finals[id_].order_id for id_ in ids] == [*orders, stop]
        assert equal_errors(desk, lane) < 20
        assert not [c for c in desk.calls(lane) if c["refused"]]


@pytest.mark.parametrize("state", ["filled", "cancelled"])
async def test_an_ended_order_named_by_client_id_is_found_in_the_history(redis_url: str, state: str) -> None:
    async with floor(redis_url, "bingx:main", env=ENV) as desk:
        (lane,) = desk.lanes
        await remember_errors(desk, lane)
        made_ms = time.time_ns() // 1_000_000 - 60_000
        order = desk.order(lane, state=state, client_id="ended1", created_ms=made_ms)
        event = await desk.final(lane, await desk.send(lane, symbol=PAIR, client_order_id="ended1"))
        assert (event.status.value, event.order_id) == (state, order)


async def test_orders_deep_in_a_long_history_share_its_pages(redis_url: str) -> None:
    """Each by itself, forty orders that never existed would take forty times thirteen pages, twice."""
    async with floor(redis_url, "bingx:main", env=ENV) as desk:
        (lane,) = desk.lanes
        await long_history(desk, lane)
        finals = await desk.finals(lane, await desk.send_all(lane, never_were(40)), 60)
        assert {event.status for event in finals.values()} == {Status.not_found}
        assert len(desk.calls(lane, "historyOrders")) < 8 * 13
        assert equal_errors(desk, lane) < 20


async def test_suspects_deep_in_a_long_history_share_its_pages_once_a_look_has_passed(redis_url: str) -> None:
    """Alone to the end, each would take thirteen pages, twice, one of them at a time: forty times thirteen."""
    async with floor(redis_url, "bingx:main", env=ENV) as desk:
        (lane,) = desk.lanes
        await long_history(desk, lane)
        await operate.pause(desk.client, lane, "test")
        ids = await desk.send_all(lane, never_were(20))
        for id_ in ids:
            await desk.until(lambda id_=id_: desk.admitted(lane, id_))
            await make_suspect(desk.client, lane, id_)
        # Whoever comes when all others have walked can share no page with them: so nobody walks until all can.
        closed, till = "historyOrders|test", await steady_us(desk, lane) + 60_000_000
        await command(desk.client, "HSET", lane.key("hold"), closed, f"{till} test")
        await desk.resume(lane)
        await desk.until(lambda: all_trusted(desk, lane, ids))
        await command(desk.client, "HDEL", lane.key("hold"), closed)
        finals = await desk.finals(lane, ids, 60)
        assert {event.status for event in finals.values()} == {Status.not_found}
        assert len(desk.calls(lane, "historyOrders")) < 8 * 13
        assert equal_errors(desk, lane) < 20


async def test_what_cannot_be_told_is_said_soon(redis_url: str) -> None:
    """Neither lists nor a closed query tell an ended order by its client id."""
    async with floor(redis_url, "bingx:main", env=ENV, bingx_list_client_ids=False) as desk:
        (lane,) = desk.lanes
        await remember_errors(desk, lane)
        desk.order(lane)
        desk.order(lane, state="filled", client_id="ended2")
        event = await desk.final(lane, await desk.send(lane, symbol=PAIR, client_order_id="ended2"))
        assert event.status == Status.unresolved
        assert event.detail
        assert "do not tell client ids" in event.detail
        assert (event.lookups or 0) <= 10
