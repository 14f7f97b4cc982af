"""BingX: what the venue did, times what the worker saw: the final event is always the truth."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from cancelq.contract import Status
from cancelq_worker import operate
from cancelq_worker.simulator.orders import State
from cancelq_worker.trips import command
from cancelq_worker.venues.bingx.adapter import BATCH
from tests.integration.rig import UNCLEAR, Rig, desk

pytestmark = pytest.mark.one_server

PAIR = "BTC-USDT"
FAULTS = (
    *UNCLEAR,
    "code:100404:order not exist",
    "code:100404:some other text",
    "code:100400:The current system is busy",
    "code:100500:The current system is busy",
    "code:80019:order is being processed",
)
#: Calls that the venue carried out, and whose answer says nothing of any order.
EXECUTED = ("execute_and_drop", "half_body", "http_500_executed", "wrong_ids")


def endpoints(rig: Rig) -> Counter[str]:
    """How often each endpoint was called."""
    return Counter(str(row["endpoint"]).rsplit("/", 1)[-1] for row in rig.simulator.calls().entries)


@pytest.mark.parametrize("orders", [1, 5])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_unclear_answer_never_becomes_an_outcome_by_itself(redis_url: str, fault: str, orders: int) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        ids = [rig.order() for _ in range(orders)]
        await rig.ready()
        rig.fault(fault, endpoint="cancel" if orders == 1 else "cancelOrders")
        intents = await rig.send_all([{"symbol": PAIR, "order_id": order_id} for order_id in ids])
        finals = await rig.finals(intents)
        for intent, order_id in zip(intents, ids, strict=True):
            event, truth = finals[intent], rig.truth(order_id)
            assert event.status == Status.cancelled, event
            assert truth["state"] == "cancelled"
            if fault in EXECUTED:
                assert event.evidence == "query", "it was done, and only a look could tell"
        assert rig.refused() == 0


@pytest.mark.parametrize("dead", ["mixed", "100404", "100400", "100421"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("cancelled", Status.cancelled), ("filled", Status.filled), ("partially_filled", Status.cancelled)],
)
@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
async def test_the_end_an_order_had_is_told(redis_url: str, state: str, expected: Status, by: str, dead: str) -> None:
    async with desk(redis_url, venue="bingx", bingx_dead_order=dead) as rig:
        order_id = rig.order(state=state, client_id="mine_1")
        event = await rig.final(await rig.send(symbol=PAIR, **{by: order_id if by == "order_id" else "mine_1"}))
        assert event.status == expected
        assert event.order_id == order_id
        assert rig.truth(order_id)["state"] == expected.value
        assert (event.filled is not None) == (state != "cancelled")


async def test_a_pair_that_is_not_there_is_told_even_if_the_answer_to_the_cancel_was_lost(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        order_id = rig.order()
        rig.fault("half_body", endpoint="bingx/cancel")
        event = await rig.final(await rig.send(symbol="NOSUCH-USDT", order_id=order_id), 10)
        assert (event.status, event.evidence, event.code) == (Status.rejected, "query", "100421")
        assert (event.detail or "").startswith("symbol: ")
        assert rig.truth(order_id)["open"]


async def test_a_lone_cancel_ends_with_the_answer_to_it(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        order_id = rig.order(client_id="mine_1")
        event = await rig.final(await rig.send(symbol=PAIR, client_order_id="mine_1"))
        assert (event.status, event.evidence, event.order_id) == (Status.cancelled, "reply", order_id)
        assert endpoints(rig)["cancel"] == 1
        assert not endpoints(rig)["query"] + endpoints(rig)["openOrders"]


async def test_orders_of_a_pair_share_a_call_and_pairs_do_not(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        await rig.ready()
        orders = [rig.order(symbol=pair) for pair in (PAIR, "ETH-USDT") for _ in range(10)]
        pairs = [PAIR] * 10 + ["ETH-USDT"] * 10
        intents = await rig.send_all([{"symbol": p, "order_id": o} for p, o in zip(pairs, orders, strict=True)])
        finals = await rig.finals(intents)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert {e.evidence for e in finals.values()} == {"reply"}
        assert endpoints(rig)["cancelOrders"] == 2
        assert rig.refused() == 0


async def test_a_dead_order_in_a_batch_spoils_nothing(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        await rig.ready()
        states = ["live", "filled", "live", "cancelled", "live", "live"]
        orders = [rig.order(state=state) for state in states]
        intents = await rig.send_all([{"symbol": PAIR, "order_id": o} for o in orders])
        finals = await rig.finals(intents)
        assert [finals[i].status.value for i in intents] == [rig.truth(o)["state"] for o in orders]
        assert finals[intents[1]].status == Status.filled


async def test_rows_under_neighbours_ids_end_no_order(redis_url: str) -> None:
    """The venue tells each order's state under the id of its neighbour; every second one filled before the cancel."""
    async with desk(redis_url, venue="bingx") as rig:
        await rig.ready()
        base = 1_735_964_079_647_111_000
        orders = [rig.order(order_id=str(base + 7 * n)) for n in range(10)]
        rig.simulator.configure({"race_fill_ids": orders[1::2]})
        rig.fault("wrong_ids", endpoint="cancelOrders")
        intents = await rig.send_all([{"symbol": PAIR, "order_id": o} for o in orders])
        finals = await rig.finals(intents)
        assert endpoints(rig)["cancelOrders"] == 1
        assert [finals[i].status.value for i in intents] == ["cancelled", "filled"] * 5
        assert {e.evidence for e in finals.values()} == {"query"}


async def test_more_than_the_venue_takes_in_a_call_is_halved_until_it_does(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx", bingx_batch_most=4) as rig:
        await rig.ready()
        orders = [rig.order() for _ in range(10)]
        finals = await rig.finals(await rig.send_all([{"symbol": PAIR, "order_id": o} for o in orders]))
        assert {e.status for e in finals.values()} == {Status.cancelled}


@pytest.mark.parametrize("lists_tell", [True, False])
async def test_an_unknown_order_is_not_found_only_after_every_place_was_read(redis_url: str, lists_tell: bool) -> None:
    env = {"CANCELQ_LOOKUP_BUDGET_MS": "1500"}
    async with desk(redis_url, venue="bingx", env=env, bingx_list_client_ids=lists_tell) as rig:
        rig.order(client_id="other")
        rig.order(state="filled", client_id="another")
        by_id = await rig.send(symbol=PAIR, order_id="1234567890123456789")
        by_client = await rig.send(symbol=PAIR, client_order_id="nobody")
        finals = await rig.finals([by_id, by_client])
        assert finals[by_id].status == Status.not_found
        assert all(e.evidence == "query" for e in finals.values())
        if lists_tell:
            assert finals[by_client].status == Status.not_found
        else:
            assert finals[by_client].status == Status.unresolved
            assert "client ids" in (finals[by_client].detail or "")
        assert endpoints(rig)["openOrders"] >= 2
        assert endpoints(rig)["historyOrders"] >= 2


async def test_a_client_id_past_the_venues_two_hours_is_found_by_walking(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        now_ms = time.time_ns() // 1_000_000
        old = rig.order(state="cancelled", client_id="old_1", created_ms=now_ms - 3 * 3_600_000)
        for n in range(230):
            rig.order(state="filled", client_id=f"between_{n}")
        event = await rig.final(await rig.send(symbol=PAIR, client_order_id="old_1"))
        assert event.status == Status.cancelled
        assert event.order_id == old


@pytest.mark.parametrize("first", ["newest", "oldest"])
async def test_dead_orders_are_found_whichever_end_of_the_history_comes_first(redis_url: str, first: str) -> None:
    async with desk(redis_url, venue="bingx", bingx_history_order=first) as rig:
        await rig.ready()
        orders = [rig.order(state="filled" if n % 3 else "cancelled") for n in range(140)]
        named = [*orders[:6], *orders[60:64], *orders[-6:]]
        finals = await rig.finals(ids := await rig.send_all([{"symbol": PAIR, "order_id": o} for o in named]))
        assert [finals[i].status.value for i in ids] == [rig.truth(o)["state"] for o in named]
        assert rig.refused() == 0


@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
async def test_a_storm_of_dead_orders_does_not_lock_an_endpoint(redis_url: str, by: str) -> None:
    """Thirty cancels in vain, one at a time; then a live order is still cancelled at once."""
    async with desk(redis_url, venue="bingx") as rig:
        for n in range(30):
            order_id = rig.order(state="filled", client_id=f"dead_{n}")
            named = order_id if by == "order_id" else f"dead_{n}"
            event = await rig.final(await rig.send(symbol=PAIR, **{by: named}))
            assert event.status == Status.filled
        live = rig.order(client_id="alive")
        event = await rig.final(await rig.send(symbol=PAIR, **{by: live if by == "order_id" else "alive"}), within_s=5)
        assert event.status == Status.cancelled
        assert rig.refused() == 0
        wrong = Counter(
            (str(c["endpoint"]), c["code"]) for c in rig.simulator.calls().entries if str(c["code"]) not in ("0", "")
        )
        assert max(wrong.values()) <= 15, wrong


async def test_many_dead_orders_at_once_share_their_looks(redis_url: str) -> None:
    """Look-ups must keep pace with cancels: 25 orders a second go out, and a look may serve a hundred."""
    async with desk(redis_url, venue="bingx") as rig:
        await rig.ready()
        states = ["filled", "cancelled", "live", "filled"]
        orders = [rig.order(state=states[n % 4]) for n in range(80)]
        ids = await rig.send_all([{"symbol": PAIR, "order_id": order_id} for order_id in orders])
        finals = await rig.finals(ids)
        assert [finals[i].status.value for i in ids] == [rig.truth(o)["state"] for o in orders]
        looks = endpoints(rig)
        assert looks["query"] + looks["openOrders"] + looks["historyOrders"] < 40
        assert rig.refused() == 0


async def test_orders_nobody_knows_do_not_lock_the_query(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx", env={"CANCELQ_LOOKUP_BUDGET_MS": "1500"}) as rig:
        await rig.ready()
        entries = [{"symbol": PAIR, "order_id": str(1_735_964_079_647_111_280 + n)} for n in range(40)]
        finals = await rig.finals(await rig.send_all(entries), within_s=60)
        assert {e.status for e in finals.values()} == {Status.not_found}
        assert rig.refused() == 0


@pytest.mark.parametrize("scope", ["tpsl", "stop"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("live", Status.cancelled), ("cancelled", Status.cancelled), ("triggered", Status.triggered)],
)
async def test_orders_of_other_kinds(redis_url: str, scope: str, state: str, expected: Status) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        kind = "tpsl" if scope == "tpsl" else "plan"
        order_id = rig.order(kind=kind, state=state)
        event = await rig.final(await rig.send(scope=scope, symbol=PAIR, order_id=order_id))
        assert event.status == expected, event
        assert endpoints(rig)["cancelOrders"] == 0


async def test_scopes_share_their_ids_so_another_scope_works(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        order_id = rig.order(kind="tpsl")
        event = await rig.final(await rig.send(symbol=PAIR, order_id=order_id))
        assert event.status == Status.cancelled
        assert rig.truth(order_id)["state"] == "cancelled"


async def test_an_order_of_another_pair_is_not_called_unknown(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx", env={"CANCELQ_LOOKUP_BUDGET_MS": "1500"}) as rig:
        order_id = rig.order(symbol="ETH-USDT")
        event = await rig.final(await rig.send(symbol=PAIR, order_id=order_id))
        assert event.status == Status.rejected
        assert "symbol ETH-USDT" in (event.detail or "")
        assert rig.truth(order_id)["state"] == "live"


@pytest.mark.parametrize(("wanted", "expected"), [("PENDING", Status.cancelled), ("PARTIALLY_FILLED", Status.rejected)])
async def test_a_condition_that_is_not_met_leaves_the_order_open(redis_url: str, wanted: str, expected: Status) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        order_id = rig.order()
        event = await rig.final(await rig.send(symbol=PAIR, order_id=order_id, only_if=wanted))
        assert event.status == expected, event
        assert rig.truth(order_id)["state"] == ("cancelled" if expected is Status.cancelled else "live")


async def test_a_cancel_that_loses_the_race_is_told_as_filled(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx", cancel_delay_ms=120, race_fill=1.0) as rig:
        ids = [rig.order() for _ in range(20)]
        intents = {await rig.send(symbol=PAIR, order_id=i): i for i in ids}
        for intent, event in (await rig.finals(list(intents))).items():
            assert event.status == Status.filled
            assert rig.truth(intents[intent])["state"] == "filled"


async def test_lists_that_lag_only_delay(redis_url: str) -> None:
    lags: dict[str, Any] = {"history_lag_ms": 700, "open_lag_ms": 700, "info_lag_ms": 300}
    async with desk(redis_url, venue="bingx", cancel_delay_ms=200, **lags) as rig:
        ids = [rig.order() for _ in range(30)]
        intents = [await rig.send(symbol=PAIR, order_id=i) for i in ids]
        finals = await rig.finals(intents)
        assert {e.status for e in finals.values()} == {Status.cancelled}


async def test_an_order_the_venue_will_not_cancel_is_unresolved_aloud(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx", env={"CANCELQ_MAX_ATTEMPTS": "2"}) as rig:
        order_id = rig.order()
        rig.simulator.configure({"stuck_ids": [order_id]})
        event = await rig.final(await rig.send(symbol=PAIR, order_id=order_id))
        assert event.status == Status.unresolved
        assert event.attempt == 2
        assert rig.truth(order_id)["state"] == "live"


@pytest.mark.parametrize("kinds", ["order", "order,tpsl,stop"])
@pytest.mark.parametrize("triggers", [True, False])
async def test_a_pair_is_emptied_and_other_pairs_are_left_alone(redis_url: str, kinds: str, triggers: bool) -> None:
    sim: dict[str, Any] = {"symbol_cancel_miss": 0.3, "bingx_cancel_all_triggers": triggers}
    async with desk(redis_url, venue="bingx", **sim) as rig:
        mine = [rig.order(symbol="ETH-USDT") for _ in range(30)]
        stops = [rig.order(symbol="ETH-USDT", kind=kind) for kind in ("tpsl", "plan") for _ in range(2)]
        other = rig.order(symbol="SOL-USDT")
        event = await rig.final(await rig.send(scope="symbol", symbol="ETH-USDT", kinds=kinds))
        assert event.status == Status.cancelled
        assert event.open_orders == 0
        assert {rig.truth(i)["state"] for i in mine} == {"cancelled"}
        assert {rig.truth(i)["state"] for i in stops} == {"live" if kinds == "order" else "cancelled"}
        assert rig.truth(other)["state"] == "live"
        assert endpoints(rig)["cancelOpenOrders"] == (kinds != "order")
        assert rig.refused() == 0


async def test_a_pair_that_holds_nothing_else_is_emptied_in_one_call(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        mine = [rig.order(symbol="ETH-USDT") for _ in range(60)]
        other = rig.order()
        event = await rig.final(await rig.send(scope="symbol", symbol="ETH-USDT"))
        assert event.status == Status.cancelled
        assert {rig.truth(i)["state"] for i in mine} == {"cancelled"}
        assert rig.truth(other)["state"] == "live"
        assert endpoints(rig)["cancelOpenOrders"] == 1
        assert endpoints(rig)["cancelOrders"] == 0


async def test_what_a_bulk_call_left_goes_by_order_id(redis_url: str) -> None:
    """Also where nothing else is open: by then a second bulk call could hit orders that are newer than the intent."""
    async with desk(redis_url, venue="bingx", symbol_cancel_miss=0.3) as rig:
        mine = [rig.order(symbol="ETH-USDT") for _ in range(30)]
        event = await rig.final(await rig.send(scope="symbol", symbol="ETH-USDT"))
        assert event.status == Status.cancelled
        assert {rig.truth(i)["state"] for i in mine} == {"cancelled"}
        assert endpoints(rig)["cancelOpenOrders"] == 1
        assert endpoints(rig)["cancelOrders"] + endpoints(rig)["cancel"] >= 1


async def test_an_account_is_swept_by_kind_prefix_and_age(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        mm = [rig.order(client_id=f"mm_{n}") for n in range(25)]
        other = rig.order(client_id="hand_1")
        event = await rig.final(await rig.send(scope="account", client_prefix="mm_"))
        assert event.status == Status.cancelled
        assert {rig.truth(i)["state"] for i in mm} == {"cancelled"}
        assert rig.truth(other)["state"] == "live"
        tpsl, plan = rig.order(kind="tpsl"), rig.order(kind="plan", symbol="ETH-USDT")
        event = await rig.final(await rig.send(scope="account", kinds="tpsl,stop"))
        assert event.status == Status.cancelled
        assert rig.truth(tpsl)["state"] == rig.truth(plan)["state"] == "cancelled"
        assert rig.truth(other)["state"] == "live"
        now_ms = time.time_ns() // 1_000_000
        old, young = rig.order(created_ms=now_ms - 60_000), rig.order(created_ms=now_ms - 5_000)
        event = await rig.final(await rig.send(scope="account", older_than_ms=str(now_ms - 30_000)))
        assert event.status == Status.cancelled
        assert (rig.truth(old)["state"], rig.truth(young)["state"]) == ("cancelled", "live")
        assert endpoints(rig)["cancelOpenOrders"] == 0


async def test_a_prefix_the_lists_do_not_tell_is_unresolved_and_harms_nothing(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx", bingx_list_client_ids=False) as rig:
        order_id = rig.order(client_id="mm_1")
        intent = await rig.send(scope="account", client_prefix="mm_")
        await rig.calls("openOrders", 3)
        assert rig.truth(order_id)["state"] == "live"
        assert not [e for e in await rig.of(intent) if e.final and e.status == Status.cancelled]


async def test_a_refused_key_holds_the_lane_and_loses_nothing(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        order_id = rig.order()
        rig.fault("code:100004", count=None)
        intent = await rig.send(symbol=PAIR, order_id=order_id)
        async with asyncio.timeout(10):
            while not any(row[1] == "auth" for row in (await operate.status(rig.client, [rig.lane]))[0].holds):
                await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", rig.lane.results, "$")
        rig.simulator.core.faults.clear()
        assert "key" in await operate.resume(rig.client, rig.lane, "bob")
        event = await rig.final(intent)
        assert event.status == Status.cancelled
        assert event.attempt == 1


@pytest.mark.parametrize("off_ms", [2_000, -2_000, 3_600_000])
async def test_a_wrong_clock_is_corrected_and_costs_nothing(redis_url: str, off_ms: int) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        await rig.final(await rig.send(symbol=PAIR, order_id=rig.order()))
        rig.simulator.configure({"clock_offset_ms": off_ms})
        event = await rig.final(await rig.send(symbol=PAIR, order_id=rig.order()))
        assert event.status == Status.cancelled
        assert event.attempt == 1


async def test_a_limit_that_tells_its_end_is_waited_for(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        until_ms = time.time_ns() // 1_000_000 + 1_500
        told = f"disabled period and will be unblocked after {until_ms}"
        rig.fault(f"code:100410:{told}", endpoint="cancel")
        intent = await rig.send(symbol=PAIR, order_id=rig.order())
        event = await rig.final(intent)
        assert event.status == Status.cancelled
        assert event.attempt == 1
        assert event.endpoint is not None
        sent = [c for c in rig.simulator.calls().entries if str(c["endpoint"]).endswith("cancel")]
        assert len(sent) <= 2


async def test_an_endpoint_closed_by_errors_leaves_the_other_to_what_was_seen_open(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        await rig.final(await rig.send(symbol=PAIR, order_id=rig.order()))
        clock: Any = await rig.client.get(rig.lane.key("clock"))
        now_us = operate.steady_now(clock, await rig.client.time())
        errors = {f"100404 e{n}": now_us for n in range(15)}
        await rig.client.zadd(rig.lane.key("errors:cancel"), errors)
        before = endpoints(rig)["cancel"]
        event = await rig.final(await rig.send(symbol=PAIR, order_id=rig.order()))
        assert event.status == Status.cancelled
        assert (event.endpoint or "").endswith("/cancelOrders")
        assert endpoints(rig)["cancel"] == before
        assert endpoints(rig)["openOrders"] == 1


async def test_who_waits_for_a_locked_endpoint_is_looked_at_again_and_adds_no_error_once_it_is_gone(
    redis_url: str,
) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        await rig.final(await rig.send(symbol=PAIR, order_id=rig.order()))
        stays, goes = rig.order(kind="tpsl"), rig.order(kind="tpsl")
        clock: Any = await rig.client.get(rig.lane.key("clock"))
        now_us = operate.steady_now(clock, await rig.client.time())
        await rig.client.zadd(rig.lane.key("errors:cancel"), {f"100404 e{n}": now_us for n in range(15)})
        sent = endpoints(rig)["cancel"]
        entries = [{"scope": "tpsl", "symbol": PAIR, "order_id": order_id} for order_id in (stays, goes)]
        waits, ends = await rig.send_all(entries)
        queue = rig.lane.key(f"queue:c:n:seen-trigger:{PAIR}")
        async with asyncio.timeout(20):  # both are seen open, and wait for a minute
            while await rig.client.zcount(queue, now_us + 50_000_000, "+inf") < 2:
                await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", rig.lane.inbox, "$")
        rig.simulator.move_order(goes, State.cancelled, venue="bingx")
        await rig.client.zadd(queue, {ends: now_us})
        await rig.client.zadd(rig.lane.key("classes:c:n"), {f"seen-trigger:{PAIR}": now_us})
        assert (await rig.final(ends)).status == Status.cancelled
        assert endpoints(rig)["cancel"] == sent
        await rig.client.delete(rig.lane.key("errors:cancel"))
        await rig.client.zadd(queue, {waits: now_us})
        await rig.client.zadd(rig.lane.key("classes:c:n"), {f"seen-trigger:{PAIR}": now_us})
        event = await rig.final(waits)
        assert (event.status, event.attempt, event.endpoint) == (Status.cancelled, 1, "/openApi/spot/v1/trade/cancel")
        assert endpoints(rig)["cancel"] == sent + 1


async def test_calls_without_an_answer_do_not_close_an_endpoint_to_what_is_open(redis_url: str) -> None:
    """Each may have been an error; but orders that a look then shows open cannot wait eight minutes for that."""
    async with desk(redis_url, venue="bingx", env={"CANCELQ_LEASE_MS": "3000"}) as rig:
        await rig.ready()
        orders = [rig.order(kind="tpsl") for _ in range(16)]
        rig.fault("drop", endpoint="cancel", count=len(orders))
        entries = [{"scope": "tpsl", "symbol": PAIR, "order_id": order_id} for order_id in orders]
        finals = await rig.finals(await rig.send_all(entries))
        assert {e.status for e in finals.values()} == {Status.cancelled}


async def test_a_locked_endpoint_leaves_the_other(redis_url: str) -> None:
    """The venue itself says until when one is closed; the other one carries even a lone cancel."""
    async with desk(redis_url, venue="bingx") as rig:
        until_ms = time.time_ns() // 1_000_000 + 60_000
        told = f"over 20 error code:100404 requests within 480000 ms for this api ,can retry after time: {until_ms}"
        rig.fault(f"code:100410:{told}", endpoint="cancel", count=None)
        event = await rig.final(await rig.send(symbol=PAIR, order_id=rig.order()))
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        assert endpoints(rig)["cancel"] == 1


async def test_the_budgets_are_used_and_kept_by_several_workers(redis_url: str) -> None:
    delays: dict[str, Any] = {"latency_before_ms": (5, 25), "latency_after_ms": (5, 25)}
    async with desk(redis_url, venue="bingx", workers=3, **delays) as rig:
        orders = [rig.order() for _ in range(150)]
        ids = await rig.send_all([{"symbol": PAIR, "order_id": order_id} for order_id in orders])
        finals = await rig.finals(ids, within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert rig.refused() == 0


async def test_a_bulk_call_whose_list_is_old_is_not_made(redis_url: str) -> None:
    """It had to wait: what was placed meanwhile, of a kind that nobody meant, stays."""
    async with desk(redis_url, venue="bingx") as rig:
        await rig.ready()
        orders = [rig.order() for _ in range(BATCH + 1)]
        hold, bulk = rig.lane.key("hold"), "cancelOpenOrders"
        await command(rig.client, "HSET", hold, f"{bulk}|test", "9999999999999999 not now")
        id_ = await rig.send(scope="symbol", symbol=PAIR)
        await rig.calls("openOrders")
        await command(rig.client, "XREAD", "BLOCK", 1_200, "STREAMS", "nothing", "$")  # a while, by Redis' own clock
        stop = rig.order(kind="plan", created_ms=time.time_ns() // 1_000_000)
        await command(rig.client, "HDEL", hold, f"{bulk}|test")
        event = await rig.final(id_)
        assert (event.status, event.open_orders) == (Status.cancelled, 0)
        assert {str(rig.truth(order)["state"]) for order in orders} == {"cancelled"}
        assert rig.truth(stop)["state"] == "live"
        assert endpoints(rig)[bulk] == 0
        assert rig.refused() == 0


async def test_what_one_call_names_by_id_is_not_swept_in_bulk(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        await rig.ready()
        orders = [rig.order() for _ in range(BATCH)]
        event = await rig.final(await rig.send(scope="symbol", symbol=PAIR))
        assert event.status == Status.cancelled
        assert {str(rig.truth(order)["state"]) for order in orders} == {"cancelled"}
        assert (endpoints(rig)["cancelOrders"], endpoints(rig)["cancelOpenOrders"]) == (1, 0)
