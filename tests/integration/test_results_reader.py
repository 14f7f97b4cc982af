"""The reading side: every event at least once, over handlers that fail, readers that die and servers that restart."""

import asyncio
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cancelq.contract import Event, Lane
from cancelq.errors import BrokerDown, EventError, GroupMissing, NoResults
from cancelq.results import AsyncResultsReader, ResultsReader
from tests.integration.jobs_rig import StallingProxy
from tests.servers import RedisServer

MAIN, OTHER = Lane("bitget", "main"), Lane("bybit", "main")
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "outcomes_frame.py"

pytestmark = pytest.mark.one_server


@pytest.fixture
def server(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def tell(client: Redis, lane: Lane, *ids: str, **more: str) -> list[str]:
    """Final events of some intents, as a worker writes them; their entry ids."""
    told = []
    for id_ in ids:
        fields: dict[Any, Any] = {"id": id_, "status": "cancelled", "final": "1", "venue": lane.venue, **more}
        told.append(client.xadd(lane.results, fields).decode())  # type: ignore[union-attr]
    return told


def reader(source: Any, *lanes: Lane, consumer: str = "one", start: str = "0", **more: Any) -> ResultsReader:
    return ResultsReader(source, lanes or (MAIN,), group="pnl", consumer=consumer, start=start, **more)


def take(reading: ResultsReader, count: int) -> list[str]:
    """The ids of the next events, handled."""
    seen: list[str] = []
    for event in reading:
        seen.append(event.id)
        if len(seen) == count:
            reading.stop()
    return seen


def pending(client: Redis, lane: Lane = MAIN) -> int:
    return int(client.xpending(lane.results, "pnl")["pending"])


def test_lanes_are_merged_in_the_order_of_their_entries(server: Redis, redis_url: str) -> None:
    for n in range(6):
        server.xadd(
            (MAIN if n % 2 else OTHER).results, {"id": f"i{n}", "status": "filled", "final": "1"}, id=f"{n + 1}-0"
        )
    with reader(redis_url, MAIN, OTHER) as reading:
        assert take(reading, 6) == [f"i{n}" for n in range(6)]
    assert pending(server, MAIN) == pending(server, OTHER) == 0


def test_latest_begins_with_what_comes_from_now_on(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "before")
    with reader(redis_url, start="$") as reading:
        assert reading.read(wait_s=0) == []  # makes the group
        tell(server, MAIN, "after")
        assert take(reading, 1) == ["after"]


def test_from_an_entry_begins_behind_it(server: Redis, redis_url: str) -> None:
    first, _ = tell(server, MAIN, "a", "b")
    with reader(redis_url, start=first) as reading:
        assert take(reading, 1) == ["b"]


def test_a_group_goes_on_where_it_stood(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "a", "b")
    with reader(redis_url, page=1) as reading:
        assert take(reading, 1) == ["a"]
    with reader(redis_url) as again:
        assert take(again, 1) == ["b"]


def test_what_a_handler_failed_at_comes_again(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "a", "b", "c")
    seen: list[str] = []

    def handle(event: Event) -> None:
        seen.append(event.id)
        if event.id == "b" and seen.count("b") == 1:
            raise RuntimeError("the desk's own")
        if event.id == "c":
            reading.stop()

    with reader(redis_url) as reading:
        with pytest.raises(RuntimeError, match="the desk's own"):
            reading.run(handle)
        reading.run(handle)
    assert seen == ["a", "b", "b", "c"]
    assert pending(server) == 0


def test_a_restart_under_the_same_name_finds_what_was_in_hand(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "a", "b")
    died = reader(redis_url)
    assert [d.event.id for d in died.read()] == ["a", "b"]  # and never acknowledged
    with reader(redis_url) as again:
        assert take(again, 2) == ["a", "b"]


def test_what_a_dead_reader_left_is_taken_over(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "a")
    assert reader(redis_url, consumer="dead").read()
    with reader(redis_url, consumer="patient", claim_after_s=3600) as patient:
        assert patient.read(wait_s=0) == []
    with reader(redis_url, consumer="heir", claim_after_s=0.001) as heir:
        assert take(heir, 1) == ["a"]
    assert pending(server) == 0


def test_two_readers_share_and_two_groups_do_not(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, *(f"i{n}" for n in range(10)))
    with reader(redis_url, page=5) as one, reader(redis_url, consumer="two", page=5) as two:
        shared = [d.event.id for d in (*one.read(), *two.read())]
    assert sorted(shared) == [f"i{n}" for n in range(10)]
    with ResultsReader(redis_url, MAIN, group="risk", consumer="one", start="0") as other:
        assert len(other.read()) == 10


def test_what_cannot_be_read_is_told_and_passed_over(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "a")
    server.xadd(MAIN.results, {"id": "b", "status": "transcended", "final": "1"})
    server.xadd(MAIN.results, {b"\xff": b"\xff"})
    tell(server, MAIN, "c")
    told: list[tuple[Lane, EventError]] = []
    with reader(redis_url, on_unreadable=lambda lane, error: told.append((lane, error))) as reading:
        assert take(reading, 2) == ["a", "c"]
    assert [lane for lane, _ in told] == [MAIN, MAIN]
    assert pending(server) == 0


def test_what_was_trimmed_while_in_hand_is_let_go(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "a")
    assert reader(redis_url).read()
    server.xtrim(MAIN.results, 0)
    tell(server, MAIN, "b")
    with reader(redis_url) as again:
        assert take(again, 1) == ["b"]
    assert pending(server) == 0


def test_a_server_that_restarts_costs_nothing(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        tell(client, MAIN, "a")
    with reader(redis_server.url) as reading:
        events = iter(reading)
        assert next(events).id == "a"
        redis_server.kill9()
        redis_server.start()
        with redis_server.client() as client:
            tell(client, MAIN, "b")
        assert next(events).id == "b"
        reading.stop()
        assert list(events) == []
    with redis_server.client() as client:
        assert pending(client) == 0


def test_a_server_that_lost_everything_is_read_on(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        tell(client, MAIN, "a")
    with reader(redis_server.url, start="$") as reading:
        assert reading.read(wait_s=0) == []
        with redis_server.client() as client:
            tell(client, MAIN, "b")
            assert [d.event.id for d in reading.read()] == ["b"]
            client.flushall()
            assert reading.read(wait_s=0) == []  # the stream is gone, too; that is no reason to end
            tell(client, MAIN, "c")
            assert take(reading, 1) == ["c"]


def test_events_whose_delivery_was_lost_on_the_way_come(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        tell(client, MAIN, "a")
    proxy = StallingProxy(redis_server.port, b"\r\n>\r\n")
    try:
        with reader(proxy.url, timeout_s=0.3) as reading:
            with pytest.raises(BrokerDown):
                reading.read()  # the server gave "a" to this reader; nothing arrived
            assert proxy.stalled.is_set()
    finally:
        proxy.close()
    with redis_server.client() as client:
        assert pending(client) == 1
    with reader(redis_server.url) as again:
        assert take(again, 1) == ["a"]


def test_events_whose_delivery_was_lost_come_to_the_reader_that_lost_it(redis_server: RedisServer) -> None:
    """At once, not a minute later as those of a dead reader."""
    proxy = StallingProxy(redis_server.port, b"\r\n>\r\n", nth=2)
    try:
        with redis_server.client() as client, reader(proxy.url, timeout_s=0.3) as reading:
            tell(client, MAIN, "a")
            assert [d.event.id for d in reading.read()] == ["a"]
            tell(client, MAIN, "b")
            assert reading.read() == []
            assert proxy.stalled.is_set()
            assert [d.event.id for d in reading.read()] == ["b"]
    finally:
        proxy.close()


def test_who_may_not_make_the_group_is_told_what_an_operator_has_to_run(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        tell(client, MAIN, "a")
        allowed = ["+xreadgroup", "+xautoclaim", "+xack"]
        client.execute_command("ACL", "SETUSER", "desk", "on", ">pass", "~cancelq:*", *allowed)
        url = redis_server.url.replace("//", "//desk:pass@")
        with reader(url) as refused, pytest.raises(GroupMissing) as missing:
            refused.read()
        assert missing.value.command == "XGROUP CREATE 'cancelq:{bitget:main}:results' pnl 0"
        client.execute_command("XGROUP", "CREATE", MAIN.results, "pnl", "0")
        with reader(url) as reading:
            assert take(reading, 1) == ["a"]


def test_a_lane_that_nobody_serves_is_told(redis_url: str) -> None:
    with reader(redis_url) as reading, pytest.raises(NoResults, match="bitget:main"):
        reading.read()


def test_a_server_that_is_not_there_is_told_at_the_start() -> None:
    with reader("redis://127.0.0.1:1/0") as reading, pytest.raises(BrokerDown):
        reading.read()


async def test_the_same_for_asyncio(server: Redis, redis_url: str) -> None:
    tell(server, MAIN, "a", "b")
    tell(server, OTHER, "c")
    seen: list[str] = []

    async def handle(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(event.id)
        if event.id == "b" and seen.count("b") == 1:
            raise RuntimeError("the desk's own")
        if set(seen) == {"a", "b", "c"} and seen.count("b") == 2:
            reading.stop()

    async with AsyncResultsReader(redis_url, [MAIN, OTHER], group="pnl", consumer="one", start="0") as reading:
        with pytest.raises(RuntimeError):
            await reading.run(handle)
        await reading.run(handle)
    assert sorted(seen) == ["a", "b", "b", "c"]
    assert pending(server, MAIN) == pending(server, OTHER) == 0


async def test_asyncio_survives_a_restart(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        tell(client, MAIN, "a")
    async with AsyncResultsReader(redis_server.url, MAIN, group="pnl", consumer="one", start="0") as reading:
        (first,) = await reading.read()
        redis_server.kill9()
        await reading.ack([first])  # cannot be told; it is told later
        redis_server.start()
        with redis_server.client() as client:
            tell(client, MAIN, "b")
        found = await reading.read()
        while not found:
            found = await reading.read()
        assert [delivery.event.id for delivery in found] == ["b"]
        await reading.ack(found)
    with redis_server.client() as client:
        assert pending(client) == 0


def test_the_example_feeds_a_frame(server: Redis, redis_url: str) -> None:
    times = {"queued_us": "1763690000000000", "settled_us": "1763690000250000"}
    tell(server, MAIN, "a", "b", account="main", order_id="121211212122999999", **times)
    tell(server, OTHER, "c", account="main", **times)
    server.xadd(MAIN.results, {"id": "d", "status": "accepted", "final": "0"})
    command = [sys.executable, str(EXAMPLE), redis_url, "bitget:main", "bybit:main"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "bitget:main cancelled" in " ".join(done.stdout.split())
    assert "0.25" in done.stdout
    tell(server, MAIN, "e", account="main", order_id="121211212122999999", **times)
    frame = runpy.run_path(str(EXAMPLE))["outcomes"](redis_url, ["bitget:main"])
    assert list(frame.index) == [("bitget:main", "e")]
    assert frame.iloc[0]["order_id"] == "121211212122999999"
