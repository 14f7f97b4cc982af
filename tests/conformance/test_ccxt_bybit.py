"""ccxt, which knows the real Bybit, trades at the simulated one: each side is a check on the other's reading.

ccxt is synchronous, so each of its calls runs in a thread beside the simulator's event loop.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import ccxt  # type: ignore[import-untyped]  # it ships without types
import pytest

from cancelq_worker.simulator import (
    Account,
    Entry,
    Fault,
    Kind,
    RunningSimulator,
    Settings,
    Simulator,
    State,
    serve,
)

PAIR = "BTC/USDT"

T = TypeVar("T")


def client_of(base_url: str, **config: Any) -> Any:
    """ccxt's Bybit client, spot only, pointed at the simulator; without ccxt's own throttle."""
    client = ccxt.bybit(
        {
            "apiKey": "sim-key",
            "secret": "sim-secret",
            "enableRateLimit": False,
            "options": {"fetchMarkets": {"types": ["spot"]}, "defaultType": "spot"},
            **config,
        }
    )
    for environment in ("api", "demotrading"):
        client.urls[environment] = dict.fromkeys(client.urls[environment], base_url)
    client.session.trust_env = False
    return client


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    simulator = Simulator(rng=random.Random(1), settings=Settings(symbol_cancel_delay_ms=0))
    async with serve(simulator) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> Any:
    client = client_of(server.base_url)
    await run(client.load_markets)
    return client


async def run(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await asyncio.to_thread(function, *args, **kwargs)


def place(server: RunningSimulator, count: int = 1, **fields: Any) -> list[str]:
    entry = Entry(**{"symbol": "BTCUSDT", **fields})
    return [server.simulator.add_order(entry, venue="bybit").order_id for _ in range(count)]


def move(server: RunningSimulator, order_id: str, state: State) -> None:
    server.simulator.move_order(order_id, state, venue="bybit")


def state(server: RunningSimulator, order_id: str) -> str:
    return str(server.simulator.truth_of([order_id], venue="bybit").entries[0]["state"])


async def fetch(client: Any, order_id: str) -> Any:
    return await run(client.fetch_order, order_id, PAIR, {"acknowledged": True})


async def test_markets_and_currencies_load(client: Any) -> None:
    assert client.markets[PAIR]["id"] == "BTCUSDT"
    assert client.markets[PAIR]["spot"]
    assert {market["type"] for market in client.markets.values()} == {"spot"}
    assert {"BTC", "USDT", "ETH"} <= set(client.currencies)
    assert await run(client.is_unified_enabled) == [False, True]


@pytest.mark.parametrize("ahead_ms", [90_000, -90_000])
async def test_the_clock_difference_is_measured(server: RunningSimulator, ahead_ms: int) -> None:
    client = client_of(server.base_url)
    await run(client.load_markets)
    server.simulator.configure({"clock_offset_ms": ahead_ms})
    with pytest.raises(ccxt.InvalidNonce):
        await run(client.fetch_open_orders, PAIR)
    await run(client.load_time_difference)
    assert await run(client.fetch_open_orders, PAIR) == []


async def test_an_order_is_placed_seen_and_cancelled(server: RunningSimulator, client: Any) -> None:
    placed = await run(
        client.create_order, PAIR, "limit", "buy", 0.5, 20_000, {"clientOrderId": "desk-1", "postOnly": True}
    )
    order_id = placed["id"]
    assert placed["clientOrderId"] == "desk-1"
    seen = await fetch(client, order_id)
    assert (seen["status"], seen["clientOrderId"], seen["symbol"]) == ("open", "desk-1", PAIR)
    assert (seen["amount"], seen["price"], seen["filled"], seen["side"]) == (0.5, 20_000.0, 0.0, "buy")
    assert (seen["remaining"], seen["triggerPrice"]) == (0.5, None)
    [listed] = await run(client.fetch_open_orders, PAIR)
    assert (listed["id"], listed["price"], listed["status"]) == (order_id, 20_000.0, "open")
    cancelled = await run(client.cancel_order, order_id, PAIR)
    assert cancelled["id"] == order_id
    assert (await fetch(client, order_id))["status"] == "canceled"
    assert (await run(client.fetch_closed_order, order_id, PAIR, {"orderStatus": "Cancelled"}))["id"] == order_id
    assert [one["id"] for one in await run(client.fetch_canceled_orders, PAIR)] == [order_id]
    assert await run(client.fetch_open_orders, PAIR) == []


async def test_an_order_can_be_cancelled_by_its_client_id(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server, client_id="a-b_c")
    cancelled = await run(client.cancel_order, None, PAIR, {"orderLinkId": "a-b_c"})
    assert cancelled["id"] == order_id
    assert state(server, order_id) == "cancelled"


async def test_a_batch_is_cancelled(server: RunningSimulator, client: Any) -> None:
    ids = place(server, 10)
    answered = await run(client.cancel_orders, ids, PAIR)
    assert [order["id"] for order in answered] == ids
    assert {state(server, order_id) for order_id in ids} == {"cancelled"}
    with pytest.raises(ccxt.BadRequest, match="10001"):
        await run(client.cancel_orders, ids + ids[:1], PAIR)


async def test_a_batch_holds_a_nameless_row_for_what_failed(server: RunningSimulator, client: Any) -> None:
    [live] = place(server)
    answered = await run(client.cancel_orders, ["1", live], PAIR)
    assert [order["id"] or "" for order in answered] == ["", live]
    assert state(server, live) == "cancelled"


async def test_a_whole_pair_is_cancelled(server: RunningSimulator, client: Any) -> None:
    mine, [other] = place(server, 3), place(server, symbol="ETHUSDT")
    answered = await run(client.cancel_all_orders, PAIR)
    assert sorted(order["id"] for order in answered) == mine
    assert {state(server, order_id) for order_id in mine} == {"cancelled"}
    assert state(server, other) == "live"
    server.simulator.configure({"bybit_cancel_all_list": False})
    [nameless] = await run(client.cancel_all_orders, None)
    assert nameless["id"] is None
    assert state(server, other) == "cancelled"


async def test_conditional_orders_are_placed_listed_and_cancelled(server: RunningSimulator, client: Any) -> None:
    placed = await run(client.create_order, PAIR, "limit", "buy", 0.5, 19_000, {"triggerPrice": 19_500})
    [listed] = await run(client.fetch_open_orders, PAIR, None, None, {"trigger": True})
    assert (listed["id"], listed["triggerPrice"], listed["status"]) == (placed["id"], 19_500.0, "open")
    with pytest.raises(ccxt.OrderNotFound):
        await run(client.cancel_order, placed["id"], PAIR)
    await run(client.cancel_order, placed["id"], PAIR, {"trigger": True})
    assert state(server, placed["id"]) == "cancelled"
    [ended] = await run(client.fetch_canceled_and_closed_orders, PAIR, None, None, {"trigger": True})
    assert (ended["id"], ended["status"]) == (placed["id"], "canceled")
    ids = place(server, 2, kind=Kind.plan, trigger_price="90")
    answered = await run(client.cancel_all_orders, PAIR, {"trigger": True})
    assert sorted(order["id"] for order in answered) == ids


async def test_tpsl_orders_are_placed_and_cancelled(server: RunningSimulator, client: Any) -> None:
    placed = await run(client.create_order, PAIR, "limit", "sell", 0.5, 21_000, {"takeProfitPrice": 20_900})
    order_id = placed["id"]
    [seen] = await run(client.fetch_open_orders, PAIR, None, None, {"orderFilter": "tpslOrder"})
    assert (seen["id"], seen["info"]["stopOrderType"], seen["info"]["orderStatus"]) == (
        order_id,
        "tpslOrder",
        "Untriggered",
    )
    await run(client.cancel_order, order_id, PAIR, {"orderFilter": "tpslOrder"})
    assert (await fetch(client, order_id))["info"]["orderStatus"] == "Deactivated"


async def test_pages_are_walked_to_their_end(server: RunningSimulator, client: Any) -> None:
    ids = place(server, 65)
    listed = await run(client.fetch_open_orders, PAIR, None, None, {"paginate": True})
    assert sorted(order["id"] for order in listed) == ids


async def test_orders_are_placed_in_a_batch(server: RunningSimulator, client: Any) -> None:
    order = {"symbol": PAIR, "type": "limit", "side": "buy", "amount": 0.5, "price": 20_000}
    answered = await run(client.create_orders, [order, {**order, "params": {"clientOrderId": "a.b"}}])
    assert [one["status"] for one in answered] == [None, "rejected"]
    assert state(server, answered[0]["id"]) == "live"


async def test_fills_are_read(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server, size="0.5", price="20000")
    move(server, order_id, State.filled)
    [trade] = await run(client.fetch_my_trades, PAIR)
    assert (trade["order"], trade["amount"], trade["price"]) == (order_id, 0.5, 20_000.0)
    assert trade["fee"] == {"cost": 0.0005, "currency": "BTC", "rate": 0.001}
    seen = await fetch(client, order_id)
    assert (seen["status"], seen["filled"], seen["cost"]) == ("closed", 0.5, 10_000.0)


@pytest.mark.parametrize("wrong", [{"secret": "guess"}, {"apiKey": "guess"}])
async def test_wrong_keys_are_refused(server: RunningSimulator, wrong: dict[str, str]) -> None:
    client = client_of(server.base_url, **wrong)
    with pytest.raises(ccxt.AuthenticationError):
        await run(client.fetch_currencies)


async def test_a_key_that_may_only_read_is_refused(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server)
    server.simulator.configure({"bybit_read_only_keys": ["sim-key"]})
    with pytest.raises(ccxt.PermissionDenied):
        await run(client.cancel_order, order_id, PAIR)


async def test_a_dead_order_is_not_found(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server)
    move(server, order_id, State.filled)
    for dead in (order_id, "1523347543495541248"):
        with pytest.raises(ccxt.OrderNotFound):
            await run(client.cancel_order, dead, PAIR)
    with pytest.raises(ccxt.OrderNotFound):
        await fetch(client, "1523347543495541248")


async def test_calls_over_the_limit_are_refused(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"limits": {"bybit/realtime": (3, 60_000)}})
    [order_id] = place(server)
    for _ in range(3):
        await fetch(client, order_id)
    with pytest.raises(ccxt.RateLimitExceeded):
        await fetch(client, order_id)


async def test_an_address_over_its_limit_is_refused(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"limits": {"bybit/ip": 0}})
    with pytest.raises(ccxt.NetworkError, match="access too frequent"):
        await run(client.fetch_open_orders, PAIR)


async def test_a_lost_answer_is_a_network_error(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault("execute_and_drop"))
    with pytest.raises(ccxt.NetworkError):
        await run(client.cancel_order, order_id, PAIR)
    assert state(server, order_id) == "cancelled"


async def test_demo_trading_cancels_one_by_one(server: RunningSimulator) -> None:
    server.simulator.add_account(Account("bybit", "demo-key", "demo-secret", "", uid="1000", demo=True))
    server.simulator.configure({"bybit_environment": "demo"})
    ids = place(server, 2)
    client = client_of(server.base_url, apiKey="demo-key", secret="demo-secret")
    client.enable_demo_trading(True)
    await run(client.load_markets)
    with pytest.raises(ccxt.ExchangeError, match="10032"):
        await run(client.cancel_orders, ids, PAIR)
    await run(client.cancel_order, ids[0], PAIR)
    assert [state(server, order_id) for order_id in ids] == ["cancelled", "live"]
    live = client_of(server.base_url)
    with pytest.raises(ccxt.AuthenticationError, match="10003"):
        await run(live.load_markets)
