"""`doctor` finds what is wrong with lanes, inboxes, limits and jobs, each made on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from threading import Event, Thread

import pytest
import redis.asyncio as aioredis
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from cancelq.contract import Lane, Status
from cancelq.rq import QUEUE
from cancelq_worker import events, operate
from cancelq_worker.data_version import DATA_VERSION
from cancelq_worker.doctor.findings import Level
from cancelq_worker.exits import Exit
from cancelq_worker.snapshot import LAST_ID
from cancelq_worker.trips import command
from tests.integration.rig import desk
from tests.integration.ward import at, empty_lane, examined, the

pytestmark = pytest.mark.one_server("redis7")

MAIN = Lane("bitget", "main")
KEY = "CANCELQ_ACCOUNTS__BITGET__MAIN__API_KEY"
DAY_MS = 86_400_000


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def lane(client: Redis) -> Iterator[Lane]:
    """A lane whose worker is alive and does nothing."""
    ended = Event()

    def beat() -> None:
        while True:
            client.zadd("cancelq:workers", {"w1": now_ms()})
            if ended.wait(0.3):
                return

    heart = Thread(target=beat)
    heart.start()
    yield empty_lane(client, MAIN)
    ended.set()
    heart.join()


def now_ms() -> int:
    return int(time.time() * 1000)


def result(client: Redis, status: Status, id_: str, at_ms: int | None = None, **fields: str) -> None:
    """One entry of the lane's results."""
    event = {**events.head(MAIN, id_, status, "local", fields.pop("detail", "")), **fields}
    client.xadd(MAIN.results, dict(event.items()), id=f"{at_ms}-0" if at_ms else "*")


def admitted(client: Redis, count: int) -> None:
    """So many entries were asked for and admitted."""
    for _ in range(count):
        last = client.xadd(MAIN.inbox, {"symbol": "BTCUSDT", "order_id": "1"})
    client.set(MAIN.key("cursor"), last)


async def test_a_lane_that_is_served_and_well(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status is Status.cancelled
        report = await examined(redis_url, rig.environment())
        of_lane = [one for one in report.findings if one.group in ("lane", "inbox", "limits")]
        assert {one.check: one.told for one in of_lane if one.level is not Level.ok} == {}
        assert the(report, "lane.served").told == "watched by w1"


# -- who serves it --------------------------------------------------------------------------------------------


async def test_a_lane_that_nobody_serves(client: Redis, redis_url: str) -> None:
    empty_lane(client, MAIN)
    client.xadd(MAIN.inbox, {"symbol": "BTCUSDT", "order_id": "1"})
    report = await examined(redis_url)
    found = the(report, "lane.served")
    assert (found.level, found.told) == (Level.fail, "no live worker, and 1 cancel wait")
    assert "cancelq worker" in found.remedy
    assert report.exit is Exit.UNHEALTHY


async def test_a_lane_that_was_never_served_and_one_that_is_not_configured(client: Redis, redis_url: str) -> None:
    empty_lane(client, Lane("bybit", "old"))
    report = await examined(redis_url, {KEY: "k"})
    assert "never served it here" in the(report, "lane.served", "bitget:main").told.replace("has ever", "never")
    assert the(report, "lane.configured", "bybit:old").level is Level.warn
    assert "[accounts.bybit.old]" in the(report, "lane.configured").remedy
    only = await examined(redis_url, {KEY: "k"}, lanes=["bitget:main"])
    assert {one.subject for one in only.findings if ":" in one.subject} == {"bitget:main"}


async def test_a_lane_with_a_key_of_another_type_hides_no_other(client: Redis, redis_url: str, lane: Lane) -> None:
    broken = Lane("bybit", "x")
    client.lpush(broken.inbox, "BTCUSDT 1")
    report = await examined(redis_url, {KEY: "k", "CANCELQ_ACCOUNTS__BYBIT__X__API_KEY": "k"})
    assert "none has touched it" in the(report, "lane.served", str(lane)).told
    told = the(report, "lane.served", "bybit:x")
    assert "wrong kind of value" in told.told
    assert "(TYPE)" in told.remedy


async def test_a_lane_whose_account_no_live_worker_has(client: Redis, redis_url: str, lane: Lane) -> None:
    assert "none has touched it ever" in the(await examined(redis_url), "lane.served").told
    for ago_s, level in ((600, Level.fail), (100, Level.ok)):
        client.set(lane.key("clock"), f"{(now_ms() - ago_s * 1000) * 1000} {now_ms() * 1000} x 0")
        assert the(await examined(redis_url), "lane.served").level is level


async def test_data_of_a_newer_version(client: Redis, redis_url: str, lane: Lane) -> None:
    client.set(lane.key("version"), DATA_VERSION + 1)
    assert the(await examined(redis_url), "lane.version").level is Level.fail


# -- what holds it --------------------------------------------------------------------------------------------


async def test_holds_are_told_with_what_ends_them(client: Redis, redis_url: str, lane: Lane) -> None:
    away = aioredis.Redis.from_url(redis_url, protocol=2)
    await operate.pause(away, lane, "anna")
    await away.aclose()
    report = await examined(redis_url)
    assert the(report, "lane.hold").level is Level.warn
    assert "paused by anna" in the(report, "lane.hold").told
    assert "cancelq resume bitget:main" in the(report, "lane.hold").remedy
    client.hset(lane.key("hold"), "*|paused", "-1 40009 sign signature error")
    client.hset(lane.key("hold"), "*|auth", "-1 40009 sign signature error")
    client.hset(lane.key("hold"), "orderInfo|rate", f"{(now_ms() + 60_000) * 1000} 429")
    report = await examined(redis_url)
    levels = {one.facts["reason"]: one.level for one in report.findings if one.check == "lane.hold"}
    assert levels == {"paused": Level.warn, "auth": Level.fail, "rate": Level.warn}
    assert report.exit is Exit.KEY_REFUSED


async def test_a_suspension_by_rq(client: Redis, redis_url: str, lane: Lane) -> None:
    suspend(client)
    assert the(await examined(redis_url), "lane.suspended").remedy == "rq resume"
    resume(client)
    assert "lane.suspended" not in at(await examined(redis_url), Level.warn)


async def test_a_guard_that_was_missed(client: Redis, redis_url: str, lane: Lane) -> None:
    client.set(lane.key("armed"), str(now_ms()))
    found = the(await examined(redis_url), "lane.guard")
    assert found.level is Level.fail
    assert "cancelq kill bitget:main" in found.remedy
    client.set(lane.guard, "on")
    assert the(await examined(redis_url), "lane.guard").level is Level.warn, "one that never ends never fires"
    client.set(lane.guard, "on", px=60_000)
    assert the(await examined(redis_url), "lane.guard").level is Level.ok


# -- its inbox ------------------------------------------------------------------------------------------------


async def test_an_inbox_that_is_blocked_by_the_largest_id_and_how_it_is_begun_anew(redis_url: str) -> None:
    """The remedy of docs/DOCTOR.md, done."""
    async with desk(redis_url) as rig:
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        await command(rig.client, "XADD", rig.lane.inbox, LAST_ID, "symbol", "BTCUSDT", "order_id", rig.order())
        async with asyncio.timeout(10):
            while await command(rig.client, "GET", rig.lane.key("cursor")) != LAST_ID.encode():
                await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", "nothing", "$")
        report = await examined(redis_url)
        assert the(report, "lane.served").level is Level.ok, "the lane can still be looked at"
        assert the(report, "inbox.blocked").level is Level.fail
        assert "largest id" in the(report, "inbox.blocked").told
        assert "docs/DOCTOR.md" in the(report, "inbox.blocked").remedy
        assert report.exit is Exit.UNHEALTHY
        await rig.stop()
        await command(rig.client, "RENAME", rig.lane.inbox, f"{rig.lane.inbox}-blocked")
        await command(rig.client, "DEL", rig.lane.key("cursor"))
        rig.start()
        done = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        assert done.status is Status.cancelled
        assert set(at(await examined(redis_url), Level.fail)) == {"durability.aof"}, "the lane is well again"


async def test_the_largest_id_where_nobody_admits(client: Redis, redis_url: str, lane: Lane) -> None:
    client.xadd(lane.inbox, {"symbol": "A"}, id=LAST_ID)
    report = await examined(redis_url)
    assert the(report, "inbox.blocked").level is Level.fail
    assert the(report, "inbox.moving").facts["not_admitted"] == 1


async def test_an_inbox_whose_ids_run_ahead(client: Redis, redis_url: str, lane: Lane) -> None:
    client.xadd(lane.inbox, {"symbol": "A"}, id=f"{now_ms() + DAY_MS * 3}-0")
    found = the(await examined(redis_url), "inbox.blocked")
    assert (found.level, "3 days in the future" in found.told) == (Level.fail, True)


async def test_an_inbox_that_nobody_admits_from(client: Redis, redis_url: str, lane: Lane) -> None:
    client.xadd(lane.inbox, {"symbol": "A"}, id=f"{now_ms() - 30_000}-0")
    report = await examined(redis_url)
    assert the(report, "inbox.moving").level is Level.fail
    assert "the oldest for 3" in the(report, "inbox.moving").told
    assert the(report, "lane.served").told == "cancels wait, and no live worker has this account"


async def test_an_inbox_that_somebody_shortened_past_the_cursor(client: Redis, redis_url: str, lane: Lane) -> None:
    admitted(client, 5)
    assert the(await examined(redis_url), "inbox.shortened").level is Level.ok
    for _ in range(3):
        client.xadd(lane.inbox, {"symbol": "B"}, maxlen=1, approximate=False)
    found = the(await examined(redis_url), "inbox.shortened")
    assert (found.level, found.facts["removed"]) == (Level.fail, 7)
    assert "cancelq audit bitget:main" in found.remedy


async def test_an_inbox_that_was_emptied_before_anything_was_admitted(
    client: Redis, redis_url: str, lane: Lane
) -> None:
    client.xadd(lane.inbox, {"symbol": "A"})
    client.xtrim(lane.inbox, maxlen=0)
    assert the(await examined(redis_url), "inbox.shortened").level is Level.fail


async def test_an_inbox_that_somebody_shortened_behind_the_cursor(client: Redis, redis_url: str, lane: Lane) -> None:
    admitted(client, 5)
    result(client, Status.cancelled, "a", final="1")
    client.xtrim(lane.inbox, maxlen=1, approximate=False)
    found = the(await examined(redis_url), "inbox.shortened")
    assert (found.level, "no longer be proven" in found.told) == (Level.warn, True)


async def test_what_workers_trim_by_age_is_no_fault(client: Redis, redis_url: str, lane: Lane) -> None:
    admitted(client, 5)
    for n in range(3):
        result(client, Status.cancelled, f"a{n}", at_ms=now_ms() - 40 * DAY_MS + n, final="1")
    client.xtrim(lane.inbox, maxlen=1, approximate=False)
    client.xtrim(lane.results, maxlen=1, approximate=False)
    assert the(await examined(redis_url), "inbox.shortened").level is Level.ok


async def test_a_flood_of_entries_that_can_never_work(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        ids = await rig.send_all([{"symbol": "BTC-USDT", "order_id": str(n + 1)} for n in range(30)])
        await rig.finals(ids)
        found = the(await examined(redis_url), "inbox.rejected")
        assert found.level is Level.warn
        assert "30 of the last 30" in found.told
        assert "Bitget spells pairs without a separator" in found.told


async def test_a_backlog(client: Redis, redis_url: str, lane: Lane) -> None:
    with client.pipeline() as pipe:
        for _ in range(5_200):
            pipe.xadd(lane.inbox, {"symbol": "A"})
        pipe.execute()
    assert the(await examined(redis_url), "inbox.backlog").level is Level.warn


async def test_unresolved_intents_until_something_was_done(client: Redis, redis_url: str, lane: Lane) -> None:
    result(client, Status.unresolved, "old", at_ms=now_ms() - 3 * DAY_MS, final="1")
    for id_ in ("one", "two", "three"):
        result(client, Status.unresolved, id_, final="1")
    found = the(await examined(redis_url), "lane.unresolved")
    assert (found.level, found.facts["unresolved"]) == (Level.warn, 3)
    assert "cancelq redrive bitget:main" in found.remedy
    result(client, Status.resolved, "one")
    result(client, Status.cancelled, "again", final="1", origin="two")
    assert the(await examined(redis_url), "lane.unresolved").facts["unresolved"] == 1


async def test_an_archive_that_stands_still(client: Redis, redis_url: str, lane: Lane) -> None:
    result(client, Status.cancelled, "a", at_ms=now_ms() - 5 * DAY_MS, final="1")
    assert the(await examined(redis_url), "lane.archive").level is Level.ok
    client.set(lane.key("archived"), f"{now_ms() - 9 * DAY_MS}-0 3 {'0' * 64}")
    found = the(await examined(redis_url), "lane.archive")
    assert (found.level, "up to 9 days ago" in found.told) == (Level.warn, True)
    assert "cancelq archive bitget:main" in found.remedy
    nothing = await examined(redis_url, {"CANCELQ_ARCHIVE_DIR": "/tmp/archive"})
    assert the(nothing, "lane.archive").level is Level.warn
    client.set(lane.key("archived"), f"{now_ms() - 5 * DAY_MS}-0 3 {'0' * 64}")
    assert the(await examined(redis_url), "lane.archive").level is Level.ok, "nothing is newer"


async def test_results_that_nobody_trims(client: Redis, redis_url: str, lane: Lane) -> None:
    result(client, Status.cancelled, "a", at_ms=now_ms() - 40 * DAY_MS, final="1")
    assert "no worker trims them" in the(await examined(redis_url), "lane.archive").told


# -- limits and jobs ------------------------------------------------------------------------------------------


async def test_limits_and_where_they_come_from(client: Redis, redis_url: str, lane: Lane) -> None:
    env = {KEY: "k", "CANCELQ_ACCOUNTS__BITGET__MAIN__LIMITS__CANCEL_ORDER": "30"}
    client.hset(lane.key("rtt:orderInfo"), "units", 15)
    client.hset(lane.key("rtt:cancel-order"), "units", 50)
    found = the(await examined(redis_url, env), "limits.buckets")
    sources = {row["bucket"]: (row["units"], row["source"]) for row in found.facts["buckets"]}
    assert sources["cancel-order"] == (30, "account setting"), "the venue allows more, the settings less"
    assert sources["orderInfo"] == (15, "told by the venue")
    assert sources["cancel-symbol-order"] == (5, "documented")
    assert found.level is Level.ok
    client.hset(lane.key("limits"), "cancel-order", 10)
    other = the(await examined(redis_url, env), "limits.buckets")
    assert (other.level, "cancel-order 30/s here, 10 there" in other.told) == (Level.warn, True)


async def test_limits_of_the_address_and_what_of_them_is_left_to_others(client: Redis, redis_url: str) -> None:
    env = {KEY: "k", "CANCELQ_ACCOUNTS__BITGET__MAIN__LIMITS__BITGET_CONNECTS": "300"}
    told = the(await examined(redis_url, env), "limits.address").told
    assert "account setting: bitget-connects 300/300 s;" in told
    assert "documented: bitget-ip 6000/60 s, bitget-time 20/s;" in told
    assert "less a fifth for the desk's own programs: bitget-sockets 80 at a time;" in told


async def test_refusals_of_the_last_hour(client: Redis, redis_url: str, lane: Lane) -> None:
    client.hset(lane.key("limits"), "cancel-order", 10)
    client.hset(lane.key("rtt:cancel-order"), mapping={"refusals": 3, "refused_ms": now_ms() - 60_000})
    found = the(await examined(redis_url), "lane.refusals")
    assert found.level is Level.warn, found.told


async def test_jobs_without_a_process_and_jobs_that_failed(client: Redis, redis_url: str) -> None:
    periodic = {KEY: "k", "CANCELQ_JOBS__SWEEP": '{"bitget": {"main": {"older_than": "1h", "every": "5m"}}}'}
    report = await examined(redis_url, periodic)
    assert the(report, "jobs.process").level is Level.warn
    assert "sweep" in the(report, "jobs.process").told
    queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
    job = queue.enqueue("cancelq.jobs.nonsense")
    queue.failed_job_registry.add(job, ttl=1000)
    found = the(await examined(redis_url), "jobs.failed")
    assert (found.level, found.facts["failed"]) == (Level.warn, 1)
    assert "rq requeue" in found.remedy


async def test_a_server_of_rq_that_is_away_or_a_cluster(redis_url: str) -> None:
    away = await examined(redis_url, {"CANCELQ_RQ_REDIS_URL": "redis://127.0.0.1:1/0"})
    assert (the(away, "jobs.server").level, away.exit) == (Level.fail, Exit.UNREACHABLE)
    spread = await examined(redis_url, {"CANCELQ_RQ_REDIS_URL": "redis+cluster://127.0.0.1:1"})
    assert (the(spread, "jobs.server").level, spread.exit) == (Level.fail, Exit.CONFIGURATION)
    assert "rq_redis_url" in the(spread, "jobs.server").remedy
