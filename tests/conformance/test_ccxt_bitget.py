"""ccxt, which knows the real Bitget, trades at the simulated one: each side is a check on the other's reading.

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
    """ccxt's Bitget client, spot only, pointed at the simulator; without ccxt's own throttle."""
    client = ccxt.bitget(
        {
            "apiKey": "sim-key",
            "secret": "sim-secret",
            "password": "sim-pass",
            "enableRateLimit": False,
            "options": {"fetchMarkets": {"types": ["spot"]}, "defaultType": "spot"},
            **config,
        }
    )
    client.urls["api"] = dict.fromkeys(client.urls["api"], base_url)
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
    return [server.simulator.add_order(entry).order_id for _ in range(count)]


def state(server: RunningSimulator, order_id: str) -> str:
    return str(server.simulator.truth_of([order_id]).entries[0]["state"])


async def test_markets_and_currencies_load(client: Any) -> None:
    assert client.markets[PAIR]["id"] == "BTCUSDT"
    assert client.markets[PAIR]["spot"]
    assert {market["type"] for market in client.markets.values()} == {"spot"}
    assert {"BTC", "USDT", "ETH"} <= set(client.currencies)


async def test_the_clock_difference_is_measured(server: RunningSimulator) -> None:
    server.simulator.configure({"clock_offset_ms": 90_000})
    client = client_of(server.base_url)
    await run(client.load_markets)
    with pytest.raises(ccxt.InvalidNonce):
        await run(client.fetch_open_orders, PAIR)
    await run(client.load_time_difference)
    assert await run(client.fetch_open_orders, PAIR) == []


async def test_an_order_is_placed_seen_and_cancelled(server: RunningSimulator, client: Any) -> None:
    placed = await run(
        client.create_order, PAIR, "limit", "buy", 0.5, 20_000, {"clientOrderId": "desk-1", "postOnly": True}
    )
    order_id = placed["id"]
    seen = await run(client.fetch_order, order_id, PAIR)
    assert (seen["status"], seen["clientOrderId"], seen["symbol"]) == ("open", "desk-1", PAIR)
    assert (seen["amount"], seen["price"], seen["filled"], seen["side"]) == (0.5, 20_000.0, 0.0, "buy")
    [listed] = await run(client.fetch_open_orders, PAIR)
    assert (listed["id"], listed["price"], listed["status"]) == (order_id, 20_000.0, "open")
    cancelled = await run(client.cancel_order, order_id, PAIR)
    assert cancelled["id"] == order_id
    assert (await run(client.fetch_order, order_id, PAIR))["status"] == "canceled"
    assert [one["id"] for one in await run(client.fetch_canceled_orders, PAIR)] == [order_id]
    assert await run(client.fetch_open_orders, PAIR) == []


async def test_an_order_can_be_named_by_its_client_id(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server, client_id="a+b#c")
    seen = await run(client.fetch_order, None, PAIR, {"clientOrderId": "a+b#c"})
    assert seen["id"] == order_id
    await run(client.cancel_order, None, PAIR, {"clientOrderId": "a+b#c"})
    assert state(server, order_id) == "cancelled"


async def test_a_batch_is_cancelled(server: RunningSimulator, client: Any) -> None:
    ids = place(server, 50)
    answered = await run(client.cancel_orders, ids, PAIR)
    assert sorted(order["id"] for order in answered) == ids
    assert {state(server, order_id) for order_id in ids} == {"cancelled"}
    with pytest.raises(ccxt.ExchangeError, match="40912"):
        await run(client.cancel_orders, ids + ids[:1], PAIR)


async def test_a_batch_leaves_out_what_failed(server: RunningSimulator, client: Any) -> None:
    [live] = place(server)
    answered = await run(client.cancel_orders, [live, "1"], PAIR)
    assert [order["id"] for order in answered] == [live]


async def test_a_whole_pair_is_cancelled(server: RunningSimulator, client: Any) -> None:
    mine, [other] = place(server, 3), place(server, symbol="ETHUSDT")
    [answered] = await run(client.cancel_all_orders, PAIR)
    assert answered["symbol"] == PAIR
    assert {state(server, order_id) for order_id in mine} == {"cancelled"}
    assert state(server, other) == "live"


async def test_trigger_orders_are_placed_listed_and_cancelled(server: RunningSimulator, client: Any) -> None:
    placed = await run(client.create_order, PAIR, "limit", "buy", 0.5, 19_000, {"triggerPrice": 19_500})
    [listed] = await run(client.fetch_open_orders, PAIR, None, None, {"trigger": True})
    assert (listed["id"], listed["triggerPrice"], listed["status"]) == (placed["id"], 19_500.0, "open")
    await run(client.cancel_order, placed["id"], PAIR, {"trigger": True})
    assert state(server, placed["id"]) == "cancelled"
    [ended] = await run(client.fetch_canceled_orders, PAIR, None, None, {"trigger": True})
    assert ended["id"] == placed["id"]
    ids = place(server, 2, kind=Kind.plan, trigger_price="90")
    # What ccxt returns here names no order: it reads the answer as that of a whole pair's cancel.
    await run(client.cancel_all_orders, PAIR, {"trigger": True})
    assert {state(server, order_id) for order_id in ids} == {"cancelled"}


async def test_a_fired_trigger_order_counts_as_closed(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server, kind=Kind.plan, trigger_price="90")
    server.simulator.move_order(order_id, State.triggered)
    [ended] = await run(client.fetch_canceled_and_closed_orders, PAIR, None, None, {"trigger": True})
    assert (ended["id"], ended["status"]) == (order_id, "closed")


async def test_fills_are_read(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server, size="0.5", price="20000")
    server.simulator.move_order(order_id, State.filled)
    [trade] = await run(client.fetch_my_trades, PAIR)
    assert (trade["order"], trade["amount"], trade["price"]) == (order_id, 0.5, 20_000.0)
    seen = await run(client.fetch_order, order_id, PAIR)
    assert (seen["status"], seen["filled"], seen["cost"]) == ("closed", 0.5, 10_000.0)


@pytest.mark.parametrize(
    "wrong", [{"secret": "guess"}, {"password": "guess"}, {"apiKey": "guess"}, {"apiKey": "bg_guess"}]
)
async def test_wrong_keys_are_refused(server: RunningSimulator, wrong: dict[str, str]) -> None:
    client = client_of(server.base_url, **wrong)
    await run(client.load_markets)
    with pytest.raises(ccxt.AuthenticationError):
        await run(client.fetch_open_orders, PAIR)


async def test_a_dead_order_is_not_found(server: RunningSimulator, client: Any) -> None:
    [order_id], [plan] = place(server), place(server, kind=Kind.plan, trigger_price="90")
    server.simulator.move_order(order_id, State.filled)
    for dead in (order_id, "1111461743123927040", plan):
        with pytest.raises(ccxt.OrderNotFound):
            await run(client.cancel_order, dead, PAIR)
    with pytest.raises(ccxt.OrderNotFound):
        await run(client.fetch_order, "1111461743123927040", PAIR)


async def test_calls_over_the_limit_are_refused(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"limits": {"bitget/orderInfo": (3, 60_000)}})
    [order_id] = place(server)
    for _ in range(3):
        await run(client.fetch_order, order_id, PAIR)
    # The status alone would be its RateLimitExceeded; the code in the body is looked at first.
    with pytest.raises(ccxt.DDoSProtection):
        await run(client.fetch_order, order_id, PAIR)


async def test_a_lost_answer_is_a_network_error(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault("execute_and_drop"))
    with pytest.raises(ccxt.NetworkError):
        await run(client.cancel_order, order_id, PAIR)
    assert state(server, order_id) == "cancelled"


async def test_demo_trading_sends_the_header_that_a_demo_key_needs(server: RunningSimulator) -> None:
    account = Account("bitget", "demo-key", "demo-secret", "demo-pass", uid="2000", demo=True)
    server.simulator.add_account(account)
    client = client_of(server.base_url, apiKey="demo-key", secret="demo-secret", password="demo-pass")
    await run(client.load_markets)
    with pytest.raises(ccxt.ExchangeError, match="40099"):
        await run(client.fetch_open_orders, PAIR)
    client.enable_demo_trading(True)
    assert await run(client.fetch_open_orders, PAIR) == []
