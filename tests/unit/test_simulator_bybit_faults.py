"""Misbehaviour on order at the simulated Bybit, in its own words, and the control calls that prepare it."""

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest

from cancelq_worker.simulator import Delivery, Fault, RunningSimulator, Settings, Simulator, serve
from cancelq_worker.simulator.faults import TRAITS
from tests.unit.bybit_desk import Answer, BybitDesk


@pytest.fixture
def desk() -> BybitDesk:
    return BybitDesk()


@pytest.mark.parametrize(
    ("kind", "status", "code", "executed"),
    [
        ("http_500", 500, None, False),
        ("http_500_executed", 500, None, True),
        ("html_200", 200, None, False),
        ("html_502", 502, None, False),
        ("http:403", 403, None, False),
        ("empty_200", 200, None, False),
        ("garbage_200", 200, None, False),
        ("http_429", 429, 429, False),
        ("code:429", 429, 429, False),
        ("code:10006", 200, 10006, False),
        ("code:10016", 200, 10016, False),
        ("code:-1", 200, -1, False),
        ("unknown_code", 200, 199987, False),
        ("missing_items", 200, 0, True),
    ],
)
def test_an_answer_of_another_kind(desk: BybitDesk, kind: str, status: int, code: int | None, executed: bool) -> None:
    [order_id] = desk.place()
    desk.simulator.add_fault(Fault(kind))
    answer = desk.cancel(order_id)
    assert (answer.status, answer.code) == (status, code)
    assert desk.state(order_id) == ("cancelled" if executed else "live")
    [call] = desk.simulator.calls().entries
    assert (call["fault"], call["executed"], call["http_status"]) == (kind, executed, status)
    other = desk.place()[0]
    assert desk.cancel(other).code == 0


def test_the_address_ban_can_be_said_without_a_flood(desk: BybitDesk) -> None:
    desk.simulator.add_fault(Fault("code:403"))
    answer = desk.cancel(desk.place()[0])
    assert (answer.status, answer.reply.body) == (403, b"access too frequent")
    assert answer.reply.content_type.startswith(b"text/plain")


@pytest.mark.parametrize("kind", sorted(TRAITS))
def test_every_fault_works_at_every_endpoint(desk: BybitDesk, kind: str) -> None:
    ids = desk.place(count=4, client_id="")
    asks: list[Callable[[], Answer]] = [
        lambda: desk.cancel(ids[0]),
        lambda: desk.cancel_batch(ids[1:3]),
        lambda: desk.post("/v5/order/cancel-all", {"category": "spot"}),
        lambda: desk.realtime(),
        lambda: desk.history(),
        lambda: desk.get("/v5/execution/list", category="spot"),
        lambda: desk.get("/v5/market/time"),
    ]
    desk.simulator.add_fault(Fault(kind, count=len(asks)))
    replies = [ask().reply for ask in asks]
    assert {reply.delivery for reply in replies} == {TRAITS[kind].delivery}
    calls = desk.simulator.calls().entries
    assert [call["fault"] for call in calls] == [kind] * len(asks)
    assert {call["executed"] for call in calls} == {TRAITS[kind].executes}
    expected = "cancelled" if TRAITS[kind].executes else "live"
    assert {desk.state(order_id) for order_id in ids} == {expected}


def test_a_batch_names_other_orders(desk: BybitDesk) -> None:
    ids = desk.place(count=3)
    desk.simulator.add_fault(Fault("wrong_ids", endpoint="cancel-batch"))
    answer = desk.cancel_batch(ids)
    assert answer.outcomes == [0, 0, 0]
    assert not set(answer.ids) & set(ids)
    assert {desk.state(one) for one in ids} == {"cancelled"}


def test_a_batch_loses_items_on_both_sides(desk: BybitDesk) -> None:
    desk.simulator.add_fault(Fault("missing_items"))
    answer = desk.cancel_batch(desk.place(count=6))
    assert (len(answer.rows), len(answer.outcomes)) == (3, 3)


def test_a_batch_repeats_items_on_both_sides(desk: BybitDesk) -> None:
    desk.simulator.add_fault(Fault("repeat_items"))
    answer = desk.cancel_batch(desk.place(count=6))
    assert (len(answer.rows), len(answer.outcomes)) == (8, 8)
    assert len(set(answer.ids)) == 6


@pytest.mark.parametrize("endpoint", ["cancel-batch", "bybit/cancel-batch", "/v5/order/cancel-batch"])
def test_a_fault_is_aimed_at_an_endpoint_and_at_an_order(desk: BybitDesk, endpoint: str) -> None:
    first, second = desk.place(client_id="a-1") + desk.place(client_id="a-2")
    desk.simulator.add_fault(Fault("code:10016", endpoint=endpoint, order_id=second))
    assert desk.cancel(second, orderFilter="StopOrder").code == 170213
    assert desk.cancel_batch([first]).code == 0
    assert desk.cancel_batch([first, second]).code == 10016
    desk.simulator.add_fault(Fault("code:10000", endpoint="cancel", order_id="a-2"))
    asked = {"category": "spot", "symbol": "BTCUSDT", "orderLinkId": "a-2"}
    assert desk.post("/v5/order/cancel", asked).code == 10000


def test_a_late_call_arrives_after_its_delay(desk: BybitDesk) -> None:
    [order_id] = desk.place()
    desk.simulator.add_fault(Fault("late_ms", delay_ms=700))
    answer = desk.cancel(order_id)
    assert answer.code == 0
    assert answer.reply.delivery is Delivery.answer
    [_, change] = desk.truth(order_id)["history"]
    assert change["at_us"] == 1_700_000_000_700_000
    desk.simulator.configure({"limits": {}})
    desk.simulator.add_fault(Fault("late_ms", delay_ms=700))
    late = desk.realtime()
    assert (late.code, late.headers["x-bapi-limit"]) == (0, "50")


def test_the_page_of_a_gateway_has_no_headers_of_the_venue() -> None:
    desk = BybitDesk(limited=True)
    desk.simulator.add_fault(Fault("html_502"))
    assert desk.realtime().headers == {}
    assert "x-bapi-limit" in desk.realtime().headers


def test_a_lost_answer_of_a_batch_still_used_up_its_room() -> None:
    desk = BybitDesk(limited=True)
    ids = desk.place(count=20)
    desk.simulator.add_fault(Fault("execute_and_drop"))
    assert desk.cancel_batch(ids[:10]).reply.delivery is Delivery.close
    assert desk.cancel_batch(ids[10:]).outcomes == [0] * 10
    assert desk.cancel_batch(ids[:1]).outcomes == [10006]


# ---- the control API


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    async with serve(Simulator(rng=random.Random(1), settings=Settings())) as running:
        yield running


async def test_orders_of_each_kind_can_be_prepared_moved_and_told(server: RunningSimulator) -> None:
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client:

        async def post(path: str, body: dict[str, Any]) -> Any:
            answer = await client.post(f"/sim/{path}", content=orjson.dumps({"venue": "bybit", **body}))
            assert answer.status_code == 200, answer.text
            return answer.json()

        kinds = ["order", "tpsl", "plan"]
        made = (await post("orders", {"orders": [{"kind": kind, "symbol": "ETHUSDT"} for kind in kinds]}))["orders"]
        ids = [order["order_id"] for order in made]
        await post("moves", {"moves": [{"order_id": ids[2], "state": "triggered"}]})
        truth = (await client.get("/sim/truth", params={"venue": "bybit", "ids": ",".join(ids)})).json()["orders"]
        assert [(order["kind"], order["state"]) for order in truth] == [
            ("order", "live"),
            ("tpsl", "live"),
            ("plan", "triggered"),
        ]
        await post("accounts", {"key": "k", "secret": "s", "uid": "7", "demo": True})
        assert server.simulator.core.accounts["bybit", "k"].demo
        refused = await client.post(
            "/sim/orders", content=orjson.dumps({"venue": "bybit", "orders": [{"symbol": "BTC-USDT"}]})
        )
        assert refused.status_code == 400
        settings = (await client.get("/sim/settings")).json()
        assert settings["bybit_closed_code"] == "170213"
