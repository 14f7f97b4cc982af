"""What the venue did, times what the worker saw: the final event is always the truth."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from cancelq.contract import Status
from tests.integration.rig import UNCLEAR, desk

pytestmark = pytest.mark.one_server

FAULTS = (
    *UNCLEAR,
    "code:43001",
    "code:45024",
)


@pytest.mark.parametrize("orders", [1, 5])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_unclear_answer_never_becomes_an_outcome_by_itself(redis_url: str, fault: str, orders: int) -> None:
    async with desk(redis_url) as rig:
        endpoint = "cancel-order" if orders == 1 else "batch-cancel-order"
        ids = [rig.order() for _ in range(orders)]
        await rig.ready()
        rig.fault(fault, endpoint=endpoint)
        intents = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order_id} for order_id in ids])
        finals = await rig.finals(intents)
        for intent, order_id in zip(intents, ids, strict=True):
            event, truth = finals[intent], rig.truth(order_id)
            assert event.status == Status.cancelled, event
            assert event.evidence == "query"
            assert truth["state"] == "cancelled"
        assert rig.refused() == 0


@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
@pytest.mark.parametrize("fault", ["http_500", "http_500_executed"])
async def test_after_an_outage_many_orders_are_looked_for_on_few_pages(redis_url: str, fault: str, by: str) -> None:
    """Whether they are open still or closed: looked for one by one, at twenty a second, they would be late."""
    async with desk(redis_url) as rig:
        client_ids = [f"mine-{n}" for n in range(300)]
        ids = [rig.order(client_id=client_id) for client_id in client_ids]
        await rig.ready()
        rig.fault(fault, endpoint="batch-cancel-order", count=6)
        intents = await rig.send_all(
            [{"symbol": "BTCUSDT", by: name} for name in (ids if by == "order_id" else client_ids)]
        )
        finals = await rig.finals(intents)
        assert {event.status for event in finals.values()} == {Status.cancelled}
        looks = ("orderInfo", "history-orders", "unfilled-orders")
        calls = [call for call in rig.simulator.calls().entries if call["endpoint"] in looks]
        assert len(calls) < 150, len(calls)
        assert rig.refused() == 0
        assert [key async for key in rig.client.scan_iter(rig.lane.key("sorted:*"))] == []


async def test_nothing_is_left_of_orders_that_were_confirmed_alone(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        for _ in range(5):
            await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        await rig.finals(await rig.send_all([{"symbol": "BTCUSDT", "order_id": rig.order()} for _ in range(60)]))
        assert [key async for key in rig.client.scan_iter(rig.lane.key("sorted:*"))] == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [("cancelled", Status.cancelled), ("filled", Status.filled), ("partially_filled", Status.cancelled)],
)
@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
async def test_the_end_an_order_had_is_told(redis_url: str, state: str, expected: Status, by: str) -> None:
    async with desk(redis_url) as rig:
        order_id = rig.order(state=state, client_id="mine-1")
        event = await rig.final(await rig.send(symbol="BTCUSDT", **{by: order_id if by == "order_id" else "mine-1"}))
        assert event.status == expected
        assert event.order_id == order_id
        assert rig.truth(order_id)["state"] == expected.value
        assert (event.filled is not None) == (state != "cancelled")


async def test_an_unknown_order_is_not_found_only_after_every_place_was_read(redis_url: str) -> None:
    async with desk(redis_url, env={"CANCELQ_LOOKUP_BUDGET_MS": "1500"}) as rig:
        by_id = await rig.send(symbol="BTCUSDT", order_id="1234567890123456789")
        by_client = await rig.send(symbol="BTCUSDT", client_order_id="nobody")
        finals = await rig.finals([by_id, by_client])
        assert {e.status for e in finals.values()} == {Status.not_found}
        assert all(e.evidence == "query" for e in finals.values())
        asked = {row["endpoint"].rsplit("/", 1)[-1] for row in rig.simulator.calls().entries}
        assert {"orderInfo", "history-orders", "unfilled-orders"} <= asked


async def test_a_client_id_past_the_venues_two_hours_is_found_by_walking(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        now_ms = time.time_ns() // 1_000_000
        old = rig.order(state="cancelled", client_id="old-1", created_ms=now_ms - 3 * 3_600_000)
        for n in range(230):
            rig.order(state="filled", client_id=f"between-{n}")
        event = await rig.final(await rig.send(symbol="BTCUSDT", client_order_id="old-1"))
        assert event.status == Status.cancelled
        assert event.order_id == old


@pytest.mark.parametrize("scope", ["tpsl", "stop"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("live", Status.cancelled), ("cancelled", Status.cancelled), ("triggered", Status.triggered)],
)
async def test_orders_of_other_kinds(redis_url: str, scope: str, state: str, expected: Status) -> None:
    async with desk(redis_url) as rig:
        kind = "tpsl" if scope == "tpsl" else "plan"
        order_id = rig.order(kind=kind, state=state)
        event = await rig.final(await rig.send(scope=scope, order_id=order_id))
        assert event.status == expected


@pytest.mark.parametrize(
    ("said", "right"),
    [("order", "tpsl"), ("order", "stop"), ("tpsl", "order"), ("tpsl", "stop"), ("stop", "order"), ("stop", "tpsl")],
)
async def test_a_live_order_of_another_kind_is_not_called_unknown(redis_url: str, said: str, right: str) -> None:
    async with desk(redis_url, env={"CANCELQ_LOOKUP_BUDGET_MS": "1500"}) as rig:
        order_id = rig.order(kind="plan" if right == "stop" else right)
        event = await rig.final(await rig.send(scope=said, symbol="BTCUSDT", order_id=order_id))
        assert event.status == Status.rejected
        assert event.detail is not None
        assert f"send it with scope {right}" in event.detail
        assert rig.truth(order_id)["state"] == "live"


async def test_a_pair_whose_lists_cannot_be_read_is_looked_for_by_id(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        meant, wrong = rig.order(), rig.order()
        await rig.ready()
        rig.fault("drop", endpoint="batch-cancel-order")
        rig.fault("drop", endpoint="cancel-order")
        asked = [{"symbol": "BTCUSDT", "order_id": meant}, {"symbol": "NOSUCHUSDT", "order_id": wrong}]
        first, second = await rig.send_all(asked)
        finals = await rig.finals([first, second], within_s=20.0)
        assert finals[first].status is Status.cancelled
        assert finals[second].status is Status.rejected
        assert rig.truth(wrong)["state"] == "live"


async def test_a_cancel_that_loses_the_race_is_told_as_filled(redis_url: str) -> None:
    async with desk(redis_url, cancel_delay_ms=120, race_fill=1.0) as rig:
        ids = [rig.order() for _ in range(20)]
        intents = {await rig.send(symbol="BTCUSDT", order_id=i): i for i in ids}
        for intent, event in (await rig.finals(list(intents))).items():
            assert event.status == Status.filled
            assert rig.truth(intents[intent])["state"] == "filled"


async def test_lists_that_lag_only_delay(redis_url: str) -> None:
    async with desk(redis_url, cancel_delay_ms=200, history_lag_ms=700, open_lag_ms=700, info_lag_ms=300) as rig:
        ids = [rig.order() for _ in range(30)]
        intents = [await rig.send(symbol="BTCUSDT", order_id=i) for i in ids]
        finals = await rig.finals(intents)
        assert {e.status for e in finals.values()} == {Status.cancelled}


async def test_an_order_the_venue_will_not_cancel_is_unresolved_aloud(redis_url: str) -> None:
    env = {"CANCELQ_MAX_ATTEMPTS": "2"}
    with capture_logs() as said:
        async with desk(redis_url, env=env) as rig:
            order_id = rig.order()
            rig.simulator.configure({"stuck_ids": [order_id]})
            event = await rig.final(await rig.send(id="stuck", symbol="BTCUSDT", order_id=order_id))
            assert event.status == Status.unresolved
            assert event.attempt == 2
            assert rig.truth(order_id)["state"] == "live"
    aloud = [row for row in said if row["log_level"] == "error" and row["event"].startswith("unresolved")]
    assert [row["id"] for row in aloud] == ["stuck"]


async def test_a_pair_is_emptied_and_its_newer_orders_are_left_alone(redis_url: str) -> None:
    async with desk(redis_url, symbol_cancel_miss=0.5) as rig:
        mine = [rig.order(symbol="ETHUSDT") for _ in range(130)]
        other = rig.order(symbol="SOLUSDT")
        event = await rig.final(await rig.send(scope="symbol", symbol="ETHUSDT"))
        assert event.status == Status.cancelled
        assert event.open_orders == 0
        assert {rig.truth(i)["state"] for i in mine} == {"cancelled"}
        assert rig.truth(other)["state"] == "live"
        bulk = [c for c in rig.simulator.calls().entries if c["endpoint"].endswith("cancel-symbol-order")]
        assert len(bulk) == 1
        assert rig.refused() == 0


async def test_an_account_is_swept_by_kind_prefix_and_age(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        mm = [rig.order(client_id=f"mm-{n}") for n in range(60)]
        other = rig.order(client_id="hand-1")
        event = await rig.final(await rig.send(scope="account", client_prefix="mm-"))
        assert event.status == Status.cancelled
        assert {rig.truth(i)["state"] for i in mm} == {"cancelled"}
        assert rig.truth(other)["state"] == "live"
        tpsl, plan = rig.order(kind="tpsl"), rig.order(kind="plan", symbol="ETHUSDT")
        event = await rig.final(await rig.send(scope="account", kinds="tpsl,stop"))
        assert event.status == Status.cancelled
        assert rig.truth(tpsl)["state"] == rig.truth(plan)["state"] == "cancelled"
        assert rig.truth(other)["state"] == "live"
        assert not [c for c in rig.simulator.calls().entries if c["endpoint"].endswith("cancel-symbol-order")]


async def test_a_client_id_that_a_query_would_change_is_still_found(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        order_id = rig.order(state="filled", client_id="mm#1+a")
        event = await rig.final(await rig.send(symbol="BTCUSDT", client_order_id="mm#1+a"))
        assert event.status == Status.filled
        assert event.order_id == order_id
