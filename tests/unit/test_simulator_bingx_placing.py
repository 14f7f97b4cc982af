"""Placing orders at the simulated BingX, and preparing them over the control API."""

import random
from typing import Any

import httpx
import orjson
import pytest

from cancelq_worker.simulator import Simulator, serve
from tests.unit.simulated_bingx import NOW_MS, PAIR, Desk, ids_in

LIMIT: dict[str, Any] = {"symbol": PAIR, "side": "BUY", "type": "LIMIT", "price": "25000", "quantity": "0.4"}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_limit_order_rests(desk: Desk) -> None:
    answer = desk.post("order", **LIMIT, newClientOrderId="mine_1")
    [order_id] = ids_in(desk.get("openOrders"))
    assert answer.data == {
        "symbol": PAIR,
        "orderId": int(order_id),
        "transactTime": NOW_MS,
        "price": "25000",
        "stopPrice": "0",
        "origQty": "0.4",
        "executedQty": "0",
        "cummulativeQuoteQty": "0",
        "status": "PENDING",
        "type": "LIMIT",
        "side": "BUY",
        "clientOrderID": "mine_1",
    }
    assert desk.truth(order_id)["history"][0]["by"] == "call:1"


@pytest.mark.parametrize(
    ("changed", "state", "status"),
    [
        ({"type": "MARKET", "side": "SELL"}, "filled", "FILLED"),
        ({"type": "MARKET", "quantity": None, "quoteOrderQty": "50"}, "filled", "FILLED"),
        ({"timeInForce": "PostOnly"}, "live", "PENDING"),
        ({"timeInForce": "IOC"}, "cancelled", "CANCELED"),
        ({"timeInForce": "FOK"}, "cancelled", "CANCELED"),
        ({"type": "TAKE_STOP_LIMIT", "stopPrice": "24000"}, "live", "NEW"),
        ({"type": "TAKE_STOP_MARKET", "stopPrice": "24000"}, "live", "NEW"),
        ({"type": "TRIGGER_LIMIT", "stopPrice": "24000"}, "live", "NEW"),
        ({"type": "TRIGGER_MARKET", "stopPrice": "24000"}, "live", "NEW"),
    ],
)
def test_each_type_of_order_has_its_fate(desk: Desk, changed: dict[str, Any], state: str, status: str) -> None:
    row = desk.post("order", **LIMIT | changed).data
    assert (row["status"], row["type"]) == (status, changed.get("type", "LIMIT"))
    assert desk.state(str(row["orderId"])) == state
    assert row["stopPrice"] == changed.get("stopPrice", "0")


def test_a_size_may_be_given_in_the_quote(desk: Desk) -> None:
    assert desk.post("order", **LIMIT | {"quantity": None, "quoteOrderQty": "100"}).data["origQty"] == "0.004"
    assert desk.post("order", **LIMIT | {"quoteOrderQty": "100"}).data["origQty"] == "0.4"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"symbol": "BTCUSDT"}, 100400),
        ({"symbol": "NOPE-USDT"}, 100421),
        ({"side": "buy"}, 100400),
        ({"type": "STOP"}, 100400),
        ({"price": None}, 100400),
        ({"price": "0"}, 100400),
        ({"price": "1e5"}, 100400),
        ({"quantity": None}, 100400),
        ({"quantity": "0.0"}, 100400),
        ({"quantity": None, "quoteOrderQty": "0.00000000000000001"}, 100400),
        ({"price": "0.000000000000000001", "quantity": None, "quoteOrderQty": "9" * 24}, 100400),
        ({"type": "TRIGGER_LIMIT"}, 100400),
        ({"timeInForce": "GTX"}, 100400),
        ({"newClientOrderId": "a-b"}, 100400),
        ({"newClientOrderId": "a" * 41}, 100400),
    ],
)
def test_what_cannot_be_placed_is_refused(desk: Desk, changed: dict[str, Any], code: int) -> None:
    assert desk.post("order", **LIMIT | changed).code == code
    assert ids_in(desk.get("openOrders")) == []


def test_a_client_id_is_used_once_among_all_kinds_of_orders(desk: Desk) -> None:
    trigger = LIMIT | {"type": "TRIGGER_LIMIT", "stopPrice": "1", "newClientOrderId": "x"}
    assert desk.post("order", **trigger).code == 0
    assert desk.post("order", **LIMIT, newClientOrderId="x").code == 100400
    assert desk.post("order", **LIMIT).code == desk.post("order", **LIMIT).code == 0


def test_a_batch_of_orders_is_placed_whole_or_not_at_all(desk: Desk) -> None:
    number = LIMIT | {"price": 25000.5, "quantity": 1e-05}
    answer = desk.post("batchOrders", data=orjson.dumps([LIMIT, number]).decode())
    assert [row["price"] for row in answer.data["orders"]] == ["25000", "25000.5"]
    assert answer.data["orders"][1]["origQty"] == "0.00001"
    twice = LIMIT | {"newClientOrderId": "x"}
    for items in ([LIMIT, LIMIT | {"side": "x"}], [LIMIT] * 6, [], [twice, twice], "x"):
        assert desk.post("batchOrders", data=orjson.dumps(items).decode()).code == 100400
    assert desk.post("batchOrders", data="[").code == 100400
    assert len(ids_in(desk.get("openOrders"))) == 2


def test_a_trigger_that_fires_places_an_order_of_its_own(desk: Desk) -> None:
    [order_id] = desk.place(kind="plan", trigger_price="90")
    desk.move(order_id, "triggered")
    child = desk.truth(order_id)["child_id"]
    assert ids_in(desk.get("openOrders")) == [child]
    assert desk.get("query", symbol=PAIR, orderId=child).data["type"] == "LIMIT"
    assert desk.cancel(order_id).code == 100400
    assert desk.cancel(child).code == 0


async def test_orders_are_prepared_moved_and_checked_over_the_control_api() -> None:
    simulator = Simulator(rng=random.Random(1))
    async with serve(simulator) as running, httpx.AsyncClient(base_url=running.base_url, trust_env=False) as client:

        async def tell(path: str, body: dict[str, Any]) -> Any:
            answer = await client.post(f"/sim/{path}", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        like = {"symbol": PAIR, "kind": "tpsl"}
        made = await tell("orders", {"venue": "bingx", "count": 2, "like": like, "client_prefix": "d"})
        first, second = (order["order_id"] for order in made["orders"])
        await tell("moves", {"venue": "bingx", "moves": [{"order_id": first, "state": "triggered"}]})
        await tell("settings", {"bingx_batch_most": 20})
        truth = (await client.get("/sim/truth", params={"venue": "bingx", "ids": f"{first},{second}"})).json()
        assert [(order["venue"], order["state"]) for order in truth["orders"]] == [
            ("bingx", "triggered"),
            ("bingx", "live"),
        ]
        refused = await client.post("/sim/orders", json={"venue": "bingx", "count": 1})
        assert (refused.status_code, refused.json()["error"]) == (
            400,
            "symbol: bingx does not trade BTCUSDT; see the setting `pairs`",
        )
    assert simulator.core.settings.bingx_batch_most == 20
