"""Periods that fire once over all processes, and jobs that are killed half way and done once all the same."""

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from cancelq.contract import Lane, Status
from cancelq_worker.jobs.guarded import Duty, GuardedJob
from cancelq_worker.jobs.redrive import redriven_id
from cancelq_worker.jobs.trigger import Period, Trigger
from cancelq_worker.simulator.orders import State
from cancelq_worker.trips import command
from tests.integration.jobs_rig import StallingProxy, ended, give_up_the_dead, queue_on, start_jobs
from tests.integration.rig import Rig, desk
from tests.integration.test_jobs_work import ONE_TRY, resolved, unresolved
from tests.integration.test_rq_worker import Child, children
from tests.servers import RedisServer

__all__ = ["children"]  # the fixture

pytestmark = pytest.mark.one_server

LANE = Lane("bitget", "main")
MINUTE = Period("sweep", LANE, 60_000)
DAY = Period("sweep", LANE, 86_400_000)
TABLE = {"cancelq.jobs.sweep": Duty(lambda *_: None)}


def trigger(url: str, *periods: Period) -> Trigger:
    job_class = type("TestJob", (GuardedJob,), {"table": TABLE})
    queue = Queue("cancelq", connection=Redis.from_url(url), job_class=job_class, serializer=JSONSerializer)
    return Trigger(queue, list(periods), TABLE)


def test_many_processes_fire_a_period_once(redis_url: str) -> None:
    triggers = [trigger(redis_url, DAY) for _ in range(8)]
    together = threading.Barrier(len(triggers))

    def tick(one: Trigger) -> list[str]:
        together.wait()
        return one.tick() + one.tick()

    with ThreadPoolExecutor(len(triggers)) as pool:
        fired = [job_id for some in pool.map(tick, triggers) for job_id in some]
    assert len(fired) == 1
    with Redis.from_url(redis_url) as client:
        assert queue_on(client).job_ids == fired
        job = Job.fetch(fired[0], client, JSONSerializer)
        assert (job.args, job.retries_left) == (["bitget:main", int(fired[0].rpartition("-")[2])], 3)


def test_periods_that_were_missed_are_caught_up_once(redis_url: str) -> None:
    one = trigger(redis_url, DAY)
    (first,) = one.tick()
    begun_ms = int(first.rpartition("-")[2])
    with Redis.from_url(redis_url) as client:
        queue_on(client).empty()  # type: ignore[no-untyped-call]  # RQ leaves it unannotated
        client.set(DAY.key, begun_ms - 10 * DAY.every_ms)
        assert one.tick() == [first]
        assert one.tick() == []


def test_a_clock_that_went_back_does_not_hold_a_period_up_for_good(redis_url: str) -> None:
    one = trigger(redis_url, DAY)
    with Redis.from_url(redis_url) as client:
        client.set(DAY.key, time.time_ns() // 1_000_000 + 100 * DAY.every_ms)
        assert len(one.tick()) == 1
        assert one.tick() == []


def test_another_period_length_fires_by_its_own_clock(redis_url: str) -> None:
    assert len(trigger(redis_url, DAY).tick()) == 1
    assert len(trigger(redis_url, MINUTE).tick()) == 1


def test_while_rq_is_suspended_nothing_is_fired(redis_url: str) -> None:
    one = trigger(redis_url, DAY)
    with Redis.from_url(redis_url) as client:
        suspend(client)
        assert one.tick() == []
        resume(client)
        assert len(one.tick()) == 1


def test_a_retry_is_taken_up_by_one_process(redis_url: str) -> None:
    triggers = [trigger(redis_url) for _ in range(4)]
    with Redis.from_url(redis_url) as client:
        queue = queue_on(client)
        job = queue.create_job("cancelq.jobs.sweep", args=["bitget:main", 0])
        job.save()
        client.zadd(queue.scheduled_job_registry.key, {job.id: 1})
        with ThreadPoolExecutor(4) as pool:
            taken = [job_id for some in pool.map(lambda one: one.tick(), triggers) for job_id in some]
        assert taken == [job.id]
        assert queue.job_ids == [job.id]
        assert queue.scheduled_job_registry.count == 0


async def killed_half_way(
    children: list[Child], rig: Rig, rqs: RedisServer, word: bytes, function: str, *args: object, **env: str
) -> None:
    """Runs a job, kills the process as soon as the lanes' server has done the job's command `word`, and runs it again
    in another process."""
    proxy = await asyncio.to_thread(StallingProxy, int(rig.redis_url.rpartition(":")[2].split("/")[0]), word)
    given = {"CANCELQ_RQ_REDIS_URL": rqs.url, **env}
    try:
        first = await asyncio.to_thread(start_jobs, children, proxy.url, **given)
        with rqs.client() as client:
            queue = queue_on(client)
            job = queue.enqueue(function, *args)
            assert await asyncio.to_thread(proxy.stalled.wait, 15)
            first.send(signal.SIGKILL)
            await asyncio.to_thread(first.code)
            assert job.get_status() == "started"
            give_up_the_dead(queue)
            await asyncio.to_thread(start_jobs, children, rig.redis_url, **given)
            assert await asyncio.to_thread(ended, job) == "finished"
    finally:
        await asyncio.to_thread(proxy.close)


async def test_a_submit_killed_half_way_is_one_cancel(
    children: list[Child], redis_url: str, redis_server: RedisServer
) -> None:
    async with desk(redis_url) as rig:
        order_id = rig.order()
        await rig.ready()
        fields = {"symbol": "BTCUSDT", "order_id": order_id, "id": "mine"}
        await killed_half_way(children, rig, redis_server, b"XADD", "cancelq.rq.submit", "bitget:main", fields)
        assert (await rig.final("mine")).status is Status.cancelled
        assert [event.status for event in await rig.of("mine") if event.final] == [Status.cancelled]
        assert len(await rig.calls("cancel-order")) == 1


async def test_a_sweep_killed_half_way_is_one_sweep(
    children: list[Child], redis_url: str, redis_server: RedisServer
) -> None:
    async with desk(redis_url) as rig:
        now_ms = time.time_ns() // 1_000_000
        order_id = rig.order(created_ms=now_ms - 7_200_000)
        await rig.ready()
        env = {"CANCELQ_JOBS__SWEEP__BITGET__MAIN__EVERY": "1d", "CANCELQ_JOBS__SWEEP__BITGET__MAIN__OLDER_THAN": "1h"}
        with redis_server.client() as client:  # the job is put there by hand, not by the trigger
            client.set(DAY.key, now_ms - now_ms % DAY.every_ms)
        await killed_half_way(children, rig, redis_server, b"XADD", "cancelq.jobs.sweep", "bitget:main", now_ms, **env)
        event = await rig.final(f"sweep-{now_ms}")
        assert event.status is Status.cancelled
        assert rig.truth(order_id)["state"] == "cancelled"
        assert len([event for event in await rig.events() if event.final]) == 1


async def test_a_redrive_killed_half_way_is_one_cancel(
    children: list[Child], redis_url: str, redis_server: RedisServer
) -> None:
    async with unresolved(redis_url) as (rig, _, sent):
        rig.simulator.configure({"stuck_ids": []})
        await killed_half_way(children, rig, redis_server, b"XADD", "cancelq.jobs.redrive", "bitget:main")
        again = redriven_id(rig.lane, sent)
        assert (await rig.final(again)).status is Status.cancelled
        assert [event.status for event in await rig.of(again) if event.final] == [Status.cancelled]
        assert len([event for event in await rig.events() if event.act == "redrive"]) == 1


async def test_a_reconcile_killed_half_way_looks_once(
    children: list[Child], redis_url: str, redis_server: RedisServer
) -> None:
    async with unresolved(redis_url) as (rig, order_id, sent):
        rig.simulator.move_order(order_id, State("filled"))
        await rig.stop()
        env = {"CANCELQ_JOBS__RECONCILE__BITGET__MAIN__EVERY": "1d"}
        with redis_server.client() as client:
            day_ms = time.time_ns() // 1_000_000 // DAY.every_ms * DAY.every_ms
            client.set(Period("reconcile", LANE, DAY.every_ms).key, day_ms)
        await killed_half_way(
            children, rig, redis_server, b"RECONCILE", "cancelq.jobs.reconcile", "bitget:main", 0, **env
        )
        assert await rig.client.hlen(rig.lane.key("state")) == 1
        rig.overrides = ONE_TRY
        rig.start("later")
        async with asyncio.timeout(20):
            while not await resolved(rig, sent):
                await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", rig.lane.results, "$")
        assert len(await resolved(rig, sent)) == 1


async def test_a_flatten_killed_half_way_empties_the_lane(
    children: list[Child], redis_url: str, redis_server: RedisServer
) -> None:
    async with desk(redis_url) as rig:
        orders = [rig.order(), rig.order(kind="tpsl")]
        await rig.ready()
        await killed_half_way(children, rig, redis_server, b"XADD", "cancelq.jobs.flatten", "bitget:main")
        assert {rig.truth(order)["state"] for order in orders} == {"cancelled"}
