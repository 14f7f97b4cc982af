"""Bybit: what the venue did, times what the worker saw: the final event is always the truth."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import httpx
import pytest

from cancelq.contract import Status
from cancelq_worker import operate
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_SECRET
from cancelq_worker.trips import command
from tests.integration.rig import UNCLEAR, Rig, desk

pytestmark = pytest.mark.one_server

FAULTS = (
    *UNCLEAR,
    "code:170213",
    "code:110001",
    "code:170191",
    "code:10016",
)


@pytest.mark.parametrize("orders", [1, 5])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_unclear_answer_never_becomes_an_outcome_by_itself(redis_url: str, fault: str, orders: int) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        ids = [rig.order() for _ in range(orders)]
        await rig.ready()
        rig.fault(fault, endpoint="cancel" if orders == 1 else "cancel-batch")
        intents = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order_id} for order_id in ids])
        finals = await rig.finals(intents)
        for intent, order_id in zip(intents, ids, strict=True):
            event, truth = finals[intent], rig.truth(order_id)
            assert event.status == Status.cancelled, event
            assert event.evidence == "query"
            assert truth["state"] == "cancelled"
        assert rig.refused() == 0


@pytest.mark.parametrize("code", ["170213", "110001", "by_state", "170190"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("cancelled", Status.cancelled), ("filled", Status.filled), ("partially_filled", Status.cancelled)],
)
@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
async def test_the_end_an_order_had_is_told(redis_url: str, state: str, expected: Status, by: str, code: str) -> None:
    async with desk(redis_url, venue="bybit", bybit_closed_code=code) as rig:
        order_id = rig.order(state=state, client_id="mine-1")
        event = await rig.final(await rig.send(symbol="BTCUSDT", **{by: order_id if by == "order_id" else "mine-1"}))
        assert event.status == expected
        assert event.order_id == order_id
        assert rig.truth(order_id)["state"] == expected.value
        assert (event.filled is not None) == (state != "cancelled")


async def test_an_order_that_only_the_history_knows_is_found_there(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", bybit_recent_closed=0) as rig:
        order_id = rig.order(state="filled")
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert event.status == Status.filled


async def test_an_unknown_order_is_not_found_only_after_both_places_were_read(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", env={"CANCELQ_LOOKUP_BUDGET_MS": "1500"}) as rig:
        by_id = await rig.send(symbol="BTCUSDT", order_id="1234567890123456789")
        by_client = await rig.send(symbol="BTCUSDT", client_order_id="nobody")
        finals = await rig.finals([by_id, by_client])
        assert {e.status for e in finals.values()} == {Status.not_found}
        assert all(e.evidence == "query" for e in finals.values())
        asked = [row["endpoint"] for row in rig.simulator.calls().entries]
        assert asked.count("realtime") >= 4
        assert asked.count("history") >= 4


async def test_a_cancelled_order_that_the_venue_has_forgotten_is_not_called_unknown(redis_url: str) -> None:
    """It is forgotten after 24 hours; a code that says it was cancelled shows that it was known."""
    env = {"CANCELQ_LOOKUP_BUDGET_MS": "1500"}
    sim: dict[str, Any] = {"bybit_closed_code": "170142", "bybit_recent_closed": 0, "bybit_cancelled_kept_ms": 0}
    async with desk(redis_url, venue="bybit", env=env, **sim) as rig:
        order_id = rig.order(state="cancelled")
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert event.status == Status.unresolved
        assert event.detail is not None
        assert "knew this order" in event.detail


@pytest.mark.parametrize("keeps_id", [True, False])
@pytest.mark.parametrize("scope", ["tpsl", "stop"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("live", Status.cancelled), ("cancelled", Status.cancelled), ("triggered", Status.triggered)],
)
async def test_orders_of_other_kinds(redis_url: str, scope: str, state: str, expected: Status, keeps_id: bool) -> None:
    async with desk(redis_url, venue="bybit", bybit_trigger_keeps_id=keeps_id) as rig:
        order_id = rig.order(kind="tpsl" if scope == "tpsl" else "plan", state=state)
        event = await rig.final(await rig.send(scope=scope, symbol="BTCUSDT", order_id=order_id))
        assert event.status == expected, event
        assert rig.truth(order_id)["state"] == state.replace("live", "cancelled")
        if expected is Status.triggered and keeps_id:
            assert event.child_order_id == order_id
        assert not [c for c in rig.simulator.calls().entries if c["endpoint"] == "cancel-batch"]


@pytest.mark.parametrize(("kind", "scope"), [("tpsl", "tpsl"), ("plan", "stop")])
async def test_a_live_order_of_another_kind_is_not_called_unknown(redis_url: str, kind: str, scope: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        order_id = rig.order(kind=kind)
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert event.status == Status.rejected
        assert event.detail is not None
        assert f"scope {scope}" in event.detail
        assert rig.truth(order_id)["state"] == "live"
        plain = rig.order()
        event = await rig.final(await rig.send(scope=scope, symbol="BTCUSDT", order_id=plain))
        assert event.status == Status.rejected
        assert event.detail is not None
        assert "scope order" in event.detail
        assert rig.truth(plain)["state"] == "live"


async def test_an_order_of_another_pair_is_not_called_unknown(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        order_id = rig.order(symbol="ETHUSDT")
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert event.status == Status.rejected
        assert event.detail is not None
        assert "symbol: this id is an order of ETHUSDT" in event.detail
        assert rig.truth(order_id)["state"] == "live"


@pytest.mark.parametrize("pending", ["0", "170212", "170190", "170035"])
async def test_a_cancel_that_loses_the_race_is_told_as_filled(redis_url: str, pending: str) -> None:
    """The row of such an order reads CancelByUser; its status decides."""
    sim: dict[str, Any] = {"cancel_delay_ms": 120, "race_fill": 1.0, "bybit_pending_code": pending}
    async with desk(redis_url, venue="bybit", **sim) as rig:
        ids = [rig.order() for _ in range(20)]
        intents = {await rig.send(symbol="BTCUSDT", order_id=i): i for i in ids}
        for intent, event in (await rig.finals(list(intents))).items():
            assert event.status == Status.filled
            assert rig.truth(intents[intent])["state"] == "filled"


async def test_a_part_that_filled_before_the_cancel_is_told(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", cancel_delay_ms=60, race_partial=1.0) as rig:
        ids = [rig.order() for _ in range(12)]
        intents = {await rig.send(symbol="BTCUSDT", order_id=i): i for i in ids}
        for intent, event in (await rig.finals(list(intents))).items():
            assert (event.status, event.venue_state) == (Status.cancelled, "PartiallyFilledCanceled")
            assert event.filled == rig.truth(intents[intent])["filled"]


async def test_lists_that_lag_only_delay(redis_url: str) -> None:
    sim: dict[str, Any] = {"cancel_delay_ms": 200, "history_lag_ms": 700, "open_lag_ms": 700, "info_lag_ms": 300}
    async with desk(redis_url, venue="bybit", **sim) as rig:
        ids = [rig.order() for _ in range(30)]
        intents = [await rig.send(symbol="BTCUSDT", order_id=i) for i in ids]
        finals = await rig.finals(intents)
        assert {e.status for e in finals.values()} == {Status.cancelled}


async def test_many_orders_stay_within_the_limits_and_both_buckets_are_used(redis_url: str) -> None:
    """Twenty singly and twenty in batches a second, each counted per order, and looks that keep pace."""
    async with desk(redis_url, venue="bybit", cancel_delay_ms=20) as rig:
        ids = [rig.order(client_id=f"mm-{n}") for n in range(120)]
        entries = [
            {"symbol": "BTCUSDT", "order_id": i} if n % 2 else {"symbol": "BTCUSDT", "client_order_id": f"mm-{n}"}
            for n, i in enumerate(ids)
        ]
        finals = await rig.finals(await rig.send_all(entries))
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert rig.refused() == 0
        endpoints = {c["endpoint"] for c in rig.simulator.calls().entries}
        assert {"cancel", "cancel-batch"} <= endpoints
        settled, taken = [e.settled_us or 0 for e in finals.values()], [e.taken_us or 0 for e in finals.values()]
        span_s = (max(settled) - min(taken)) / 1e6
        assert span_s < 120 / 40 + 3, "40 a second, and a moment for what was left over"


async def test_orders_beyond_the_batch_budget_fail_one_by_one_and_are_sent_again(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", limits={"bybit/cancel-batch": 6}) as rig:
        ids = [rig.order() for _ in range(30)]
        finals = await rig.finals(await rig.send_all([{"symbol": "BTCUSDT", "order_id": i} for i in ids]))
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert {e.attempt for e in finals.values()} == {1}, "a refusal for the rate costs no attempt"
        assert rig.refused() > 0


async def test_a_batch_without_any_room_is_sent_again(redis_url: str) -> None:
    sim: dict[str, Any] = {"limits": {"bybit/cancel-batch": 0}, "bybit_batch_spent": "whole"}
    async with desk(redis_url, venue="bybit", **sim) as rig:
        ids = [rig.order() for _ in range(12)]
        finals = await rig.finals(await rig.send_all([{"symbol": "BTCUSDT", "order_id": i} for i in ids]))
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert {e.attempt for e in finals.values()} == {1}


async def test_a_forbidden_address_is_quiet_for_ten_minutes_and_keeps_its_intents(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        order_id = rig.order()
        await rig.ready()
        rig.fault("code:403", endpoint="cancel")
        sent = await rig.send(symbol="BTCUSDT", order_id=order_id)
        await until_held(rig, "rate")
        (status,) = await operate.status(rig.client, [rig.lane])
        assert not [e for e in await rig.of(sent) if e.final]
        assert rig.truth(order_id)["state"] == "live"
        ((scope, _, until),) = [row for row in status.holds if row[1] == "rate"]
        assert scope == "*"
        assert 590 < float(until.split()[0]) <= 600


@pytest.mark.parametrize("fault", ["http_429", "code:10429", "code:10006"])
async def test_a_short_refusal_costs_no_attempt(redis_url: str, fault: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        order_id = rig.order()
        await rig.ready()
        rig.fault(fault, endpoint="cancel")
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert (event.status, event.attempt) == (Status.cancelled, 1)


@pytest.mark.parametrize("fault", ["drop", "reset", "html_200", "http_500", "wrong_ids", "empty_200", "code:10016"])
async def test_looks_that_fail_only_delay(redis_url: str, fault: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        order_id = rig.order(client_id="mine-1")
        await rig.ready()
        rig.fault(fault, endpoint="realtime")
        rig.fault(fault, endpoint="history")
        event = await rig.final(await rig.send(symbol="BTCUSDT", client_order_id="mine-1"))
        assert (event.status, event.order_id) == (Status.cancelled, order_id)
        assert event.lookups is not None
        assert event.lookups >= 2


async def test_an_order_the_venue_will_not_cancel_is_unresolved_aloud(redis_url: str) -> None:
    env = {"CANCELQ_MAX_ATTEMPTS": "2"}
    async with desk(redis_url, venue="bybit", env=env) as rig:
        order_id = rig.order()
        rig.simulator.configure({"stuck_ids": [order_id]})
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert event.status == Status.unresolved
        assert event.attempt == 2
        assert rig.truth(order_id)["state"] == "live"


# -- pairs and accounts ---------------------------------------------------------------------------------------


async def test_a_pair_is_emptied_and_its_neighbours_are_left_alone(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", symbol_cancel_miss=0.5) as rig:
        mine = [rig.order(symbol="ETHUSDT") for _ in range(130)]
        other = rig.order(symbol="SOLUSDT")
        tpsl = rig.order(kind="tpsl", symbol="ETHUSDT")
        event = await rig.final(await rig.send(scope="symbol", symbol="ETHUSDT"))
        assert event.status == Status.cancelled
        assert event.open_orders == 0
        assert {rig.truth(i)["state"] for i in mine} == {"cancelled"}
        assert rig.truth(other)["state"] == rig.truth(tpsl)["state"] == "live"
        assert len(await rig.calls("cancel-all")) == 1
        assert rig.refused() == 0


async def test_a_whole_account_goes_in_one_call_and_what_it_left(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", symbol_cancel_miss=0.3) as rig:
        mine = [rig.order(symbol=s) for s in ("BTCUSDT", "ETHUSDT", "SOLUSDT") for _ in range(20)]
        tpsl, plan = rig.order(kind="tpsl"), rig.order(kind="plan", symbol="ETHUSDT")
        event = await rig.final(await rig.send(scope="account", kinds="order,tpsl,stop"))
        assert (event.status, event.open_orders) == (Status.cancelled, 0)
        assert {rig.truth(i)["state"] for i in (*mine, tpsl, plan)} == {"cancelled"}
        assert len(await rig.calls("cancel-all")) == 1
        assert rig.refused() == 0


@pytest.mark.parametrize(("kinds", "word"), [("tpsl", "tpsl"), ("stop", "plan")])
async def test_a_bulk_call_takes_the_kind_that_is_asked_for(redis_url: str, kinds: str, word: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        every = {kind: rig.order(kind=kind) for kind in ("order", "tpsl", "plan")}
        event = await rig.final(await rig.send(scope="account", kinds=kinds))
        assert event.status == Status.cancelled
        assert {kind: rig.truth(i)["state"] for kind, i in every.items()} == {
            kind: "cancelled" if kind == word else "live" for kind in every
        }


async def test_an_account_is_swept_by_prefix_age_and_kind(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        now_ms = time.time_ns() // 1_000_000
        mm = [rig.order(client_id=f"mm-{n}") for n in range(60)]
        other = rig.order(client_id="hand-1")
        event = await rig.final(await rig.send(scope="account", client_prefix="mm-"))
        assert event.status == Status.cancelled
        assert {rig.truth(i)["state"] for i in mm} == {"cancelled"}
        assert rig.truth(other)["state"] == "live"
        old, new = rig.order(created_ms=now_ms - 90_000), rig.order(created_ms=now_ms - 30_000)
        sent = await rig.send(scope="symbol", symbol="BTCUSDT", older_than_ms=str(now_ms - 60_000))
        assert (await rig.final(sent)).status == Status.cancelled
        assert (rig.truth(old)["state"], rig.truth(new)["state"]) == ("cancelled", "live")
        tpsl = rig.order(kind="tpsl", created_ms=now_ms - 5_000)
        plan = rig.order(kind="plan", symbol="ETHUSDT", created_ms=now_ms - 5_000)
        sent = await rig.send(scope="account", kinds="tpsl,stop", older_than_ms=str(now_ms))
        assert (await rig.final(sent)).status == Status.cancelled
        assert rig.truth(tpsl)["state"] == rig.truth(plan)["state"] == "cancelled"
        assert rig.truth(other)["state"] == rig.truth(new)["state"] == "live"
        assert not [c for c in rig.simulator.calls().entries if c["endpoint"] == "cancel-all"]


# -- keys, clocks, environments -------------------------------------------------------------------------------


async def until_held(rig: Rig, reason: str) -> None:
    while not any(row[1] == reason for row in (await operate.status(rig.client, [rig.lane]))[0].holds):
        await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", rig.lane.results, "$")


@pytest.mark.parametrize("fault", ["code:10003", "code:10004", "code:10005"])
async def test_a_refused_key_holds_the_lane_with_its_intents_and_resume_goes_on(redis_url: str, fault: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        order_id = rig.order()
        await rig.ready()
        rig.fault(fault, endpoint="cancel")
        sent = await rig.send(symbol="BTCUSDT", order_id=order_id)
        await until_held(rig, "auth")
        assert not [e for e in await rig.of(sent) if e.final]
        await operate.resume(rig.client, rig.lane, "alice")
        event = await rig.final(sent)
        assert (event.status, event.attempt) == (Status.cancelled, 1)


async def test_a_wrong_secret_is_told_though_the_answer_quotes_what_was_signed(redis_url: str) -> None:
    env = {"CANCELQ_ACCOUNTS__BYBIT__MAIN__API_SECRET": "another-secret"}
    async with desk(redis_url, venue="bybit", env=env) as rig:
        order_id = rig.order()
        await rig.ready()
        await rig.send(symbol="BTCUSDT", order_id=order_id)
        await until_held(rig, "auth")
        (held,) = [row for row in (await operate.status(rig.client, [rig.lane]))[0].holds if row[1] == "auth"]
        assert "10004 the signature was refused: check API_SECRET" in str(held)


@pytest.mark.parametrize("offset_ms", [-3_600_000, -2_000, 2_000, 3_600_000])
async def test_a_clock_that_is_off_costs_nothing(redis_url: str, offset_ms: int) -> None:
    """A second ahead is too much for this venue, whatever the window."""
    async with desk(redis_url, venue="bybit", clock_offset_ms=offset_ms) as rig:
        order_id = rig.order()
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert (event.status, event.attempt) == (Status.cancelled, 1)


@pytest.mark.parametrize("offset_ms", [-3_600_000, -2_000, 3_600_000])
async def test_a_clock_that_jumps_is_corrected_once(redis_url: str, offset_ms: int) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        first = rig.order()
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=first))).status == Status.cancelled
        rig.simulator.configure({"clock_offset_ms": offset_ms})
        order_id = rig.order()
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert (event.status, event.attempt) == (Status.cancelled, 1)


async def test_demo_has_no_batches(redis_url: str) -> None:
    env = {"CANCELQ_ACCOUNTS__BYBIT__MAIN__DEMO": "true"}
    async with desk(redis_url, venue="bybit", env=env) as rig:
        ids = [rig.order() for _ in range(8)]
        finals = await rig.finals(await rig.send_all([{"symbol": "BTCUSDT", "order_id": i} for i in ids]))
        assert {e.status for e in finals.values()} == {Status.cancelled}
        mine = [rig.order(client_id=f"mm-{n}") for n in range(6)]
        event = await rig.final(await rig.send(scope="account", client_prefix="mm-"))
        assert event.status == Status.cancelled
        assert {rig.truth(i)["state"] for i in mine} == {"cancelled"}
        assert not [c for c in rig.simulator.calls().entries if c["endpoint"] == "cancel-batch"]


async def test_a_signature_over_anything_but_the_bytes_sent_is_refused(redis_url: str) -> None:
    """A published example signs Python's way of writing a mapping, and sends JSON."""
    async with desk(redis_url, venue="bybit") as rig:
        order_id = rig.order()
        params = {"category": "spot", "symbol": "BTCUSDT", "orderId": order_id}
        now = str(time.time_ns() // 1_000_000)
        signed = hmac.new(DEMO_SECRET.encode(), f"{now}{DEMO_KEY}5000{params}".encode(), hashlib.sha256).hexdigest()
        headers = {
            "X-BAPI-API-KEY": DEMO_KEY,
            "X-BAPI-SIGN": signed,
            "X-BAPI-TIMESTAMP": now,
            "X-BAPI-RECV-WINDOW": "5000",
        }
        async with httpx.AsyncClient(trust_env=False) as client:
            said = await client.post(f"{rig.base_url}/v5/order/cancel", json=params, headers=headers)
        assert (said.status_code, said.json()["retCode"]) == (200, 10004)
        assert rig.truth(order_id)["state"] == "live"
