"""A cluster of three nodes with a lane on each: every part of the product, and slots and nodes that move."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from cancelq import AsyncClient, AsyncGuard, Client, Guard, Lane, Status, broker
from cancelq.broker import slot_of
from cancelq.link import options
from cancelq.results import ResultsReader
from cancelq_worker import cli
from cancelq_worker.flatten import Flattening, Wish
from cancelq_worker.growth import growth
from cancelq_worker.lane_gauges import LaneGauges, Watch
from cancelq_worker.records import RoundRequest, TakeRequest
from cancelq_worker.roster import ROSTER
from cancelq_worker.trips import command, connect, round_trip, script_keys
from tests.ha import ClusterOfThree, cluster, move_key
from tests.integration.failover import Asking, passed_limits, patiently, settled, true
from tests.integration.floor import Floor, floor, spelled
from tests.integration.lone_ledger import Desk, lone_desk
from tests.integration.rig import LANE
from tests.integration.test_worker_process import running
from tests.servers import RedisServer

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(180)]

Say = Callable[..., Awaitable[tuple[int, str]]]
VENUES = ("bitget", "bybit", "bingx")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfThree]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def lanes(nodes: ClusterOfThree) -> list[str]:
    """A lane of each venue, each on another node."""
    return [str(nodes.lane(venue, n)) for n, venue in enumerate(VENUES)]


async def test_every_command_serves_lanes_on_all_nodes(
    nodes: ClusterOfThree, lanes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def say(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(cli.run, list(words), {"CANCELQ_REDIS_URL": nodes.url})
        out, err = capsys.readouterr()
        return code, out + err

    # The engine's own lines would stand among those of the commands.
    with capture_logs():
        await every_command(nodes, lanes, say)


async def every_command(nodes: ClusterOfThree, lanes: list[str], say: Say) -> None:
    async with floor(nodes.url, *lanes) as desk:
        for lane in desk.lanes:
            order = desk.order(lane)
            words = ("--symbol", spelled(lane.venue), "--order-id", order)
            code, told = await say("submit", str(lane), *words, "--wait")
            assert (code, "cancelled" in told) == (0, True), told
            code, told = await say("trace", order)
            assert (code, "cancelled" in told) == (0, True), told
            desk.order(lane)
            assert (await Flattening(desk.client, Wish(lane), "test").run()).empty
            assert (await say("pause", str(lane)))[0] == 0
            code, told = await say("status")
            assert (code, "paused" in told) == (0, True), told
            assert (await say("resume", str(lane)))[0] == 0
            assert (await say("guard", str(lane), "--ttl", "60s", "--once"))[0] == 0
            assert (await say("guard", str(lane), "--off"))[0] == 0
        desk.order(desk.lanes[2])
        async with running({"CANCELQ_REDIS_URL": nodes.url}, "kill", lanes[2], "--yes") as kill:
            assert await kill.code() == 0, kill.seen
        code, told = await say("status", "--json")
        assert (code, {row["lane"] for row in json.loads(told)}) == (0, set(lanes)), told
        async with running({"CANCELQ_REDIS_URL": nodes.url}, "top", "--json", "--once") as top:
            assert await top.code() == 0
            assert all(lane in "".join(top.seen) for lane in lanes)
        code, told = await say("results", "--json", "--final")
        assert (code, len({json.loads(line)["venue"] for line in told.splitlines()})) == (0, 3), told
        code, told = await say("audit")
        assert (code, told.count("proven:")) == (0, 3), told


async def test_clients_find_each_lane_on_its_node(nodes: ClusterOfThree, lanes: list[str]) -> None:
    async with floor(nodes.url, *lanes) as desk, AsyncClient.from_url(nodes.url) as client:
        for lane in desk.lanes:
            ticket = await client.submit(lane, symbol=spelled(lane.venue), order_id=desk.order(lane))
            assert (await ticket.outcome()).status is Status.cancelled
        async with AsyncGuard(nodes.url, lanes[0], ttl_s=5) as guard:
            assert await guard.beat()
        read = await asyncio.to_thread(_as_one_thread, nodes.url, desk)
        assert read == set(lanes)


def _as_one_thread(url: str, desk: Floor) -> set[str]:
    """What the clients without asyncio make of it; the lanes whose events were read."""
    with Client(url) as client, Guard(url, str(desk.lanes[1]), ttl_s=5) as guard:
        assert guard.beat()
        tickets = [client.submit(lane, symbol=spelled(lane.venue), order_id=desk.order(lane)) for lane in desk.lanes]
        assert {event.status for event in client.wait_all(tickets)} == {Status.cancelled}
    with ResultsReader(url, desk.lanes, group="books", consumer="one", start="0") as reader:
        seen: set[str] = set()
        while len(seen) < len(desk.lanes):
            deliveries = reader.read(1.0)
            seen |= {str(delivery.lane) for delivery in deliveries}
            reader.ack(deliveries)
    return seen


def test_one_client_for_commands_transactions_scripts_and_scans(nodes: ClusterOfThree, lanes: list[str]) -> None:
    keys = [Lane.parse(lane).key("tried") for lane in lanes]
    with broker.client(nodes.url, heeding=True, **options(5.0)) as redis:
        for key in keys:
            with redis.pipeline(transaction=True) as pipe:
                pipe.set(key, "1")
                pipe.incr(key)
                assert pipe.execute() == [True, 2]
            # Unknown to every node at first.
            assert redis.register_script(f"return redis.call('GET', KEYS[1]) -- {key}")(keys=[key]) == b"2"
        assert sorted(redis.scan_iter(match="*:tried")) == sorted(key.encode() for key in keys)
        with redis.pipeline() as pipe:
            pipe.set(keys[0], "1")
            pipe.set(keys[1], "1")
            with pytest.raises(ValueError, match="about one lane"):
                pipe.execute()


async def test_the_same_with_asyncio(nodes: ClusterOfThree, lanes: list[str]) -> None:
    keys = [Lane.parse(lane).key("awaited") for lane in lanes]
    redis = connect(nodes.url)
    try:
        for key in keys:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.set(key, "1")
                pipe.incr(key)
                assert await pipe.execute() == [True, 2]
        assert await round_trip(redis, [("GET", key) for key in keys]) == [b"2"] * len(keys)
        assert sorted([key async for key in redis.scan_iter(match="*:awaited")]) == sorted(key.encode() for key in keys)
    finally:
        await redis.aclose()


async def test_a_worker_process_with_a_server_of_its_own_for_rq(
    nodes: ClusterOfThree, lanes: list[str], redis_url: str
) -> None:
    async with floor(nodes.url, *lanes, workers=0) as desk:
        env: Mapping[str, str] = {**desk.environment(), "CANCELQ_RQ_REDIS_URL": redis_url}
        async with running(env, "worker") as worker:
            for _ in lanes:
                await worker.expect("watching lane")
            for lane in desk.lanes:
                order = desk.order(lane)
                event = await desk.final(lane, await desk.send(lane, symbol=spelled(lane.venue), order_id=order))
                assert event.status is Status.cancelled
            worker.process.terminate()
            assert await worker.code() == 0


async def test_a_slot_that_is_moved_under_load_takes_its_lane_along(nodes: ClusterOfThree) -> None:
    lane_name = str(nodes.lane("bitget", 0))
    async with floor(nodes.url, lane_name, env={"CANCELQ_LEASE_MS": "3000"}) as desk:
        (lane,), stop = desk.lanes, asyncio.Event()
        asking = Asking(desk, lane, nodes.url, "asked", per_s=60, durable=False)
        task = asyncio.ensure_future(asking.run(stop))
        await true(lambda: len(asking.accepted) > 60)
        slot = slot_of(lane.inbox)
        for node in (nodes.nodes[1], nodes.nodes[0]):
            await asyncio.to_thread(nodes.move, slot, node)
            before = len(asking.accepted)
            await true(lambda least=before + 60: len(asking.accepted) > least)  # type: ignore[misc]
        stop.set()
        await task
        found = await settled(desk, lane, list(asking.accepted))
        assert {tuple(e.status for e in found[id_]) for id_ in asking.accepted} == {(Status.cancelled,)}
        assert not passed_limits(desk)


async def test_while_a_slot_is_being_moved_a_script_is_refused_whole(nodes: ClusterOfThree) -> None:
    async with lone_desk(nodes.url) as desk:
        slot = slot_of(LANE.inbox)
        source = nodes.holder(slot)
        to = next(node for node in nodes.nodes if node is not source)
        await desk.add(symbol="BTCUSDT", order_id="1")
        assert (await desk.admit(await desk.read())).admitted == 1
        cursor = await desk.ledger.cursor()
        await desk.add(symbol="BTCUSDT", order_id="2", scope="tpsl")  # of a class that has no queue yet
        more = desk.intake.prepare(cursor, await desk.read(cursor), ())
        nodes.begin_move(slot, to)
        before = everything(source)
        # The node has all the lane's keys still. One that was never there could be on the other node for all it knows.
        assert await refused(desk, RoundRequest(admission=more))
        assert await refused(desk, RoundRequest(takes=[TakeRequest("c", "b1")]))
        half = f"redis.call('SET', KEYS[1], 'half') return redis.call('GET', '{LANE.key('elsewhere')}')"
        with pytest.raises(RedisError):
            await command(desk.client, "EVAL", half, *script_keys(desk.client, LANE.key("clock")))
        assert everything(source) == before
        nodes.give_up_move(slot)
        assert (await desk.take("b2")).batch


async def refused(desk: Desk, wanted: RoundRequest) -> bool:
    try:
        reply = await desk.ledger.round(wanted)
    except RedisError:
        return True
    return all(isinstance(part, RedisError) for part in (reply.admitted, *reply.taken) if part)


def everything(node: RedisServer) -> dict[bytes, bytes | None]:
    with node.client() as client:
        return {key: client.dump(key) for key in client.scan_iter()}


async def test_an_inbox_that_has_moved_ahead_of_its_slot_is_followed(nodes: ClusterOfThree) -> None:
    lane = nodes.lane("bingx", 1)  # no other test asks there
    source, to = nodes.nodes[1], nodes.nodes[2]
    with source.client() as redis:
        redis.xgroup_create(lane.inbox, "made", mkstream=True)
    nodes.begin_move(slot_of(lane.inbox), to)
    with Client(nodes.url) as client:
        client.submit(lane, symbol="BTCUSDT", order_id="1")
        move_key(lane.inbox, source, to)
        client.submit(lane, symbol="BTCUSDT", order_id="2")
        assert [
            ticket.id for ticket in client.submit_many(lane, [{"id": "3", "symbol": "BTCUSDT", "order_id": "3"}])
        ] == ["3"]
    async with AsyncClient.from_url(nodes.url) as client:
        await client.submit(lane, symbol="BTCUSDT", order_id="4")
    nodes.move(slot_of(lane.inbox), to)
    with to.client() as redis:
        assert [fields[b"order_id"] for _, fields in redis.xrange(lane.inbox)] == [b"1", b"2", b"3", b"4"]


async def test_a_node_that_is_restarted_is_waited_for_and_the_other_lanes_go_on(
    nodes: ClusterOfThree, lanes: list[str]
) -> None:
    # What all lanes share is on node 0: the roster, and the units of this address.
    assert nodes.holder(slot_of(ROSTER)) is nodes.nodes[0]
    egress = next(
        name for n in range(1000) if nodes.holder(slot_of(f"{{egress:{(name := f'e{n}')}}}")) is nodes.nodes[0]
    )
    async with floor(nodes.url, *lanes, env={"CANCELQ_LEASE_MS": "3000", "CANCELQ_EGRESS": egress}) as desk:
        other, away, _ = desk.lanes
        order = desk.order(away)
        await asyncio.to_thread(nodes.nodes[1].kill9)
        asked = await desk.send(other, symbol=spelled(other.venue), order_id=desk.order(other))
        assert (await settled(desk, other, [asked]))[asked][-1].status is Status.cancelled
        await asyncio.to_thread(nodes.nodes[1].start)
        asked = await patiently(lambda: desk.send(away, symbol=spelled(away.venue), order_id=order))
        assert (await settled(desk, away, [asked]))[asked][-1].status is Status.cancelled


async def test_lanes_of_other_nodes_have_their_gauges_while_a_node_is_away(nodes: ClusterOfThree) -> None:
    watched = [seen_lane(nodes, n) for n in range(3)]
    client, registry = connect(nodes.url), CollectorRegistry()
    # That address is on the node, too.
    egress = next(
        name for n in range(1000) if nodes.holder(slot_of(f"{{egress:{(name := f'e{n}')}}}")) is nodes.nodes[1]
    )
    gauges = LaneGauges(client, Watch(lambda: watched, addresses=lambda: [(egress, "bitget-ip")]))
    registry.register(gauges)

    def shown(lane: Lane) -> float | None:
        at = {"venue": lane.venue, "account": lane.account}
        return registry.get_sample_value("cancelq_lane_not_admitted", at)

    try:
        for lane in watched:
            await command(client, "XADD", lane.inbox, "*", "symbol", "BTCUSDT")
        await gauges.look()
        assert [shown(lane) for lane in watched] == [1, 1, 1]
        await asyncio.to_thread(nodes.nodes[1].kill9)
        try:
            await gauges.look()
            assert [shown(lane) for lane in watched] == [1, None, 1]
        finally:
            await asyncio.to_thread(nodes.nodes[1].start)
        await patiently(lambda: command(client, "XLEN", watched[1].inbox))
        await gauges.look()
        assert [shown(lane) for lane in watched] == [1, 1, 1]
    finally:
        await client.aclose()


async def test_memory_is_full_when_it_is_on_the_node_that_is_full_first(nodes: ClusterOfThree) -> None:
    lanes = [seen_lane(nodes, n) for n in range(2)]
    client, full = connect(nodes.url), nodes.nodes[1]
    try:
        for lane in lanes:
            for _ in range(50):
                await command(client, "XADD", lane.results, "*", "status", "cancelled")
        with full.client() as one:
            most = int(one.info("memory")["used_memory"]) + 100_000_000
            one.config_set("maxmemory", most)
        found = await growth(client, lanes)
        assert [size.entries for size in found.lanes] == [50, 50]
        assert found.memory_most == most
        assert found.full_in_h is not None
        assert (await growth(client, lanes[:1])).full_in_h is None
    finally:
        with full.client() as one:
            one.config_set("maxmemory", 0)
        await client.aclose()


def seen_lane(nodes: ClusterOfThree, node: int) -> Lane:
    """A lane on this node that nobody serves."""
    lanes = (Lane("bybit", f"seen{n}") for n in range(1000))
    return next(lane for lane in lanes if nodes.holder(slot_of(lane.inbox)) is nodes.nodes[node])
