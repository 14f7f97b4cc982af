"""The private order streams: a push settles at once and spares the look-ups; a lost one costs nothing but a look-up."""

from __future__ import annotations

import logging
import re
import sys
import time
from itertools import pairwise

import pytest

from cancelq.contract import VENUES, Lane, Status
from cancelq_worker import logs
from cancelq_worker.simulator import State
from tests.integration.floor import Floor, floor, spelled, uid_of

pytestmark = pytest.mark.one_server

LOOKS = ("orderInfo", "history", "unfilled", "realtime", "query", "openOrders")


def looks(desk: Floor, lane: Lane) -> list[str]:
    """Endpoints by which orders of the lane were looked up."""
    called = [str(c["endpoint"]) for c in desk.calls(lane)]
    return [name for name in called if name != "query-api" and any(look in name for look in LOOKS)]


@pytest.mark.parametrize("venue", VENUES)
async def test_a_push_settles_at_once_and_spares_every_look_up(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main", streams=True, cancel_delay_ms=200) as desk:
        (lane,) = desk.lanes
        await desk.streaming()
        symbol = spelled(venue)
        orders = [desk.order(lane) for _ in range(12)]
        ids = await desk.send_all(lane, [{"symbol": symbol, "order_id": order} for order in orders])
        for event in (await desk.finals(lane, ids)).values():
            assert (event.status, event.evidence) == (Status.cancelled, "stream")
            assert event.sent_us
            assert event.answered_us
            assert event.batch_id
        assert looks(desk, lane) == []
        assert desk.refused() == 0
        assert [key async for key in desk.client.scan_iter(lane.key("sorted:*"))] == []


@pytest.mark.parametrize("venue", VENUES)
async def test_an_order_that_fills_before_its_cancel_is_sent_is_told_by_the_push(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main", streams=True) as desk:
        (lane,) = desk.lanes
        await desk.streaming()
        order = desk.order(lane)
        late = str(time.time_ns() // 1_000_000 + 3_600_000)  # far from due, so that nothing of it is sent
        id_ = await desk.send(lane, symbol=spelled(venue), order_id=order, not_before_ms=late)
        await desk.until(lambda: desk.admitted(lane, id_))
        desk.simulator.move_order(order, State.filled, venue=venue, uid=uid_of(lane))
        event = await desk.final(lane, id_)
        assert (event.status, event.evidence, event.attempt) == (Status.filled, "stream", 0)
        assert event.filled
        assert desk.calls(lane, "cancel") == []


async def test_pushes_of_several_orders_at_once_end_each_its_own(redis_url: str) -> None:
    """Some fill and some are cancelled by somebody else, all within one moment."""
    async with floor(redis_url, "bitget:main", streams=True) as desk:
        (lane,) = desk.lanes
        await desk.streaming()
        orders = [desk.order(lane) for _ in range(40)]
        late = str(time.time_ns() // 1_000_000 + 3_600_000)
        ids = await desk.send_all(lane, [{"symbol": "BTCUSDT", "order_id": o, "not_before_ms": late} for o in orders])
        await desk.until(lambda: desk.admitted(lane, ids[-1]))
        ends = [State.filled if n % 2 else State.cancelled for n in range(len(orders))]
        for order, end in zip(orders, ends, strict=True):
            desk.simulator.move_order(order, end, venue="bitget", uid=uid_of(lane))
        finals = await desk.finals(lane, ids)
        assert [finals[id_].status.value for id_ in ids] == [end.value for end in ends]


@pytest.mark.parametrize("venue", VENUES)
async def test_lost_late_repeated_foreign_and_garbled_pushes_change_no_outcome(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main", streams=True, cancel_delay_ms=100, race_fill=0.3) as desk:
        wild = {"stream_loss": 0.4, "stream_jitter_ms": 300, "stream_repeat": 0.3, "stream_foreign": 0.3}
        desk.simulator.configure({**wild, "stream_garbage": 0.2})
        (lane,) = desk.lanes
        await desk.streaming()
        orders = [desk.order(lane) for _ in range(30)]
        ids = await desk.send_all(lane, [{"symbol": spelled(venue), "order_id": order} for order in orders])
        finals = await desk.finals(lane, ids)
        for id_, order in zip(ids, orders, strict=True):
            assert finals[id_].status.value == desk.truth(lane, order)["state"]
        assert {event.evidence for event in finals.values()} <= {"stream", "query", "reply"}
        assert "query" in {event.evidence for event in finals.values()} or venue == "bingx"


@pytest.mark.parametrize("venue", VENUES)
async def test_a_stream_that_breaks_is_opened_again(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main", streams=True, cancel_delay_ms=100) as desk:
        (lane,) = desk.lanes
        await desk.streaming()
        for _ in range(2):
            desk.simulator.drop_streams()
            order = desk.order(lane)
            event = await desk.final(lane, await desk.send(lane, symbol=spelled(venue), order_id=order))
            assert event.status == Status.cancelled
            await desk.streaming()


async def test_a_refused_stream_leaves_everything_to_look_ups(redis_url: str) -> None:
    async with floor(redis_url, "bitget:main", streams=True, stream_refuse_logins=True) as desk:
        (lane,) = desk.lanes
        order = desk.order(lane)
        event = await desk.final(lane, await desk.send(lane, symbol="BTCUSDT", order_id=order))
        assert (event.status, event.evidence) == (Status.cancelled, "query")
        assert not await desk.client.exists(lane.key("stream"))


async def test_a_listen_key_is_asked_for_once_a_second_whoever_asks(redis_url: str) -> None:
    """BingX answers two a second; a stream that breaks at once must not lead to the next at once, by any worker."""
    async with floor(redis_url, "bingx:main", workers=3, streams=True) as desk:
        (lane,) = desk.lanes
        await desk.streaming()
        for asked in range(2, 5):
            await desk.until(lambda: len(desk.simulator.streams.report()["streams"]) == 1)
            desk.simulator.drop_streams()
            await desk.until(lambda: len(desk.calls(lane, "userDataStream")) >= asked)  # noqa: B023
        at_ms = [int(call["at_us"]) // 1000 for call in desk.calls(lane, "userDataStream")]
        assert all(later - earlier >= 900 for earlier, later in pairwise(at_ms)), at_ms
        assert desk.refused() == 0


async def test_one_worker_holds_the_stream_and_the_next_one_takes_it_over(redis_url: str) -> None:
    async with floor(redis_url, "bitget:main", workers=2, streams=True, cancel_delay_ms=100) as desk:
        (lane,) = desk.lanes
        await desk.streaming()
        assert len(desk.simulator.streams.report()["streams"]) == 1
        holder = await desk.get(lane.key("stream"))
        await desk.stop_one(holder)

        async def held_by_another() -> bool:
            return await desk.get(lane.key("stream")) not in ("", holder)

        await desk.until(held_by_another)
        order = desk.order(lane)
        event = await desk.final(lane, await desk.send(lane, symbol="BTCUSDT", order_id=order))
        assert (event.status, event.evidence) == (Status.cancelled, "stream")


async def test_neither_listen_key_nor_signature_is_logged(redis_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure(sys.stderr, level=logging.DEBUG)
    async with floor(redis_url, "bingx:main", streams=True) as desk:
        (lane,) = desk.lanes
        await desk.streaming()
        desk.simulator.drop_streams()
        await desk.until(lambda: len(desk.calls(lane, "userDataStream")) >= 2)
        await desk.streaming()
        desk.simulator.configure({"stream_refuse_logins": True})
        desk.simulator.drop_streams()
        await desk.until(lambda: len(desk.calls(lane, "userDataStream")) >= 3)
    seen = "".join(capfd.readouterr())
    assert "order stream" in seen
    assert not re.findall("[0-9a-f]{64}", seen), "a listen key or a signature"
