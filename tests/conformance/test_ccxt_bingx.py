"""ccxt, which knows the real BingX, trades at the simulated one: each side is a check on the other's reading.

ccxt is synchronous, so each of its calls runs in a thread beside the simulator's event loop.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import ccxt  # type: ignore[import-untyped]  # it ships without types
import pytest

from cancelq_worker.simulator import Entry, Fault, Kind, RunningSimulator, Settings, Simulator, State, serve

PAIR = "BTC/USDT"
UNKNOWN = "1111461743123927041"

T = TypeVar("T")


def client_of(base_url: str, **config: Any) -> Any:
    """ccxt's BingX client, pointed at the simulator; without ccxt's own throttle."""
    client = ccxt.bingx(
        {
            "apiKey": "sim-key",
            "secret": "sim-secret",
            "enableRateLimit": False,
            "options": {"defaultType": "spot"},
            **config,
        }
    )
    client.urls["api"] = dict.fromkeys(client.urls["api"], f"{base_url}/openApi")
    client.session.trust_env = False
    return client


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    async with serve(Simulator(rng=random.Random(1), settings=Settings(limits={"*": None}))) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> Any:
    client = client_of(server.base_url)
    await run(client.load_markets)
    return client


async def run(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await asyncio.to_thread(function, *args, **kwargs)


def place(server: RunningSimulator, count: int = 1, **fields: Any) -> list[str]:
    entry = Entry(**{"symbol": "BTC-USDT", **fields})
    return [server.simulator.add_order(entry, venue="bingx").order_id for _ in range(count)]


def state(server: RunningSimulator, order_id: str) -> str:
    return str(server.simulator.truth_of([order_id], venue="bingx").entries[0]["state"])


async def test_markets_and_currencies_load(client: Any) -> None:
    assert client.markets[PAIR]["id"] == "BTC-USDT"
    assert client.markets[PAIR]["spot"]
    assert client.markets[PAIR]["active"]
    assert {market["type"] for market in client.markets.values()} == {"spot"}
    assert {"BTC", "USDT", "ETH"} <= set(client.currencies)


async def test_the_clock_difference_is_measured(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"clock_offset_ms": 90_000})
    # Its table knows the code of a clock that is off as the one of a wrong pair.
    with pytest.raises(ccxt.BadSymbol, match="timestamp mismatch"):
        await run(client.fetch_open_orders, PAIR)
    told_ms = await run(client.fetch_time)
    assert told_ms - client.milliseconds() == pytest.approx(90_000, abs=5_000)


async def test_an_order_is_placed_seen_and_cancelled(server: RunningSimulator, client: Any) -> None:
    placed = await run(
        client.create_order, PAIR, "limit", "buy", 0.5, 20_000, {"clientOrderId": "desk_1", "postOnly": True}
    )
    order_id = placed["id"]
    assert (placed["status"], placed["clientOrderId"]) == ("open", "desk_1")
    seen = await run(client.fetch_order, order_id, PAIR)
    assert (seen["id"], seen["status"], seen["clientOrderId"], seen["symbol"]) == (order_id, "open", "desk_1", PAIR)
    assert (seen["amount"], seen["price"], seen["filled"], seen["side"]) == (0.5, 20_000.0, 0.0, "buy")
    [listed] = await run(client.fetch_open_orders, PAIR)
    assert (listed["id"], listed["price"], listed["status"]) == (order_id, 20_000.0, "open")
    cancelled = await run(client.cancel_order, order_id, PAIR)
    assert (cancelled["id"], cancelled["status"]) == (order_id, "canceled")
    assert (await run(client.fetch_order, order_id, PAIR))["status"] == "canceled"
    assert [one["id"] for one in await run(client.fetch_canceled_orders, PAIR)] == [order_id]
    assert await run(client.fetch_open_orders, PAIR) == []


async def test_a_market_order_is_filled_and_its_fill_read(client: Any) -> None:
    placed = await run(client.create_order, PAIR, "market", "sell", 0.5)
    [trade] = await run(client.fetch_my_trades, PAIR)
    assert (trade["order"], trade["amount"], trade["price"], trade["side"]) == (placed["id"], 0.5, 100.0, "sell")
    [closed] = await run(client.fetch_closed_orders, PAIR)
    assert (closed["id"], closed["status"], closed["filled"], closed["cost"]) == (placed["id"], "closed", 0.5, 50.0)


async def test_orders_are_placed_in_a_batch(server: RunningSimulator, client: Any) -> None:
    wanted = {"symbol": PAIR, "type": "limit", "side": "buy", "amount": 1, "price": 20_000}
    placed = await run(client.create_orders, [wanted] * 5)
    assert {state(server, order["id"]) for order in placed} == {"live"}
    assert len({order["id"] for order in placed}) == 5


async def test_an_order_can_be_named_by_its_client_id(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server, client_id="mine_1")
    cancelled = await run(client.cancel_order, None, PAIR, {"clientOrderId": "mine_1"})
    assert cancelled["id"] == order_id
    assert state(server, order_id) == "cancelled"


async def test_a_batch_is_cancelled_by_either_id(server: RunningSimulator, client: Any) -> None:
    ids = place(server, 10)
    answered = await run(client.cancel_orders, ids, PAIR)
    assert [order["id"] for order in answered] == ids
    assert {order["status"] for order in answered} == {"canceled"}
    named = [place(server, client_id=f"b_{number}")[0] for number in range(3)]
    await run(client.cancel_orders, [], PAIR, {"clientOrderIds": ["b_0", "b_1", "b_2"]})
    assert {state(server, order_id) for order_id in ids + named} == {"cancelled"}


async def test_a_batch_is_all_or_nothing_unless_it_says_otherwise(server: RunningSimulator, client: Any) -> None:
    [live] = place(server)
    with pytest.raises(ccxt.ExchangeError, match="order not exist"):
        await run(client.cancel_orders, [live, UNKNOWN], PAIR)
    assert state(server, live) == "live"
    answered = await run(client.cancel_orders, [live, UNKNOWN], PAIR, {"process": 1})
    assert [order["id"] for order in answered] == [live]
    with pytest.raises(ccxt.BadRequest, match="OrderIDs"):
        await run(client.cancel_orders, place(server, 11), PAIR)


async def test_a_pair_or_everything_is_cancelled(server: RunningSimulator, client: Any) -> None:
    mine, [other] = place(server, 3), place(server, symbol="ETH-USDT")
    answered = await run(client.cancel_all_orders, PAIR)
    assert sorted(order["id"] for order in answered) == mine
    assert (state(server, mine[0]), state(server, other)) == ("cancelled", "live")
    await run(client.cancel_all_orders)
    assert state(server, other) == "cancelled"


async def test_the_dead_mans_switch_is_armed_and_closed(client: Any) -> None:
    armed = await run(client.cancel_all_orders_after, 10_000)
    assert armed["data"]["status"] == "ACTIVATED"
    assert (await run(client.cancel_all_orders_after, 0))["data"]["status"] == "CLOSED"


@pytest.mark.parametrize(
    ("param", "kind", "told"), [("triggerPrice", Kind.plan, "triggerPrice"), ("stopLossPrice", Kind.tpsl, None)]
)
async def test_trigger_orders_are_placed_listed_and_cancelled(
    server: RunningSimulator, client: Any, param: str, kind: Kind, told: str | None
) -> None:
    placed = await run(client.create_order, PAIR, "limit", "sell", 0.5, 19_000, {param: 19_500})
    truth = server.simulator.truth_of([placed["id"]], venue="bingx").entries[0]
    assert truth["kind"] == kind
    [listed] = await run(client.fetch_open_orders, PAIR)
    assert (listed["id"], listed["status"]) == (placed["id"], "open")
    # Of a TAKE_STOP order it cannot tell which of the two prices it is, and gives both.
    prices = (listed["triggerPrice"], listed["stopLossPrice"], listed["takeProfitPrice"])
    assert prices == ((19_500.0, None, None) if told else (None, 19_500.0, 19_500.0))
    await run(client.cancel_order, placed["id"], PAIR)
    assert state(server, placed["id"]) == "cancelled"


async def test_a_dead_order_is_refused_with_errors_that_ccxt_cannot_tell_apart(
    server: RunningSimulator, client: Any
) -> None:
    [order_id] = place(server)
    server.simulator.move_order(order_id, State.filled, venue="bingx")
    with pytest.raises(ccxt.BadRequest, match="FILLED or CANCELLED already"):
        await run(client.cancel_order, order_id, PAIR)
    for ask in (client.cancel_order, client.fetch_order):
        with pytest.raises(ccxt.ExchangeError, match="order not exist"):
            await run(ask, UNKNOWN, PAIR)


@pytest.mark.parametrize(
    ("wrong", "error"), [({"secret": "guess"}, ccxt.AuthenticationError), ({"apiKey": "guess"}, ccxt.ExchangeError)]
)
async def test_wrong_keys_are_refused(
    server: RunningSimulator, wrong: dict[str, str], error: type[ccxt.BaseError]
) -> None:
    client = client_of(server.base_url, **wrong)
    with pytest.raises(error, match=r"10041[23]|100001"):
        await run(client.fetch_open_orders)


async def test_calls_over_the_limit_and_a_locked_endpoint_are_refused(server: RunningSimulator, client: Any) -> None:
    server.simulator.configure({"limits": {"*": None, "bingx/query": (3, 60_000)}})
    [order_id] = place(server)
    for _ in range(3):
        await run(client.fetch_order, order_id, PAIR)
    with pytest.raises(ccxt.OperationFailed, match="rate limited"):
        await run(client.fetch_order, order_id, PAIR)
    for _ in range(20):
        with pytest.raises(ccxt.ExchangeError, match="order not exist"):
            await run(client.cancel_order, UNKNOWN, PAIR)
    with pytest.raises(ccxt.OperationFailed, match=r"over 20 error code:100404 .* after time: \d{13}"):
        await run(client.cancel_order, order_id, PAIR)
    assert state(server, order_id) == "live"


async def test_a_lost_answer_is_a_network_error(server: RunningSimulator, client: Any) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault("execute_and_drop"))
    with pytest.raises(ccxt.NetworkError):
        await run(client.cancel_order, order_id, PAIR)
    assert state(server, order_id) == "cancelled"
