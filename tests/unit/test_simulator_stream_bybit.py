"""Bybit's private order stream as the simulator has it, on real sockets."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cancelq_worker.simulator import (
    Account,
    Entry,
    Kind,
    ManualClock,
    RunningSimulator,
    Simulator,
    State,
    serve,
)
from tests.stream_clients import BybitClient, bybit_client

NOW_MS = 1_700_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[RunningSimulator]:
    async with serve(Simulator(clock=clock)) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> AsyncIterator[BybitClient]:
    """Connected, not logged in."""
    async with bybit_client(server) as client:
        yield client


@pytest.fixture
async def member(client: BybitClient) -> BybitClient:
    """Logged in, and subscribed to `order`."""
    assert (await client.login())["success"]
    assert (await client.subscribe("order"))["success"]
    return client


def place(server: RunningSimulator, uid: str = "1000", **fields: Any) -> str:
    entry = Entry(**{"symbol": "BTCUSDT", **fields})
    return server.simulator.add_order(entry, venue="bybit", uid=uid).order_id


def move(server: RunningSimulator, order_id: str, state: State, filled: str | None = None) -> None:
    server.simulator.move_order(order_id, state, venue="bybit", filled=filled)


def cancel(server: RunningSimulator, order_id: str) -> None:
    """A cancel call that the venue takes now."""
    core = server.simulator.core
    core.tick()
    book = core.book("bybit", "1000")
    core.cancel(book, book.by_id[order_id], core.log("bybit", "cancel", "POST", "127.0.0.1"))


async def rows(client: BybitClient, count: int) -> list[dict[str, Any]]:
    pushes = [await client.hears() for _ in range(count)]
    assert all(len(push["data"]) == 1 for push in pushes)
    return [push["data"][0] for push in pushes]


# ---- auth


async def test_the_known_signature_is_accepted(server: RunningSimulator, client: BybitClient) -> None:
    server.simulator.add_account(Account("bybit", "test-api-key", "test-api-secret", "", uid="2000"))
    sign = "97b2bdec283bc7e02fd824a08fc4af015efcd38261cf0b0d5ba7c6c175c95786"
    said = await client.asks({"op": "auth", "args": ["test-api-key", 1_700_000_010_000, sign], "req_id": "r-1"})
    assert said.pop("conn_id")
    assert said == {"req_id": "r-1", "success": True, "ret_msg": "", "op": "auth"}


async def test_expires_may_be_text(client: BybitClient) -> None:
    said = await client.asks({"op": "auth", "args": ["sim-key", str(NOW_MS + 1), "00"]})
    assert not said["success"]
    assert (await client.login())["success"]


@pytest.mark.parametrize(
    "wrong", [{"key": "nobody"}, {"secret": "wrong"}, {"ahead_ms": 0}, {"ahead_ms": -1}, {"ahead_ms": -NOW_MS - 1}]
)
async def test_a_login_that_proves_nothing_is_refused(
    server: RunningSimulator, client: BybitClient, wrong: dict[str, Any]
) -> None:
    said = await client.login(**wrong)
    assert (said["success"], said["op"]) == (False, "auth")
    assert not (await client.subscribe("order"))["success"]
    place(server)
    await client.quiet()


@pytest.mark.parametrize("args", [None, [], ["sim-key"], "sim-key", [1, 2, 3]])
async def test_a_login_without_its_parts_is_refused(client: BybitClient, args: Any) -> None:
    assert not (await client.asks({"op": "auth", "args": args}))["success"]


# ---- subscriptions


@pytest.mark.parametrize("topics", [(), ("order", "order.spot"), ("nonsense",), ("order.spot", "nonsense")])
async def test_topics_that_do_not_go_together_or_do_not_exist_are_refused(
    server: RunningSimulator, client: BybitClient, topics: tuple[str, ...]
) -> None:
    await client.login()
    said = await client.subscribe(*topics, req_id="r-2")
    assert (said["success"], said["op"], said["req_id"]) == (False, "subscribe", "r-2")
    place(server)
    await client.quiet()


async def test_each_topic_is_told_under_its_own_name(server: RunningSimulator, member: BybitClient) -> None:
    assert (await member.subscribe("order.spot", "order.linear"))["success"]
    place(server)
    assert [(await member.hears())["topic"] for _ in range(2)] == ["order", "order.spot"]
    await member.quiet()


async def test_nothing_is_told_after_unsubscribing(server: RunningSimulator, member: BybitClient) -> None:
    said = await member.asks({"op": "unsubscribe", "args": ["order"], "req_id": "r-3"})
    assert (said["success"], said["op"], said["req_id"]) == (True, "unsubscribe", "r-3")
    place(server)
    await member.quiet()


async def test_another_accounts_orders_are_not_told(server: RunningSimulator, member: BybitClient) -> None:
    place(server, uid="2000")
    server.simulator.add_order(Entry(symbol="BTCUSDT"), venue="bitget")
    await member.quiet()


async def test_what_was_before_the_subscription_is_not_told(server: RunningSimulator, member: BybitClient) -> None:
    place(server, created_ms=NOW_MS - 60_000)
    await member.quiet()


@pytest.mark.parametrize("sent", ["{", "[]", '"ping"', '{"op":"dance"}'])
async def test_what_is_no_request_is_refused(member: BybitClient, sent: str) -> None:
    assert not (await member.asks(sent))["success"]


# ---- what an order's pushes hold


async def test_an_order_is_told_from_its_entry_to_its_end(
    server: RunningSimulator, clock: ManualClock, member: BybitClient
) -> None:
    order_id = place(server, client_id="mine-1", size="8", price="10")
    clock.advance(ms=5)
    move(server, order_id, State.partially_filled, "3")
    clock.advance(ms=5)
    move(server, order_id, State.filled)
    pushes = [await member.hears() for _ in range(3)]
    assert [(push["topic"], push["creationTime"]) for push in pushes] == [
        ("order", NOW_MS),
        ("order", NOW_MS + 5),
        ("order", NOW_MS + 10),
    ]
    assert len({push["id"] for push in pushes}) == 3
    entered, partly, filled = (push["data"][0] for push in pushes)
    assert entered["category"] == "spot"
    assert (entered["orderId"], entered["orderLinkId"], entered["symbol"]) == (order_id, "mine-1", "BTCUSDT")
    assert (entered["side"], entered["orderType"], entered["price"], entered["qty"]) == ("Buy", "Limit", "10", "8")
    assert (entered["orderStatus"], entered["cumExecQty"], entered["leavesQty"]) == ("New", "0", "8")
    assert (partly["orderStatus"], partly["cumExecQty"], partly["leavesQty"]) == ("PartiallyFilled", "3", "5")
    assert (filled["orderStatus"], filled["cumExecQty"], filled["leavesQty"]) == ("Filled", "8", "0")
    assert (filled["cancelType"], filled["rejectReason"]) == ("UNKNOWN", "EC_NoError")
    assert (filled["createdTime"], filled["updatedTime"]) == (str(NOW_MS), str(NOW_MS + 10))


async def test_a_cancelled_order_is_named_after_what_had_filled(server: RunningSimulator, member: BybitClient) -> None:
    whole, part = place(server), place(server, size="2")
    move(server, part, State.partially_filled, "1")
    cancel(server, whole)
    cancel(server, part)
    told = (await rows(member, 5))[3:]
    assert [(row["orderId"], row["orderStatus"], row["cumExecQty"]) for row in told] == [
        (whole, "Cancelled", "0"),
        (part, "PartiallyFilledCanceled", "1"),
    ]
    assert {(row["cancelType"], row["rejectReason"]) for row in told} == {("CancelByUser", "EC_PerCancelRequest")}


async def test_a_cancel_that_a_fill_beats_is_told_as_a_second_fill(
    server: RunningSimulator, clock: ManualClock, member: BybitClient
) -> None:
    server.simulator.configure({"cancel_delay_ms": 100, "race_fill": 1.0})
    order_id = place(server)
    cancel(server, order_id)
    clock.advance(ms=100)
    server.simulator.tick()
    told = (await rows(member, 3))[1:]
    assert [(row["orderId"], row["orderStatus"], row["cancelType"], row["rejectReason"]) for row in told] == [
        (order_id, "Filled", "UNKNOWN", "EC_NoError"),
        (order_id, "Filled", "CancelByUser", "EC_OrigClOrdIDDoesNotExist"),
    ]
    await member.quiet()


async def test_a_cancel_that_takes_hold_is_told_once(
    server: RunningSimulator, clock: ManualClock, member: BybitClient
) -> None:
    server.simulator.configure({"cancel_delay_ms": 100, "recancel_gap_ms": 0})
    order_id = place(server)
    cancel(server, order_id)
    cancel(server, order_id)
    clock.advance(ms=99)
    server.simulator.tick()
    assert [row["orderStatus"] for row in await rows(member, 1)] == ["New"]
    await member.quiet()
    clock.advance(ms=1)
    server.simulator.tick()
    assert [row["orderStatus"] for row in await rows(member, 1)] == ["Cancelled"]
    await member.quiet()


@pytest.mark.parametrize(("kind", "stop_type"), [(Kind.tpsl, "tpslOrder"), (Kind.plan, "Stop")])
async def test_an_order_with_a_trigger_waits_is_deactivated_or_lives_on_under_its_id(
    server: RunningSimulator, member: BybitClient, kind: Kind, stop_type: str
) -> None:
    dropped, fires = (place(server, kind=kind, trigger_price="90") for _ in range(2))
    move(server, dropped, State.cancelled)
    move(server, fires, State.triggered)
    told = await rows(member, 5)
    assert [(row["orderId"], row["orderStatus"]) for row in told] == [
        (dropped, "Untriggered"),
        (fires, "Untriggered"),
        (dropped, "Deactivated"),
        (fires, "Triggered"),
        (fires, "New"),
    ]
    assert {row["stopOrderType"] for row in told} == {stop_type}


# ---- the connection


async def test_a_ping_is_answered_with_the_venues_time(member: BybitClient) -> None:
    said = await member.asks({"op": "ping", "req_id": "r-4"})
    assert (said["op"], said["req_id"], said["args"]) == ("pong", "r-4", [str(NOW_MS)])


@pytest.mark.parametrize(
    ("query", "idle_s"),
    [
        ("", 600),
        ("?max_active_time=45s", 45),
        ("?max_active_time=2m", 120),
        ("?max_active_time=1s", 30),
        ("?max_active_time=99m", 600),
        ("?max_active_time=soon", 600),
    ],
)
async def test_an_idle_connection_is_closed_after_the_time_it_asked_for(
    server: RunningSimulator, clock: ManualClock, query: str, idle_s: int
) -> None:
    async with bybit_client(server, query) as client:
        clock.advance(ms=idle_s * 1000 - 1)
        await client.quiet()
        clock.advance(ms=idle_s * 1000 - 1)
        await client.login()
        clock.advance(ms=1)
        server.simulator.tick()
        assert await client.closed() is not None


async def test_a_connection_that_is_told_something_is_not_idle(
    server: RunningSimulator, clock: ManualClock, member: BybitClient
) -> None:
    clock.advance(ms=599_000)
    place(server)
    await rows(member, 1)
    clock.advance(ms=599_000)
    await member.quiet()
