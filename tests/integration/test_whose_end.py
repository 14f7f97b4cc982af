"""Whose end it is: an intent is told the end of its own order, never that of one that bears an id of it as well."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cancelq.contract import Status
from cancelq_worker.simulator import State
from cancelq_worker.venues.bybit import answers
from tests.integration.floor import Floor, floor, spelled, uid_of

pytestmark = pytest.mark.one_server

each_venue = pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
with_client_ids_in_pushes = pytest.mark.parametrize("venue", ["bitget", "bybit"])


async def told_and_true(desk: Floor, intents: list[dict[str, str]], orders: list[str]) -> tuple[list[str], list[str]]:
    """What each intent is told, and what became of its order."""
    (lane,) = desk.lanes
    ids = await desk.send_all(lane, [{"symbol": spelled(lane.venue), **intent} for intent in intents])
    finals = await desk.finals(lane, ids, 60)
    return [finals[id_].status.value for id_ in ids], [str(desk.truth(lane, order)["state"]) for order in orders]


@each_venue
async def test_orders_with_one_label_are_each_cancelled(redis_url: str, venue: str) -> None:
    """Of two ids the order id is used; what stands in the other is no business of ours."""
    async with floor(redis_url, f"{venue}:main") as desk:
        (lane,) = desk.lanes
        orders = [desk.order(lane, state=state) for state in ("live", "cancelled", "filled", *["live"] * 7)]
        intents = [{"order_id": order, "client_order_id": "grid"} for order in orders]
        told, true = await told_and_true(desk, intents, orders)
        assert told == true
        assert set(true) == {"cancelled", "filled"}


@each_venue
async def test_a_client_id_that_was_used_again_is_the_newer_orders(redis_url: str, venue: str) -> None:
    """The older one is named by its order id, whose row teaches its client id."""
    async with floor(redis_url, f"{venue}:main") as desk:
        (lane,) = desk.lanes
        orders = [desk.order(lane, client_id="grid7", state="filled"), desk.order(lane, client_id="grid7")]
        intents = [{"order_id": orders[0]}, {"client_order_id": "grid7"}]
        assert await told_and_true(desk, intents, orders) == (["filled", "cancelled"], ["filled", "cancelled"])


@each_venue
async def test_a_wrong_client_id_beside_an_order_id_harms_nobody(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main") as desk:
        (lane,) = desk.lanes
        orders = [desk.order(lane, client_id="a1"), desk.order(lane, client_id="a2", state="filled")]
        intents = [{"order_id": orders[0], "client_order_id": "a2"}, {"client_order_id": "a2"}]
        assert await told_and_true(desk, intents, orders) == (["cancelled", "filled"], ["cancelled", "filled"])


@each_venue
async def test_a_wrong_pair_does_not_spoil_the_right_one(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main") as desk:
        (lane,) = desk.lanes
        order = desk.order(lane)
        pairs = [spelled(venue, pair) for pair in ("ETH-USDT", "BTC-USDT")]
        wrong, right = await desk.send_all(lane, [{"symbol": pair, "order_id": order} for pair in pairs])
        finals = await desk.finals(lane, [wrong, right], 60)
        assert finals[right].status == Status.cancelled
        assert finals[wrong].status in (Status.cancelled, Status.rejected), "by then it may be over, and is found by id"
        assert desk.truth(lane, order)["state"] == "cancelled"


@with_client_ids_in_pushes
async def test_a_push_of_another_order_with_its_label_ends_nothing(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main", streams=True) as desk:
        await desk.streaming()
        (lane,) = desk.lanes
        other, order = desk.order(lane, client_id="grid7"), desk.order(lane, client_id="grid7")
        at_ms = time.time_ns() // 1_000_000 + 1_500
        fields = {"order_id": order, "client_order_id": "grid7", "not_before_ms": str(at_ms)}
        id_ = await desk.send(lane, symbol=spelled(venue), **fields)
        await desk.until(lambda: desk.admitted(lane, id_))
        desk.simulator.move_order(other, State("filled"), venue=venue, uid=uid_of(lane))
        event = await desk.final(lane, id_, 30)
        assert (event.status, event.order_id) == (Status.cancelled, order)


@with_client_ids_in_pushes
async def test_a_late_push_of_the_order_before_ends_nothing(redis_url: str, venue: str) -> None:
    """The intent names its order by the client id alone, and has learnt the order id by the time the push comes."""
    more: dict[str, Any] = {"stream_delay_ms": 700, "cancel_delay_ms": 300}
    async with floor(redis_url, f"{venue}:main", streams=True, **more) as desk:
        await desk.streaming()
        (lane,) = desk.lanes
        before = desk.order(lane, client_id="grid7")
        desk.simulator.move_order(before, State("filled"), venue=venue, uid=uid_of(lane))
        order = desk.order(lane, client_id="grid7")
        event = await desk.final(lane, await desk.send(lane, symbol=spelled(venue), client_order_id="grid7"))
        assert (event.status, event.order_id) == (Status.cancelled, order)


async def test_an_order_id_that_a_row_does_not_tie_to_the_client_id_is_not_learnt(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row of the batch bears its neighbour's order id and no client id; then one of the two orders fills."""
    read = answers.read_batch

    def crossed(items: Any, body: Any, answer: Any) -> Any:
        rows = body["result"]["list"]
        for row, order_id in zip(rows, [row["orderId"] for row in reversed(rows)], strict=True):
            row["orderId"], row["orderLinkId"] = order_id, ""
        return read(items, body, answer)

    monkeypatch.setattr(answers, "read_batch", crossed)
    async with floor(redis_url, "bybit:main", streams=True, cancel_delay_ms=1000) as desk:
        await desk.streaming()
        (lane,) = desk.lanes
        orders = [desk.order(lane, client_id=client_id) for client_id in ("c0", "c1")]
        ids = await desk.send_all(lane, [{"symbol": "BTCUSDT", "client_order_id": c} for c in ("c0", "c1")])
        await desk.until(lambda: desk.calls(lane, "cancel-batch"))
        desk.simulator.move_order(orders[1], State("filled"), venue="bybit", uid=uid_of(lane))
        finals = await desk.finals(lane, ids, 60)
        assert [finals[id_].status.value for id_ in ids] == ["cancelled", "filled"]
        assert [str(desk.truth(lane, order)["state"]) for order in orders] == ["cancelled", "filled"]
