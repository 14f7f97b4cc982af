"""A master that is lost under load: real servers, real sentinels, and the venue's own log as the judge."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from cancelq import AsyncClient, Status, Unconfirmed
from cancelq_worker import cli
from ops.chaos.links import Link
from tests.ha import role, stopped, until, watched
from tests.integration.failover import Asking, calls_between, epoch_us, passed_limits, patiently, settled, true
from tests.integration.floor import floor
from tests.integration.test_worker_process import running
from tests.servers import RedisServer

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(180)]

LANE = "bitget:main"
#: The shortest lease there is: buckets are held for it, and for their window, after a failover.
ENV = {"CANCELQ_DURABLE_REPLICAS": "1", "CANCELQ_LEASE_MS": "3000"}
HELD_US = 3_900_000
#: With one replica alone, the master that takes over would have none.
SAFE = {"min-replicas-to-write": "1"}
#: A call leaves within half a second of its take.
SENT_BY_US = 600_000


async def test_a_killed_master_loses_nothing_that_was_confirmed_and_no_limit_is_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with watched(tmp_path, replicas=2, config=SAFE) as servers:
        async with floor(servers.url, LANE, env=ENV, latency_before_ms=(5, 20), latency_after_ms=(5, 20)) as desk:
            (lane,), stop = desk.lanes, asyncio.Event()
            asking = Asking(desk, lane, servers.url, "asked", per_s=100)
            task = asyncio.ensure_future(asking.run(stop))
            await true(lambda: len(asking.accepted) > 100)
            old = servers.master()
            killed_us = epoch_us()
            old.kill9()
            await asyncio.to_thread(servers.await_failover, old)
            before = len(asking.accepted)
            await true(lambda: len(asking.accepted) > before + 100)
            stop.set()
            await task
            found = await settled(desk, lane, list(asking.accepted))
            assert {tuple(e.status for e in found[id_]) for id_ in asking.accepted} == {(Status.cancelled,)}
            assert {desk.truth(lane, order)["state"] for order in asking.accepted.values()} == {"cancelled"}
            assert asking.doubted > 0
            assert not passed_limits(desk)
            assert servers.unnamed_us > killed_us
            assert not calls_between(desk, lane, servers.unnamed_us, servers.unnamed_us + HELD_US)
        code = await asyncio.to_thread(cli.run, ["audit", LANE], {"CANCELQ_REDIS_URL": servers.url})
        assert code == 0, capsys.readouterr()


async def test_what_a_lagging_replica_does_not_have_is_uncertain_and_is_not_sent(tmp_path: Path) -> None:
    with watched(tmp_path) as servers:
        async with floor(servers.url, LANE, env=ENV) as desk, AsyncClient.from_url(servers.url) as client:
            (lane,), order = desk.lanes, desk.order(desk.lanes[0])
            (replica,) = servers.replicas()
            with stopped(replica):
                with pytest.raises(Unconfirmed, match=r"mine .* send it again with the same id") as raised:
                    await client.submit(lane, id="mine", symbol="BTCUSDT", order_id=order, durable=True)
                assert raised.value.id == "mine"
                began_s = time.monotonic()
                while time.monotonic() - began_s < 1.5:  # some rounds of takes that nobody confirms
                    await asyncio.sleep(0.1)
                    assert not desk.calls(lane, "cancel")
            ticket = await client.submit(raised.value.lane, raised.value.fields, durable=True)
            event = await ticket.outcome()
            assert (event.status, event.attempt) == (Status.cancelled, 1)
            assert len([call for call in desk.calls(lane, "cancel") if order in call["ids"]]) == 1


async def test_workers_on_an_isolated_master_send_nothing_and_take_what_replaced_it(tmp_path: Path) -> None:
    link = Link(0)
    await link.open()
    with ExitStack() as stack:
        servers = await asyncio.to_thread(stack.enter_context, watched(tmp_path, replicas=2, config=SAFE, front=link))
        old = servers.master()
        async with floor(old.url, LANE, env=ENV) as desk:  # as on the old master's side of the cut
            await desk.start("w2", CANCELQ_REDIS_URL=servers.url)
            (lane,), stop = desk.lanes, asyncio.Event()
            inside = Asking(desk, lane, old.url, "inside", per_s=30)
            outside = Asking(desk, lane, servers.url, "outside", per_s=30)
            tasks = [asyncio.ensure_future(one.run(stop)) for one in (inside, outside)]
            await true(lambda: len(inside.accepted) > 30 and len(outside.accepted) > 30)
            link.blackhole = True
            cut_us, confirmed = epoch_us(), len(inside.accepted)
            replaced = asyncio.ensure_future(asyncio.to_thread(servers.await_failover, old))
            lost = [desk.order(lane) for _ in range(200)]  # asked of the old master by one who does not wait
            await desk.send_all(lane, [{"symbol": "BTCUSDT", "order_id": order} for order in lost])
            await replaced
            before = len(outside.accepted)
            await true(lambda: len(outside.accepted) > before + 30)
            assert role(old) == "master"  # it does not know yet
            assert len(inside.accepted) <= confirmed + 1
            link.heal()
            link.reset()
            await asyncio.to_thread(until, lambda: role(old) == "slave", "an old master that follows the new one")
            stop.set()
            await asyncio.gather(*tasks)
            accepted = {**inside.accepted, **outside.accepted}
            found = await settled(desk, lane, list(accepted))
            assert {events[-1].status for events in found.values()} == {Status.cancelled}
            assert {desk.truth(lane, order)["state"] for order in accepted.values()} == {"cancelled"}
            assert not passed_limits(desk)
            assert servers.unnamed_us > cut_us
            assert not calls_between(desk, lane, cut_us + SENT_BY_US, servers.unnamed_us + HELD_US)
            assert {desk.truth(lane, order)["state"] for order in lost} == {"live"}


async def test_a_worker_process_and_what_rq_knows_of_it_outlive_a_failover(tmp_path: Path) -> None:
    with watched(tmp_path, replicas=2, config=SAFE) as servers:
        async with (
            floor(servers.url, LANE, workers=0, env=ENV) as desk,
            running(desk.environment(), "worker") as worker,
        ):
            (lane,) = desk.lanes
            await worker.expect("watching lane")
            old = servers.master()
            await asyncio.to_thread(servers.await_replicas, 2)  # of RQ's keys too
            old.kill9()
            new = await asyncio.to_thread(servers.await_failover, old)
            beaten = await asyncio.to_thread(rq_heartbeat, new)
            await asyncio.to_thread(until, lambda: rq_heartbeat(new) > beaten, "a heartbeat on the new master")
            order = desk.order(lane)
            asked = await patiently(lambda: desk.send(lane, symbol="BTCUSDT", order_id=order))
            assert (await settled(desk, lane, [asked]))[asked][-1].status is Status.cancelled
            worker.process.terminate()
            assert await worker.code() == 0, worker.seen


def rq_heartbeat(server: RedisServer) -> str:
    with server.client() as client:
        (worker,) = client.smembers("rq:workers")
        return str(client.hget(worker, "last_heartbeat"))
