"""What can go wrong on the simulated order streams, and that they run on a clock of either kind, in either loop."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Self

import httpx
import orjson
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from cancelq_worker.simulator import (
    Account,
    Entry,
    ManualClock,
    RunningSimulator,
    Settings,
    Simulator,
    State,
    serve,
)
from cancelq_worker.simulator.streams.hub import GARBAGE, NOBODYS_ORDER
from cancelq_worker.simulator.streams.session import Frame, Session
from cancelq_worker.simulator.streams.wire import MOST_UNSENT
from tests.stream_clients import BitgetClient, bingx_client, bitget_client, bybit_client

NOW_MS = 1_700_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[RunningSimulator]:
    async with serve(Simulator(clock=clock, rng=random.Random(1))) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> AsyncIterator[BitgetClient]:
    """Subscribed to all orders of UID 1000."""
    async with bitget_client(server) as client:
        await client.login()
        await client.subscribe()
        yield client


@pytest.fixture
async def control(server: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{server.base_url}/sim", trust_env=False) as control:
        yield control


def place(simulator: Simulator, uid: str = "1000", **fields: Any) -> str:
    return simulator.add_order(Entry(**{"symbol": "BTCUSDT", **fields}), uid=uid).order_id


async def told_ids(client: BitgetClient, count: int) -> list[str]:
    return [(await client.hears())["data"][0]["orderId"] for _ in range(count)]


# ---- pushes that go wrong


async def test_lost_pushes_are_counted(server: RunningSimulator, client: BitgetClient) -> None:
    server.simulator.configure({"stream_loss": 0.5})
    placed = [place(server.simulator) for _ in range(100)]
    report = server.simulator.streams.report()
    assert report["pushed"] + report["lost"] == 100
    assert 30 < report["lost"] < 70
    arrived = await told_ids(client, report["pushed"])
    assert arrived == [one for one in placed if one in set(arrived)]
    await client.quiet()


async def test_a_delayed_push_leaves_when_its_time_has_come(
    server: RunningSimulator, clock: ManualClock, client: BitgetClient
) -> None:
    server.simulator.configure({"stream_delay_ms": 50})
    order_id = place(server.simulator)
    server.simulator.move_order(order_id, State.cancelled)
    clock.advance(ms=49)
    server.simulator.tick()
    await client.quiet()
    clock.advance(ms=1)
    server.simulator.tick()
    # Each tells of the order as it was, not as it has become.
    assert [(await client.hears())["data"][0]["status"] for _ in range(2)] == ["live", "cancelled"]


async def test_jitter_lets_pushes_overtake_each_other(
    server: RunningSimulator, clock: ManualClock, client: BitgetClient
) -> None:
    server.simulator.configure({"stream_jitter_ms": 100})
    placed = [place(server.simulator) for _ in range(20)]
    clock.advance(ms=100)
    server.simulator.tick()
    arrived = await told_ids(client, 20)
    assert arrived != placed
    assert sorted(arrived) == placed


async def test_a_push_can_come_twice(server: RunningSimulator, client: BitgetClient) -> None:
    server.simulator.configure({"stream_repeat": 1.0})
    order_id = place(server.simulator)
    assert await told_ids(client, 2) == [order_id, order_id]
    await client.quiet()


async def test_a_push_can_come_behind_one_about_another_accounts_order(
    server: RunningSimulator, client: BitgetClient
) -> None:
    server.simulator.configure({"stream_foreign": 1.0})
    first = place(server.simulator, client_id="mine")
    foreign = await client.hears()
    assert NOBODYS_ORDER - 10**9 < int(foreign["data"][0]["orderId"]) <= NOBODYS_ORDER
    assert foreign["data"][0]["clientOid"] == ""
    assert await told_ids(client, 1) == [first]

    others = place(server.simulator, uid="2000")
    second = place(server.simulator)
    assert await told_ids(client, 2) == [others, second]


async def test_a_push_can_come_behind_a_frame_nobody_can_read(server: RunningSimulator, client: BitgetClient) -> None:
    server.simulator.configure({"stream_garbage": 1.0})
    placed = [place(server.simulator) for _ in range(30)]
    frames = [await client.raw() for _ in range(60)]
    assert set(frames[::2]) == set(GARBAGE)
    assert [orjson.loads(frame)["data"][0]["orderId"] for frame in frames[1::2]] == placed


async def test_refused_logins_leave_those_who_are_in(server: RunningSimulator, client: BitgetClient) -> None:
    server.simulator.configure({"stream_refuse_logins": True})
    async with bitget_client(server) as late, bybit_client(server) as other:
        assert (await late.login())["code"] == 30005
        assert not (await other.login())["success"]
    order_id = place(server.simulator)
    assert await told_ids(client, 1) == [order_id]


async def test_a_stream_without_pushes_stays_open(server: RunningSimulator, client: BitgetClient) -> None:
    server.simulator.configure({"stream_silence": "pushes"})
    place(server.simulator)
    await client.quiet()
    server.simulator.configure({"stream_silence": "none"})
    order_id = place(server.simulator)
    assert await told_ids(client, 1) == [order_id]
    assert server.simulator.streams.report()["lost"] == 1


def test_a_stream_that_says_nothing_at_all_stays_open(clock: ManualClock) -> None:
    simulator = Simulator(clock=clock)
    line = Memory.opened(simulator)
    simulator.configure({"stream_silence": "all"})
    line.session.received("ping")
    assert (line.sent, line.ended) == ([], "")
    simulator.configure({"stream_silence": "none"})
    line.session.received("ping")
    assert line.sent == ["pong"]


# ---- connections


async def test_all_connections_can_be_broken_at_once(
    server: RunningSimulator, client: BitgetClient, control: httpx.AsyncClient
) -> None:
    async with bybit_client(server) as other:
        await other.login()
        dropped = await control.post("/streams", json={"drop": True, "venue": "bybit"})
        assert dropped.json() == {"dropped": 1}
        # No goodbye: it looks like a network that failed.
        assert await other.closed() is None
        await client.quiet()
        assert (await control.post("/streams", json={"drop": True})).json() == {"dropped": 1}
        with pytest.raises(ConnectionClosed):
            await client.raw()
    report = (await control.get("/streams")).json()
    assert (report["streams"], report["opened"], report["dropped"]) == ([], 2, 2)


@pytest.mark.parametrize("body", [{}, {"drop": False}, {"drop": True, "venue": "nowhere"}, {"drop": True, "x": 1}])
async def test_a_drop_that_makes_no_sense_is_refused(
    client: BitgetClient, control: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    assert (await control.post("/streams", json=body)).status_code == 400
    await client.quiet()


async def test_the_report_lists_who_is_connected(
    server: RunningSimulator, client: BitgetClient, control: httpx.AsyncClient
) -> None:
    place(server.simulator)
    await client.hears()
    async with bingx_client(server, "nonsense") as other:
        await other.quiet()
        report = (await control.get("/streams")).json()
    assert report == {
        "streams": [
            {
                "number": 1,
                "venue": "bitget",
                "uid": "1000",
                "ip": "127.0.0.1",
                "opened_us": NOW_MS * 1000,
                "topics": ["orders/default"],
                "logins": 1,
                "logins_refused": 0,
                "pushed": 1,
                "lost": 0,
            },
            {
                "number": 2,
                "venue": "bingx",
                "uid": "",
                "ip": "127.0.0.1",
                "opened_us": NOW_MS * 1000,
                "topics": [],
                "logins": 0,
                "logins_refused": 1,
                "pushed": 0,
                "lost": 0,
            },
        ],
        "opened": 2,
        "dropped": 0,
        "logins": 1,
        "logins_refused": 1,
        "pushed": 1,
        "lost": 0,
    }


async def test_a_reset_leaves_connections_and_their_clocks(
    server: RunningSimulator, clock: ManualClock, client: BitgetClient
) -> None:
    server.simulator.configure({"stream_delay_ms": 50})
    place(server.simulator)
    server.simulator.reset()
    clock.advance(ms=50)
    order_id = place(server.simulator)
    assert await told_ids(client, 1) == [order_id]
    assert server.simulator.streams.report()["pushed"] == 1
    clock.advance(ms=120_000)
    server.simulator.tick()
    assert await client.closed() is not None


def test_nobody_watches_the_core_when_nobody_is_connected() -> None:
    simulator = Simulator()
    one, other = Memory.opened(simulator), Memory.opened(simulator)
    assert len(simulator.core.observers) == 1
    simulator.streams.leave(one.session)
    simulator.streams.leave(one.session)
    assert len(simulator.core.observers) == 1
    simulator.streams.leave(other.session)
    assert simulator.core.observers == []


async def test_a_client_that_reads_nothing_is_cut_off(server: RunningSimulator, client: BitgetClient) -> None:
    for _ in range(MOST_UNSENT + 1):
        place(server.simulator)
    assert await client.closed() is None


async def test_a_server_that_stops_breaks_its_streams() -> None:
    async with AsyncExitStack() as outlasting:
        async with serve(Simulator()) as server:
            client = await outlasting.enter_async_context(bitget_client(server))
            await client.quiet()
        assert await client.closed() is None


async def test_a_handshake_that_is_none_is_refused(server: RunningSimulator, control: httpx.AsyncClient) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    refused = await control.get(f"{server.base_url}/v2/ws/private", headers=upgrade)
    assert refused.status_code == 400
    assert server.simulator.streams.report()["opened"] == 0


# ---- clocks and loops


async def test_on_a_running_clock_what_is_due_is_told_although_nobody_calls() -> None:
    settings = Settings(symbol_cancel_delay_ms=20, stream_delay_ms=20)
    async with serve(Simulator(settings=settings)) as server, bitget_client(server) as client:
        await client.login()
        await client.subscribe()
        order_id = place(server.simulator)
        core = server.simulator.core
        book = core.book("bitget", "1000")
        core.cancel_symbol(book, book.by_id[order_id].kind, "BTCUSDT", core.log("bitget", "x", "POST", "127.0.0.1"))
        told = [(await client.hears())["data"][0] for _ in range(2)]
        assert [row["status"] for row in told] == ["live", "cancelled"]
        # Dated to when it was due, however late the loop came to it.
        order = book.by_id[order_id]
        assert order.settled_us - order.entered_us == 20_000


async def test_what_is_due_first_rings_first_although_it_was_scheduled_last() -> None:
    async with serve(Simulator()) as server:
        core = server.simulator.core
        rung: asyncio.Queue[str] = asyncio.Queue()
        for name, delay_us in (("never", 600_000_000), ("later", 40_000), ("sooner", 20_000)):
            core.tick()
            core.later(core.now_us + delay_us, lambda _, name=name: rung.put_nowait(name))  # type: ignore[misc]
        assert [await asyncio.wait_for(rung.get(), 20) for _ in range(2)] == ["sooner", "later"]
        # And what comes to be scheduled after all that has its turn as well.
        core.tick()
        core.later(core.now_us + 20_000, lambda _: rung.put_nowait("last"))
        assert await asyncio.wait_for(rung.get(), 20) == "last"


def test_in_the_loop_of_the_command_it_is_the_same() -> None:
    async def run() -> list[str]:
        async with serve(Simulator()) as server, bitget_client(server) as client:
            await client.login()
            await client.subscribe()
            place(server.simulator)
            async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as http:
                assert (await http.get("/api/v2/public/time")).status_code == 200
            order_id = place(server.simulator)
            told = await told_ids(client, 2)
            assert told[1] == order_id
            server.simulator.drop_streams()
            assert await client.closed() is None
            return told

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert len(runner.run(run())) == 2


class Memory:
    """A line without a socket: it keeps what was sent."""

    session: Session

    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.ended = ""

    @classmethod
    def opened(cls, simulator: Simulator) -> Self:
        line = cls()
        line.session = simulator.streams.open(b"/v2/ws/private", "", "127.0.0.1", line)
        return line

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def close(self, code: int, reason: str) -> None:
        self.ended = reason

    def abort(self) -> None:
        self.ended = "broken"


def test_after_it_was_served_a_simulator_needs_no_loop(clock: ManualClock) -> None:
    simulator = Simulator(clock=clock)

    async def run() -> None:
        async with serve(simulator) as server, bitget_client(server) as client:
            await client.quiet()

    asyncio.run(run())
    done: list[int] = []
    simulator.core.later(simulator.core.now_us + 1_000, done.append)
    clock.advance(ms=1)
    simulator.tick()
    assert done == [simulator.core.now_us]


def test_without_any_loop_a_session_lives_on_virtual_time(clock: ManualClock) -> None:
    simulator = Simulator(clock=clock, settings=Settings(stream_delay_ms=30))
    simulator.add_account(Account("bitget", "test-api-key", "test-api-secret", "test-passphrase", uid="2000"))
    line = Memory.opened(simulator)
    session = line.session
    sign = "X3EWQeL5AwAlQUbSLbUp/bShEUaFiRE5JYOIo1BG0Vw="
    claim = f'"apiKey":"test-api-key","passphrase":"test-passphrase","timestamp":"1700000000","sign":"{sign}"'
    session.received(f'{{"op":"login","args":[{{{claim}}}]}}')
    session.received('{"op":"subscribe","args":[{"instType":"SPOT","channel":"orders","instId":"default"}]}')
    assert [orjson.loads(frame)["event"] for frame in line.sent] == ["login", "subscribe"]

    order_id = place(simulator, uid="2000")
    assert len(line.sent) == 2
    clock.advance(ms=30)
    simulator.tick()
    assert orjson.loads(line.sent[2])["data"][0]["orderId"] == order_id
    clock.advance(ms=120_000)
    simulator.tick()
    assert line.ended == "no ping"
    simulator.streams.leave(session)
    assert simulator.streams.report()["streams"] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OPS = ("login", "auth", "subscribe", "unsubscribe", "ping", "sub")
NAMES = ("op", "args", "req_id", "reqType", "dataType", "id", "ping", "pong")
REQUESTS = st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(OPS), max_size=5)
CLAIMS = st.dictionaries(st.sampled_from(("apiKey", "passphrase", "timestamp", "sign")), JSON | st.just("sim-key"))
LOGINS = st.builds(lambda args: {"op": "login", "args": [args]}, CLAIMS)
SUBSCRIPTIONS = st.builds(
    lambda args: {"op": "subscribe", "args": args},
    st.lists(
        st.dictionaries(st.sampled_from(("instType", "channel", "instId")), JSON | st.sampled_from(("SPOT", "orders"))),
        max_size=2,
    ),
)
MESSAGES = st.text() | st.binary() | st.builds(json.dumps, JSON | REQUESTS | LOGINS | SUBSCRIPTIONS)


@pytest.mark.parametrize("path", [b"/v2/ws/private", b"/v5/private", b"/market"])
@given(query=st.text(), messages=st.lists(MESSAGES, max_size=8), logged_in=st.booleans())
def test_nothing_a_client_says_upsets_a_session(
    path: bytes, query: str, messages: list[Frame], logged_in: bool
) -> None:
    simulator = Simulator()
    line = Memory()
    session = simulator.streams.open(path, query, "127.0.0.1", line)
    if logged_in:
        session.admit(Account(session.venue, "sim-key", "s", "p", uid="1000"))
    for message in messages:
        told = len(line.sent)
        session.received(message)
        assert len(line.sent) <= told + 3
    assert session.logins <= int(logged_in)
