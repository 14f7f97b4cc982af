"""pybit, Bybit's own Python client, trades at the simulated Bybit.

It is synchronous, so each of its calls runs in a thread beside the simulator's event loop. Its own retries are off:
they would sleep, and hide what the venue said.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
from pybit.exceptions import FailedRequestError, InvalidRequestError  # type: ignore[import-untyped]
from pybit.unified_trading import HTTP  # type: ignore[import-untyped]  # it ships without types

from cancelq_worker.simulator import Entry, Fault, Kind, RunningSimulator, Settings, Simulator, State, serve

SPOT = {"category": "spot", "symbol": "BTCUSDT"}

T = TypeVar("T")


def client_of(base_url: str, **config: Any) -> Any:
    keys = {"api_key": "sim-key", "api_secret": "sim-secret"}
    # An empty set of codes to retry on would be replaced by pybit's default.
    client = HTTP(**{**keys, "retry_codes": {-999}, "max_retries": 1, **config})
    client.endpoint = base_url
    client.client.trust_env = False
    return client


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    simulator = Simulator(rng=random.Random(1), settings=Settings(symbol_cancel_delay_ms=0))
    async with serve(simulator) as running:
        yield running


@pytest.fixture
def client(server: RunningSimulator) -> Any:
    return client_of(server.base_url)


async def run(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await asyncio.to_thread(function, *args, **kwargs)


def place(server: RunningSimulator, count: int = 1, **fields: Any) -> list[str]:
    entry = Entry(**{"symbol": "BTCUSDT", **fields})
    return [server.simulator.add_order(entry, venue="bybit").order_id for _ in range(count)]


def state(server: RunningSimulator, order_id: str) -> str:
    return str(server.simulator.truth_of([order_id], venue="bybit").entries[0]["state"])


async def rows(function: Callable[..., Any], **params: Any) -> list[dict[str, Any]]:
    return list((await run(function, **params))["result"]["list"])


async def refused(function: Callable[..., Any], **params: Any) -> int:
    """The code pybit raises."""
    with pytest.raises(InvalidRequestError) as raised:
        await run(function, **params)
    return int(raised.value.status_code)


async def test_the_time_and_the_markets_are_read(client: Any) -> None:
    told = await run(client.get_server_time)
    assert abs(int(told["result"]["timeSecond"]) - time.time()) < 5
    [market] = await rows(client.get_instruments_info, **SPOT)
    assert (market["baseCoin"], market["quoteCoin"], market["status"]) == ("BTC", "USDT", "Trading")
    assert (await run(client.get_api_key_information))["result"]["uta"] == 1


@pytest.mark.parametrize(
    ("order", "word", "order_filter"),
    [
        ({}, "New", "Order"),
        ({"orderFilter": "tpslOrder", "triggerPrice": "19500"}, "Untriggered", "tpslOrder"),
        ({"orderFilter": "StopOrder", "triggerPrice": 19500}, "Untriggered", "StopOrder"),
    ],
)
async def test_an_order_is_placed_seen_and_cancelled(
    server: RunningSimulator, client: Any, order: dict[str, Any], word: str, order_filter: str
) -> None:
    placed = await run(
        client.place_order, **SPOT, side="Buy", orderType="Limit", qty=0.5, price=20000, orderLinkId="desk-1", **order
    )
    order_id = placed["result"]["orderId"]
    [row] = await rows(client.get_open_orders, **SPOT, orderFilter=order_filter)
    assert (row["orderId"], row["orderLinkId"], row["orderStatus"]) == (order_id, "desk-1", word)
    acknowledged = await run(client.cancel_order, **SPOT, orderId=order_id, orderFilter=order_filter)
    assert acknowledged["result"] == {"orderId": order_id, "orderLinkId": "desk-1"}
    assert acknowledged["retMsg"] == "OK"
    assert state(server, order_id) == "cancelled"
    [by_id] = await rows(client.get_open_orders, category="spot", orderId=order_id)
    [by_link] = await rows(client.get_order_history, category="spot", orderLinkId="desk-1")
    assert by_id == by_link
    assert by_id["orderStatus"] == ("Cancelled" if word == "New" else "Deactivated")


async def test_a_batch_is_answered_by_index(server: RunningSimulator, client: Any) -> None:
    first, second = place(server, 2)
    [other] = place(server, symbol="ETHUSDT", client_id="eth-1")
    request = [
        {"symbol": "BTCUSDT", "orderId": first},
        {"symbol": "BTCUSDT", "orderId": "17"},
        {"symbol": "ETHUSDT", "orderLinkId": "eth-1"},
    ]
    answer = await run(client.cancel_batch_order, category="spot", request=request)
    assert [outcome["code"] for outcome in answer["retExtInfo"]["list"]] == [0, 170213, 0]
    assert [row["orderId"] for row in answer["result"]["list"]] == [first, "", other]
    assert [state(server, one) for one in (first, second, other)] == ["cancelled", "live", "cancelled"]
    many = [{"symbol": "BTCUSDT", "orderId": second}] * 11
    assert await refused(client.cancel_batch_order, category="spot", request=many) == 10001
    assert state(server, second) == "live"


async def test_a_batch_over_the_budget_fails_in_part(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"limits": {"bybit/cancel-batch": (3, 60_000)}})
    ids = place(server, 5)
    request = [{"symbol": "BTCUSDT", "orderId": one} for one in ids]
    answer = await run(client.cancel_batch_order, category="spot", request=request)
    assert [outcome["code"] for outcome in answer["retExtInfo"]["list"]] == [0, 0, 0, 10006, 10006]
    assert [state(server, one) for one in ids] == ["cancelled"] * 3 + ["live"] * 2


async def test_all_orders_of_a_kind_are_cancelled(server: RunningSimulator, client: Any) -> None:
    mine, [other] = place(server, 3), place(server, symbol="ETHUSDT")
    [stop] = place(server, kind=Kind.plan, trigger_price="90")
    answer = (await run(client.cancel_all_orders, **SPOT))["result"]
    assert (sorted(row["orderId"] for row in answer["list"]), answer["success"]) == (mine, "1")
    assert [state(server, one) for one in (*mine, other, stop)] == ["cancelled"] * 3 + ["live"] * 2
    await run(client.cancel_all_orders, category="spot")
    await run(client.cancel_all_orders, category="spot", orderFilter="StopOrder")
    assert [state(server, one) for one in (other, stop)] == ["cancelled", "cancelled"]


async def test_pages_are_walked_with_the_cursor_as_it_came(server: RunningSimulator, client: Any) -> None:
    ids = place(server, 65)
    seen: list[str] = []
    cursor = ""
    while True:
        answer = (await run(client.get_open_orders, **SPOT, limit=50, cursor=cursor))["result"]
        seen += [row["orderId"] for row in answer["list"]]
        cursor = answer["nextPageCursor"]
        if not cursor:
            break
    assert seen == ids[::-1]


async def test_fills_are_read(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server, size="0.5", price="20000")
    server.simulator.move_order(order_id, State.filled, venue="bybit")
    [fill] = await rows(client.get_executions, category="spot", orderId=order_id)
    assert (fill["execQty"], fill["execPrice"], fill["execType"]) == ("0.5", "20000", "Trade")


async def test_what_cannot_be_cancelled_is_refused(server: RunningSimulator, client: Any) -> None:
    [filled], [live] = place(server), place(server)
    server.simulator.move_order(filled, State.filled, venue="bybit")
    assert await refused(client.cancel_order, **SPOT, orderId=filled) == 170213
    assert await refused(client.cancel_order, **SPOT, orderId="17") == 170213
    assert await refused(client.cancel_order, category="spot", symbol="NOUSDT", orderId=live) == 170121
    assert await refused(client.cancel_order, category="linear", symbol="BTCUSDT", orderId=live) == 10001
    assert state(server, live) == "live"


async def test_a_cancel_that_is_pending_is_told_apart(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"cancel_delay_ms": 60_000})
    [order_id] = place(server)
    await run(client.cancel_order, **SPOT, orderId=order_id)
    assert await refused(client.cancel_order, **SPOT, orderId=order_id) == 170212


@pytest.mark.parametrize(
    ("wrong", "code"), [({"api_key": "guess"}, 10003), ({"api_secret": "guess"}, 10004), ({"recv_window": "x"}, 10001)]
)
async def test_wrong_keys_are_refused(server: RunningSimulator, wrong: dict[str, Any], code: int) -> None:
    assert await refused(client_of(server.base_url, **wrong).get_open_orders, **SPOT) == code


async def test_a_clock_that_runs_ahead_is_refused_whatever_the_window(server: RunningSimulator) -> None:
    server.simulator.configure({"clock_offset_ms": -2_000})
    client = client_of(server.base_url, recv_window=60_000)
    assert await refused(client.get_open_orders, **SPOT) == 10002


async def test_calls_over_the_limit_are_refused_with_their_headers(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"limits": {"bybit/cancel": (1, 60_000)}})
    first, second = place(server, 2)
    await run(client.cancel_order, **SPOT, orderId=first)
    before_ms = time.time_ns() // 1_000_000
    with pytest.raises(InvalidRequestError) as raised:
        await run(client.cancel_order, **SPOT, orderId=second)
    assert raised.value.status_code == 10006
    headers = raised.value.resp_headers
    assert (headers["X-Bapi-Limit"], headers["X-Bapi-Limit-Status"]) == ("1", "0")
    assert 0 < int(headers["X-Bapi-Limit-Reset-Timestamp"]) - before_ms <= 60_001


async def test_an_address_over_its_limit_is_refused(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"limits": {"bybit/ip": 0}})
    with pytest.raises(FailedRequestError) as raised:
        await run(client.get_open_orders, **SPOT)
    assert raised.value.status_code == 403


async def test_its_own_retry_meets_the_next_answer(server: RunningSimulator) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault("code:10002"))
    client = client_of(server.base_url, retry_codes={10002}, max_retries=2, retry_delay=0)
    await run(client.cancel_order, **SPOT, orderId=order_id)
    assert [call["code"] for call in server.simulator.calls().entries] == ["10002", "0"]
    assert state(server, order_id) == "cancelled"
