"""Bitget's private order stream as the simulator has it, on real sockets."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cancelq_worker.simulator import (
    Account,
    Entry,
    Kind,
    ManualClock,
    RunningSimulator,
    Settings,
    Simulator,
    State,
    serve,
)
from tests.stream_clients import BitgetClient, bitget_client

NOW_MS = 1_700_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[RunningSimulator]:
    async with serve(Simulator(clock=clock)) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> AsyncIterator[BitgetClient]:
    """Connected, not logged in."""
    async with bitget_client(server) as client:
        yield client


@pytest.fixture
async def member(client: BitgetClient) -> BitgetClient:
    """Logged in."""
    assert await client.login() == {"event": "login", "code": 0}
    return client


def place(server: RunningSimulator, uid: str = "1000", **fields: Any) -> str:
    return server.simulator.add_order(Entry(**{"symbol": "BTCUSDT", **fields}), uid=uid).order_id


# ---- login


async def test_the_known_signature_is_accepted(server: RunningSimulator, client: BitgetClient) -> None:
    server.simulator.add_account(Account("bitget", "test-api-key", "test-api-secret", "test-passphrase", uid="2000"))
    said = await client.login(
        apiKey="test-api-key",
        passphrase="test-passphrase",
        timestamp="1700000000",
        sign="X3EWQeL5AwAlQUbSLbUp/bShEUaFiRE5JYOIo1BG0Vw=",
    )
    assert said == {"event": "login", "code": 0}
    assert server.simulator.streams.report()["streams"][0]["uid"] == "2000"


async def test_the_time_may_be_in_milliseconds_too(client: BitgetClient) -> None:
    assert (await client.login(**client.claim(stamp=str(NOW_MS))))["event"] == "login"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"sign": "X3EWQeL5AwAlQUbSLbUp/bShEUaFiRE5JYOIo1BG0Vw="}, 30015),
        ({"apiKey": "nobody"}, 30011),
        ({"passphrase": "wrong"}, 30012),
        ({"timestamp": "soon"}, 30013),
        ({"timestamp": str(NOW_MS // 1000 - 31)}, 30014),
        ({"timestamp": str(NOW_MS // 1000 + 31)}, 30014),
        ({"apiKey": None}, 30016),
    ],
)
async def test_each_wrong_part_of_a_login_has_its_code_and_ends_the_connection(
    client: BitgetClient, changed: dict[str, Any], code: int
) -> None:
    said = await client.login(**changed)
    assert (said["event"], said["code"]) == ("error", code)
    assert await client.closed() is not None


async def test_a_connection_can_be_left_open_after_a_refused_login(
    server: RunningSimulator, client: BitgetClient
) -> None:
    server.simulator.configure({"bitget_stream_hangs_up": False})
    assert (await client.login(passphrase="wrong"))["code"] == 30012
    assert (await client.login())["event"] == "login"
    assert server.simulator.streams.report()["logins_refused"] == 1


async def test_the_account_of_another_mode_is_turned_away(server: RunningSimulator, client: BitgetClient) -> None:
    server.simulator.add_account(Account("bitget", "unified", "s", "p", uid="2", uta=True))
    assert (await client.login(**client.claim("unified", "s", "p")))["code"] == 30005


# ---- subscriptions


async def test_nothing_is_subscribed_before_a_login(client: BitgetClient) -> None:
    said = await client.subscribe()
    assert (said["event"], said["code"]) == ("error", 30004)


@pytest.mark.parametrize(
    "arg",
    [
        {"instType": "SPOT", "channel": "nonsense", "instId": "default"},
        {"instType": "USDT-FUTURES", "channel": "orders", "instId": "default"},
        {"instType": "SPOT", "channel": "orders", "instId": "NOSUCHPAIR"},
        {"instType": "SPOT", "channel": ["orders"], "instId": "default"},
        {"instType": "SPOT", "channel": "orders", "instId": ["BTCUSDT"]},
    ],
)
async def test_a_channel_that_does_not_exist_is_named(member: BitgetClient, arg: dict[str, Any]) -> None:
    said = await member.asks({"op": "subscribe", "args": [arg]})
    assert (said["event"], said["code"]) == ("error", 30001)
    assert orjson.dumps(arg).decode() in said["msg"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [("{", 30002), ("[]", 30002), ('{"op":"subscribe"}', 30002), ('{"op":"x","args":[]}', 30003)],
)
async def test_what_is_no_request_is_refused(member: BitgetClient, sent: str, code: int) -> None:
    assert (await member.asks(sent))["code"] == code


async def test_a_subscription_tells_nothing_of_what_was_before(server: RunningSimulator, member: BitgetClient) -> None:
    before = place(server)
    arg = {"instType": "SPOT", "channel": "orders", "instId": "default"}
    assert await member.subscribe() == {"event": "subscribe", "arg": arg}
    place(server, created_ms=NOW_MS - 60_000)
    await member.quiet()
    server.simulator.move_order(before, State.cancelled)
    assert (await member.hears())["data"][0]["orderId"] == before


async def test_only_the_pair_that_was_asked_for_is_told(server: RunningSimulator, member: BitgetClient) -> None:
    await member.subscribe(inst_id="ETHUSDT")
    place(server)
    order_id = place(server, symbol="ETHUSDT")
    push = await member.hears()
    assert push["arg"] == {"instType": "SPOT", "channel": "orders", "instId": "ETHUSDT"}
    assert [row["orderId"] for row in push["data"]] == [order_id]
    await member.quiet()


async def test_two_subscriptions_that_cover_an_order_are_told_of_it_each(
    server: RunningSimulator, member: BitgetClient
) -> None:
    await member.subscribe()
    await member.subscribe(inst_id="BTCUSDT")
    place(server)
    assert [(await member.hears())["arg"]["instId"] for _ in range(2)] == ["default", "BTCUSDT"]


async def test_nothing_is_told_after_unsubscribing(server: RunningSimulator, member: BitgetClient) -> None:
    await member.subscribe()
    arg = {"instType": "SPOT", "channel": "orders", "instId": "default"}
    assert await member.asks({"op": "unsubscribe", "args": [arg]}) == {"event": "unsubscribe", "arg": arg}
    place(server)
    await member.quiet()


async def test_orders_are_told_to_all_keys_of_their_account_and_to_no_other(
    server: RunningSimulator, member: BitgetClient
) -> None:
    server.simulator.add_account(Account("bitget", "second", "s", "p", uid="1000"))
    await member.subscribe()
    async with bitget_client(server) as twin:
        assert (await twin.login(**twin.claim("second", "s", "p")))["event"] == "login"
        await twin.subscribe()
        place(server, uid="2000")
        order_id = place(server)
        for one in (member, twin):
            assert (await one.hears())["data"][0]["orderId"] == order_id
            await one.quiet()


# ---- what an order's pushes hold


async def test_an_order_is_told_from_its_entry_to_its_cancel(
    server: RunningSimulator, clock: ManualClock, member: BitgetClient
) -> None:
    await member.subscribe()
    order_id = place(server, client_id="mine-1", size="8", price="30000.5", side="sell")
    entered = await member.hears()
    clock.advance(ms=5)
    server.simulator.move_order(order_id, State.partially_filled, filled="3")
    filled = await member.hears()
    clock.advance(ms=5)
    server.simulator.move_order(order_id, State.cancelled)
    cancelled = await member.hears()

    assert entered == {
        "action": "snapshot",
        "arg": {"instType": "SPOT", "channel": "orders", "instId": "default"},
        "data": [
            {
                "instId": "BTCUSDT",
                "orderId": order_id,
                "clientOid": "mine-1",
                "price": "30000.5",
                "size": "8.0000",
                "newSize": "8.0000",
                "orderType": "limit",
                "force": "gtc",
                "side": "sell",
                "accBaseVolume": "0.0000",
                "priceAvg": "0.0000",
                "status": "live",
                "cTime": str(NOW_MS),
                "uTime": str(NOW_MS),
                "stpMode": "none",
                "feeDetail": [],
                "enterPointSource": "API",
            }
        ],
        "ts": NOW_MS,
    }
    row = filled["data"][0]
    assert (row["status"], row["accBaseVolume"], row["baseVolume"]) == ("partially_filled", "3.0000", "3.0000")
    assert (row["priceAvg"], row["fillPrice"]) == ("30000.5000", "30000.5000")
    assert (row["fillTime"], row["cTime"], row["uTime"]) == (str(NOW_MS + 5), str(NOW_MS), str(NOW_MS + 5))
    assert row["tradeId"].isdecimal()
    row = cancelled["data"][0]
    # Read the volume, not only the status.
    assert (row["status"], row["accBaseVolume"], row["uTime"]) == ("cancelled", "3.0000", str(NOW_MS + 10))
    assert "baseVolume" not in row
    assert "tradeId" not in row


async def test_a_second_fill_tells_its_own_volume_and_the_total(server: RunningSimulator, member: BitgetClient) -> None:
    await member.subscribe()
    order_id = place(server, size="8")
    server.simulator.move_order(order_id, State.partially_filled, filled="3")
    server.simulator.move_order(order_id, State.filled)
    rows = [(await member.hears())["data"][0] for _ in range(3)]
    assert [row["status"] for row in rows] == ["live", "partially_filled", "filled"]
    assert [row.get("baseVolume") for row in rows] == [None, "3.0000", "5.0000"]
    assert rows[2]["accBaseVolume"] == "8.0000"


async def test_a_market_order_has_no_price_and_a_buy_tells_its_worth(
    server: RunningSimulator, member: BitgetClient
) -> None:
    await member.subscribe()
    place(server, order_type="market", size="2")
    row = (await member.hears())["data"][0]
    assert "price" not in row
    assert (row["size"], row["newSize"], row["notional"]) == ("200.0000", "200.0000", "200.0000")


@pytest.mark.parametrize("kind", [Kind.plan, Kind.tpsl])
async def test_orders_with_a_trigger_have_a_channel_of_their_own(
    server: RunningSimulator, member: BitgetClient, kind: Kind
) -> None:
    await member.subscribe()
    await member.subscribe("orders-algo")
    order_id = place(server, kind=kind, trigger_price="90", price="80")
    waiting = await member.hears()
    child_id = server.simulator.move_order(order_id, State.triggered).child_id
    fired, placed = await member.hears(), await member.hears()

    assert waiting["arg"]["channel"] == "orders-algo"
    row = waiting["data"][0]
    assert (row["orderId"], row["status"], row["instId"]) == (order_id, "live", "BTCUSDT")
    assert (row["triggerPrice"], row["executePrice"]) == ("90.0000", "80.0000")
    assert (fired["arg"]["channel"], fired["data"][0]["status"]) == ("orders-algo", "executed")
    assert (placed["arg"]["channel"], placed["data"][0]["orderId"]) == ("orders", child_id)

    cancelled_id = place(server, kind=kind, trigger_price="90")
    server.simulator.move_order(cancelled_id, State.cancelled)
    assert [(await member.hears())["data"][0]["status"] for _ in range(2)] == ["live", "cancelled"]


async def test_a_cancel_that_a_fill_beats_is_told_as_the_fill_alone(
    server: RunningSimulator, clock: ManualClock, member: BitgetClient
) -> None:
    server.simulator.configure({"cancel_delay_ms": 100, "race_fill": 1.0})
    await member.subscribe()
    order_id = place(server)
    core = server.simulator.core
    book = core.book("bitget", "1000")
    core.cancel(book, book.by_id[order_id], core.log("bitget", "cancel-order", "POST", "127.0.0.1"))
    clock.advance(ms=100)
    server.simulator.tick()
    assert [(await member.hears())["data"][0]["status"] for _ in range(2)] == ["live", "filled"]
    await member.quiet()


# ---- the connection


async def test_without_a_ping_for_two_minutes_the_connection_is_closed(
    server: RunningSimulator, clock: ManualClock, client: BitgetClient
) -> None:
    for _ in range(3):
        clock.advance(ms=119_999)
        await client.quiet()
    clock.advance(ms=120_000)
    server.simulator.tick()
    assert await client.closed() is not None


async def test_the_eleventh_message_within_a_second_ends_the_connection(
    clock: ManualClock, client: BitgetClient
) -> None:
    for _ in range(10):
        await client.quiet()
    clock.advance(ms=1_000)
    for _ in range(10):
        await client.quiet()
    assert (await client.asks("ping"))["code"] == 30007
    assert await client.closed() is not None


async def test_so_many_connections_of_one_address_are_taken(clock: ManualClock) -> None:
    settings = Settings(limits={"bitget/ws-connect": (2, 1_000)})
    async with serve(Simulator(clock=clock, settings=settings)) as server:
        async with bitget_client(server), bitget_client(server):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.ws_url + BitgetClient.path, proxy=None)
            assert refused.value.response.status_code == 429
        clock.advance(ms=1_000)
        async with bitget_client(server) as client:
            await client.quiet()


async def test_a_hundred_open_connections_of_one_address_are_taken(server: RunningSimulator) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(99):
            await stack.enter_async_context(bitget_client(server))
        async with bitget_client(server):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.ws_url + BitgetClient.path, proxy=None)
            assert refused.value.response.status_code == 429
        async with bitget_client(server) as client:
            await client.quiet()


@pytest.mark.parametrize("path", ["/", "/v2/ws/public", "/sim/streams"])
async def test_elsewhere_there_is_no_stream(server: RunningSimulator, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.ws_url + path, proxy=None)
    assert refused.value.response.status_code == 404
