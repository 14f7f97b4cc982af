"""Clients nobody here wrote follow orders on the simulated private streams: ccxt's of all three venues, and Bybit's
own, pybit.

ccxt runs in the simulator's event loop; pybit keeps threads of its own, so what it hears is handed over.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import ccxt.pro  # type: ignore[import-untyped]  # it ships without types
import pybit.unified_trading  # type: ignore[import-untyped]  # it ships without types
import pytest

from cancelq_worker.simulator import Entry, RunningSimulator, Settings, Simulator, State, serve

PAIR = "BTC/USDT"
KEYS = {"apiKey": "sim-key", "secret": "sim-secret", "password": "sim-pass"}
SYMBOLS = {"bitget": "BTCUSDT", "bybit": "BTCUSDT", "bingx": "BTC-USDT"}
PATIENCE_S = 20


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    settings = Settings(symbol_cancel_delay_ms=0, limits={"*": None})
    async with serve(Simulator(rng=random.Random(1), settings=settings)) as running:
        yield running


def redirected(urls: Any, server: RunningSimulator) -> Any:
    """The same tree of URLs, on the simulator's host; each keeps its own path."""
    if isinstance(urls, dict):
        return {name: redirected(part, server) for name, part in urls.items()}
    if not isinstance(urls, str):
        return urls
    scheme, _, rest = urls.partition("://")
    _, slash, path = rest.partition("/")
    return (server.ws_url if scheme == "wss" else server.base_url) + slash + path


def waiting(venue: str) -> Any:
    """ccxt's class of a venue, which sets `waits` whenever it begins to wait for a message."""
    base: Any = getattr(ccxt.pro, venue)

    class Waiting(base):  # type: ignore[misc]
        waits = asyncio.Event()

        def watch(self, *args: Any, **kwargs: Any) -> Any:
            future = super().watch(*args, **kwargs)
            self.waits.set()
            return future

        def watch_multiple(self, *args: Any, **kwargs: Any) -> Any:
            future = super().watch_multiple(*args, **kwargs)
            self.waits.set()
            return future

    return Waiting


@pytest.fixture(params=sorted(SYMBOLS))
async def client(request: pytest.FixtureRequest, server: RunningSimulator) -> AsyncIterator[Any]:
    """ccxt's client of one venue, spot only, pointed at the simulator."""
    venue = request.param
    options = {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}
    client = waiting(venue)({**KEYS, "enableRateLimit": False, "options": options})
    client.has["fetchCurrencies"] = False
    client.urls["api"] = redirected(client.urls["api"], server)
    try:
        await client.load_markets()
        yield client
    finally:
        await client.close()


def place(server: RunningSimulator, venue: str, **fields: Any) -> str:
    return server.simulator.add_order(Entry(symbol=SYMBOLS[venue], **fields), venue=venue).order_id


async def heard(client: Any, act: Callable[[], Any]) -> tuple[Any, Any]:
    """What ccxt makes of what comes of an act, and what the act returned."""
    client.waits.clear()
    watching = asyncio.create_task(client.watch_orders(PAIR))
    # ccxt forgets what arrives while nobody waits for it.
    await asyncio.wait_for(client.waits.wait(), PATIENCE_S)
    done = act()
    (order,) = await asyncio.wait_for(watching, PATIENCE_S)
    # ccxt goes on changing the object it gave.
    return dict(order), done


async def test_ccxt_follows_an_order_from_its_entry_to_its_cancel(server: RunningSimulator, client: Any) -> None:
    def moved(state: State, filled: str | None = None) -> Callable[[], Any]:
        return lambda: server.simulator.move_order(order_id, state, venue=client.id, filled=filled)

    first = asyncio.create_task(client.watch_orders(PAIR))
    await asyncio.wait_for(server.subscribed(client.id), PATIENCE_S)
    place(server, client.id)
    await asyncio.wait_for(first, PATIENCE_S)

    entered, order_id = await heard(client, lambda: place(server, client.id, size="8", price="30000.5"))
    filled, _ = await heard(client, moved(State.partially_filled, "3"))
    cancelled, _ = await heard(client, moved(State.cancelled))
    assert {one["id"] for one in (entered, filled, cancelled)} == {order_id}
    assert (entered["symbol"], entered["status"], entered["side"]) == (PAIR, "open", "buy")
    assert (entered["type"], entered["price"], entered["amount"]) == ("limit", 30000.5, 8)
    assert (filled["status"], filled["filled"]) == ("open", 3)
    # To ccxt, Bybit's "PartiallyFilledCanceled" is an order that has ended, not one that was cancelled.
    assert (cancelled["status"], cancelled["filled"]) == ("closed" if client.id == "bybit" else "canceled", 3)


# BingX's stream has no login but the listen key, which ccxt gets elsewhere.
@pytest.mark.parametrize(
    ("client", "error"), [("bitget", ccxt.AuthenticationError), ("bybit", ccxt.ExchangeError)], indirect=["client"]
)
async def test_ccxt_is_told_that_its_login_was_refused(
    server: RunningSimulator, client: Any, error: type[Exception]
) -> None:
    server.simulator.configure({"stream_refuse_logins": True})
    with pytest.raises(error):
        await asyncio.wait_for(client.watch_orders(PAIR), PATIENCE_S)


async def test_pybit_follows_orders_and_sees_the_cancel_that_a_fill_beat(
    server: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pybit.unified_trading, "PRIVATE_WSS", f"{server.ws_url}/v5/private")
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[Any] = asyncio.Queue()

    def hand_over(message: Any) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, message)

    def connect() -> Any:
        session = pybit.unified_trading.WebSocket(
            testnet=False, channel_type="private", api_key="sim-key", api_secret="sim-secret", private_auth_expire=60
        )
        # pybit notes a subscription only once it is sent, and closes the connection if its answer comes before that.
        send: Any = session.ws.send
        held_back: list[str] = []
        session.ws.send = held_back.append
        session.order_stream(hand_over)
        session.ws.send = send
        for message in held_back:
            send(message)
        return session

    session = await asyncio.to_thread(connect)
    try:
        await asyncio.wait_for(server.subscribed("bybit"), PATIENCE_S)
        server.simulator.configure({"cancel_delay_ms": 10, "race_fill": 1.0})
        order_id = place(server, "bybit")
        core = server.simulator.core
        book = core.book("bybit", "1000")
        core.cancel(book, book.by_id[order_id], core.log("bybit", "cancel", "POST", "127.0.0.1"))
        rows = [(await asyncio.wait_for(heard.get(), PATIENCE_S))["data"][0] for _ in range(3)]
    finally:
        await asyncio.to_thread(session.exit)
    assert {row["orderId"] for row in rows} == {order_id}
    assert [(row["orderStatus"], row["cancelType"]) for row in rows] == [
        ("New", "UNKNOWN"),
        ("Filled", "UNKNOWN"),
        ("Filled", "CancelByUser"),
    ]
    assert session.auth
