"""BingX's spot account stream as the simulator has it, on real sockets."""

import gzip
import hmac
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from cancelq_worker.simulator import (
    Entry,
    Kind,
    ManualClock,
    Request,
    RunningSimulator,
    Simulator,
    State,
    serve,
)
from tests.stream_clients import KEY, SECRET, BingxClient, bingx_client

NOW_MS = 1_700_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[RunningSimulator]:
    async with serve(Simulator(clock=clock)) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> AsyncIterator[BingxClient]:
    """Subscribed."""
    async with bingx_client(server, listen_key_of(server)) as client:
        said = await client.subscribe()
        assert said == {"code": 0, "id": "a-1", "msg": "SUCCESS", "timestamp": NOW_MS}
        yield client


def listen_key_call(server: RunningSimulator, method: str, **params: str) -> Any:
    core = server.simulator.core
    core.tick()
    asked = {**params, "timestamp": str(core.venue_us() // 1000)}
    query = "&".join(f"{name}={value}" for name, value in sorted(asked.items()))
    sign = hmac.digest(SECRET.encode(), query.encode(), "sha256").hex()
    path, headers = b"/openApi/user/auth/userDataStream", {b"x-bx-apikey": KEY.encode()}
    return server.simulator.call(Request(method, path, f"{query}&signature={sign}".encode(), headers, b""))


def listen_key_of(server: RunningSimulator) -> str:
    return str(orjson.loads(listen_key_call(server, "POST").body)["listenKey"])


def place(server: RunningSimulator, uid: str = "1000", **fields: Any) -> str:
    entry = Entry(**{"symbol": "BTC-USDT", **fields})
    return server.simulator.add_order(entry, venue="bingx", uid=uid).order_id


def move(server: RunningSimulator, order_id: str, state: State, filled: str | None = None) -> None:
    server.simulator.move_order(order_id, state, venue="bingx", filled=filled)


async def test_an_order_is_told_from_its_entry_to_its_cancel(
    server: RunningSimulator, clock: ManualClock, client: BingxClient
) -> None:
    order_id = place(server, client_id="mine_1", size="8", price="30000.5", side="sell")
    clock.advance(ms=5)
    move(server, order_id, State.partially_filled, "3")
    clock.advance(ms=5)
    move(server, order_id, State.cancelled)
    entered, filled, cancelled = [await client.hears() for _ in range(3)]
    assert (entered["code"], entered["dataType"]) == (0, "spot.executionReport")
    data = entered["data"]
    assert str(data.pop("i")) == order_id
    assert data == {
        "e": "executionReport",
        "E": NOW_MS,
        "s": "BTC-USDT",
        "S": "SELL",
        "o": "LIMIT",
        "q": 8,
        "p": 30000.5,
        "x": "NEW",
        "X": "PENDING",
        "l": 0,
        "z": 0,
        "L": 0,
        "n": 0,
        "N": "",
        "T": 0,
        "t": 0,
        "O": NOW_MS,
        "Z": 0,
        "Y": 0,
        "Q": 0,
        "m": False,
    }
    data = filled["data"]
    assert (data["x"], data["X"], data["l"], data["z"], data["L"]) == ("TRADE", "PARTIALLY_FILLED", 3, 3, 30000.5)
    assert (data["T"], data["O"], data["Z"]) == (NOW_MS + 5, NOW_MS, 90001.5)
    data = cancelled["data"]
    assert (data["x"], data["X"], data["l"], data["z"], data["E"]) == ("CANCELED", "CANCELED", 0, 3, NOW_MS + 10)


async def test_a_fill_tells_its_own_size_and_the_total(server: RunningSimulator, client: BingxClient) -> None:
    order_id = place(server, size="8")
    move(server, order_id, State.partially_filled, "3")
    move(server, order_id, State.filled)
    told = [(await client.hears())["data"] for _ in range(3)]
    assert [(one["X"], one["l"], one["z"]) for one in told] == [
        ("PENDING", 0, 0),
        ("PARTIALLY_FILLED", 3, 3),
        ("FILLED", 5, 8),
    ]


async def test_a_cancel_that_a_fill_beats_is_told_as_the_fill_alone(
    server: RunningSimulator, clock: ManualClock, client: BingxClient
) -> None:
    server.simulator.configure({"cancel_delay_ms": 100, "race_fill": 1.0})
    order_id = place(server)
    core = server.simulator.core
    book = core.book("bingx", "1000")
    core.cancel(book, book.by_id[order_id], core.log("bingx", "cancel", "POST", "127.0.0.1"))
    clock.advance(ms=100)
    server.simulator.tick()
    assert [(await client.hears())["data"]["X"] for _ in range(2)] == ["PENDING", "FILLED"]
    await client.quiet()


@pytest.mark.parametrize(("form", "types"), [("number", {int}), ("text", {str}), ("mixed", {int, str})])
async def test_ids_come_as_numbers_and_as_text_with_all_their_digits(
    server: RunningSimulator, client: BingxClient, form: str, types: set[type]
) -> None:
    server.simulator.configure({"bingx_stream_ids": form})
    placed = [place(server) for _ in range(30)]
    told = [(await client.hears())["data"]["i"] for _ in placed]
    assert {type(one) for one in told} == types
    assert [str(one) for one in told] == placed
    assert all(int(one) > 2**53 for one in told)


async def test_numbers_keep_every_digit(server: RunningSimulator, client: BingxClient) -> None:
    place(server, size="0.123456789012345678", price="007.10")
    frame = await client.raw()
    assert isinstance(frame, bytes)
    text = gzip.decompress(frame).decode()
    assert '"q":0.123456789012345678,' in text
    assert '"p":7.10,' in text


@pytest.mark.parametrize(("kind", "word"), [(Kind.tpsl, "TAKE_STOP_LIMIT"), (Kind.plan, "TRIGGER_LIMIT")])
async def test_orders_with_a_trigger_are_told_by_their_type(
    server: RunningSimulator, client: BingxClient, kind: Kind, word: str
) -> None:
    order_id = place(server, kind=kind, trigger_price="90")
    move(server, order_id, State.cancelled)
    told = [(await client.hears())["data"] for _ in range(2)]
    assert [(one["o"], one["X"]) for one in told] == [(word, "NEW"), (word, "CANCELED")]


async def test_another_accounts_orders_are_not_told(server: RunningSimulator, client: BingxClient) -> None:
    place(server, uid="2000")
    await client.quiet()


async def test_what_was_before_the_subscription_is_not_told(server: RunningSimulator, client: BingxClient) -> None:
    place(server, created_ms=NOW_MS - 60_000)
    await client.quiet()


# ---- subscribing


async def test_nothing_is_told_before_subscribing_or_after_unsubscribing(
    server: RunningSimulator, client: BingxClient
) -> None:
    assert (await client.subscribe(reqType="unsub"))["code"] == 0
    place(server)
    await client.quiet()
    await client.says({"id": "b", "dataType": "spot.executionReport"})
    assert (await client.hears())["id"] == "b"
    order_id = place(server)
    assert str((await client.hears())["data"]["i"]) == order_id


@pytest.mark.parametrize("changed", [{"dataType": "ACCOUNT_UPDATE"}, {"reqType": "dance"}, {"dataType": None}])
async def test_what_the_stream_does_not_have_is_refused(client: BingxClient, changed: dict[str, Any]) -> None:
    assert (await client.subscribe(**changed))["code"] == 100400


@pytest.mark.parametrize("listen_key", ["", "nonsense"])
async def test_without_a_listen_key_nothing_is_subscribed(server: RunningSimulator, listen_key: str) -> None:
    async with bingx_client(server, listen_key) as client:
        assert (await client.subscribe())["code"] == 100413


async def test_logins_can_be_refused(server: RunningSimulator, client: BingxClient) -> None:
    server.simulator.configure({"stream_refuse_logins": True})
    async with bingx_client(server, listen_key_of(server)) as late:
        assert (await late.subscribe())["code"] == 100413
    # Who is in stays in.
    place(server)
    assert (await client.hears())["code"] == 0


# ---- the listen key's end, and heartbeats


async def test_a_listen_key_that_was_given_up_ends_the_stream(server: RunningSimulator, clock: ManualClock) -> None:
    listen_key = listen_key_of(server)
    async with bingx_client(server, listen_key) as client:
        await client.subscribe()
        assert listen_key_call(server, "DELETE", listenKey=listen_key).status == 200
        clock.advance(ms=5_000)
        server.simulator.tick()
        assert await client.hears() == {"e": "listenKeyExpired", "E": NOW_MS + 5_000, "listenKey": listen_key}
        assert await client.closed() is not None


async def test_a_listen_key_lasts_an_hour(server: RunningSimulator, clock: ManualClock, client: BingxClient) -> None:
    for _ in range(71):
        clock.advance(ms=50_000)
        server.simulator.tick()
        for _ in range(10):
            assert "ping" in await client.hears()
        await client.says({"pong": "x", "time": "y"})
        await client.quiet()
    clock.advance(ms=50_000)
    server.simulator.tick()
    said = await client.hears()
    assert (said["e"], said["E"]) == ("listenKeyExpired", NOW_MS + 3_600_000)
    assert await client.closed() is not None


async def test_the_heartbeat_is_an_object_and_wants_an_answer(
    server: RunningSimulator, clock: ManualClock, client: BingxClient
) -> None:
    clock.advance(ms=5_000)
    server.simulator.tick()
    beat = await client.hears()
    assert len(beat["ping"]) == 32
    assert beat["time"] == "2023-11-15T06:13:25.000+0800"
    await client.says({"pong": beat["ping"], "time": beat["time"]})
    await client.quiet()
    clock.advance(ms=59_999)
    server.simulator.tick()
    for _ in range(11):
        assert "ping" in await client.hears()
    await client.quiet()
    clock.advance(ms=1)
    server.simulator.tick()
    assert await client.closed() is not None


async def test_the_heartbeat_may_be_a_text(server: RunningSimulator, clock: ManualClock, client: BingxClient) -> None:
    server.simulator.configure({"bingx_stream_ping": "text"})
    for _ in range(30):
        clock.advance(ms=5_000)
        server.simulator.tick()
        assert await client.hears() == "Ping"
        await client.says("Pong")
        await client.quiet()


async def test_an_object_as_ping_is_answered_by_one(client: BingxClient) -> None:
    assert await client.asks({"ping": "p", "time": "t"}) == {"pong": "p", "time": "t"}


async def test_sixty_connections_of_one_address_are_taken(server: RunningSimulator) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(bingx_client(server, ""))
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(bingx_client(server, ""))
        assert refused.value.response.status_code == 429
