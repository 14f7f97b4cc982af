"""`cancelq jobs` under RQ, for real: what it runs, what it refuses, how it ends, and what `rq` shows of it."""

import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat
from rq.exceptions import StopRequested
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from cancelq.contract import Lane
from cancelq.rq import QUEUE
from cancelq_worker.jobs.guarded import FAILURE_TTL_S, RESULT_TTL_S, GuardedJob
from cancelq_worker.jobs.worker import JobsWorker, _Session
from cancelq_worker.settings import Settings
from tests.integration.jobs_rig import (
    PATIENCE_S,
    PROGRAM,
    ROOT,
    StallingProxy,
    clean_environment,
    ended,
    failure,
    give_up_the_dead,
    queue_on,
    rq,
    start_jobs,
)
from tests.integration.test_rq_worker import Child, children
from tests.integration.told import audited, fill, named
from tests.servers import RedisServer

__all__ = ["children"]  # the fixture

pytestmark = pytest.mark.one_server

LANE = Lane("bitget", "main")
CANCEL = {"symbol": "BTCUSDT", "order_id": "121211212122"}


@pytest.fixture
def lanes_server(redis_url: str) -> Iterator[Redis]:
    """The server, with the inbox of bitget:main, which a worker would make."""
    with Redis.from_url(redis_url) as client:
        client.xadd(LANE.inbox, {"scope": "order"}, id="1-1")
        client.xtrim(LANE.inbox, 0)
        yield client


@pytest.fixture
def queue(lanes_server: Redis) -> Queue:
    return queue_on(lanes_server)


def inbox(client: Redis) -> list[dict[bytes, bytes]]:
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(LANE.inbox))
    return [fields for _, fields in entries]


def test_rq_info_shows_it_on_its_one_queue(children: list[Child], redis_url: str) -> None:
    child = start_jobs(children, redis_url)
    told = rq(redis_url, "info", "--only-workers", "--raw")
    assert f"-{child.process.pid}-" in told
    assert " cancelq." in told
    child.send(signal.SIGTERM)
    assert child.code() == 0
    assert f"-{child.process.pid}-" not in rq(redis_url, "info", "--only-workers", "--raw")


def test_an_intent_comes_in_through_rq_s_door(children: list[Child], redis_url: str, queue: Queue) -> None:
    start_jobs(children, redis_url)
    job = queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, job_id="desk-77")
    assert ended(job) == "finished"
    assert job.return_value(refresh=True) == "rq-desk-77"
    assert inbox(queue.connection) == [{b"id": b"rq-desk-77", b"symbol": b"BTCUSDT", b"order_id": b"121211212122"}]
    named = queue.enqueue("cancelq.rq.submit", "bitget:main", {**CANCEL, "id": "mine", "not_before_ms": 1800000000000})
    assert ended(named) == "finished"
    assert named.return_value(refresh=True) == "mine"


@pytest.mark.parametrize(
    ("lane", "fields", "why"),
    [
        ("bybit:main", CANCEL, "bybit:main is not open to jobs; those that are (rq_lanes): bitget:main"),
        ("bitgt:main", CANCEL, "unknown venue"),
        ("bitget:main", {"symbol": "BTCUSDT"}, "order_id: missing"),
        ("bitget:main", {**CANCEL, "order_id": 12}, "order_id"),
        ("bitget:main", ["symbol"], "wants a lane and a mapping"),
    ],
)
def test_what_cannot_be_asked_fails_for_good_and_says_why(
    children: list[Child], redis_url: str, queue: Queue, lane: str, fields: object, why: str
) -> None:
    start_jobs(children, redis_url, CANCELQ_RQ_LANES='["bitget:main"]')
    job = queue.enqueue("cancelq.rq.submit", lane, fields)
    assert why in failure(job)
    assert job.id in queue.failed_job_registry
    assert inbox(queue.connection) == []


def test_nothing_that_is_not_on_the_list_is_run(
    children: list[Child], redis_url: str, queue: Queue, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    command = f"touch {mark}"
    pickled = Queue("cancelq", connection=queue.connection)
    touch = Callback("os.system")
    forged = {
        "not on the list": queue.enqueue("os.system", command),
        "is not on": queue.enqueue("cancelq_worker.jobs.table.os.system", command),
        "is no JSON": pickled.enqueue("os.system", command),
        "success_callback_name": queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, on_success=touch),
        "failure_callback_name": queue.enqueue("cancelq.rq.submit", "nowhere", {}, on_failure=touch),
        "stopped_callback_name": queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, on_stopped=touch),
        "asks to be repeated": queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, repeat=Repeat(times=3)),
    }
    start_jobs(children, redis_url)
    for why, job in forged.items():
        told = failure(Job.fetch(job.id, connection=queue.connection, serializer=JSONSerializer))
        assert why in told, told
        assert "Refused" in told
        assert job.id in queue.failed_job_registry
    assert queue.count == 0
    assert inbox(queue.connection) == []
    assert not mark.exists()


def test_a_webhook_is_not_called(children: list[Child], redis_url: str, queue: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        hook = Webhook(url, "failed")
        job = queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, webhooks=[hook])
        start_jobs(children, redis_url)
        assert "it has webhooks" in failure(job)
        child_done = queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)
        assert ended(child_done) == "finished"  # the worker is past the first job
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_job_class_of_its_own_changes_nothing(
    children: list[Child], redis_url: str, queue: Queue, tmp_path: Path
) -> None:
    class Sly(Job):
        """Would run a shell command, if the worker took its class from the job."""

        @property
        def func(self) -> object:
            return lambda *_: (tmp_path / "ran").touch()

    sly = Queue("cancelq", connection=queue.connection, job_class=Sly, serializer=JSONSerializer)
    job = sly.enqueue("os.getpid")
    start_jobs(children, redis_url)
    assert "'os.getpid' is not on the list" in failure(Job.fetch(job.id, queue.connection, JSONSerializer))
    assert not (tmp_path / "ran").exists()


def test_an_abandoned_job_s_failure_callback_is_not_run_either(
    children: list[Child], redis_url: str, queue: Queue, tmp_path: Path
) -> None:
    # RQ runs it when it clears up after a worker that died.
    mark = tmp_path / "ran"
    job = queue.enqueue("cancelq.rq.submit", "bitget:main", {}, on_failure=Callback("tests.integration.sly.touch"))
    queue.connection.lpop(queue.key)
    queue.connection.hset(job.key, "description", str(mark))
    queue.connection.zadd(StartedJobRegistry(queue=queue).key, {f"{job.id}:execution": 1})
    start_jobs(children, redis_url)
    give_up_the_dead_after = queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)
    assert ended(give_up_the_dead_after) == "finished"
    assert queue.connection.zcard(StartedJobRegistry(queue=queue).key) == 0
    assert not mark.exists()


def test_what_is_no_job_at_all_ends_nobody(children: list[Child], redis_url: str, queue: Queue) -> None:
    queue.connection.hset("rq:job:garbage", mapping={"data": b"\xff", "created_at": "yesterday"})
    queue.connection.hset("rq:job:cut", mapping={"data": b"[1", "timeout": "x"})
    queue.connection.rpush(queue.key, "garbage", "vanished", "cut")
    child = start_jobs(children, redis_url)
    child.expect("removed what is no job")
    assert ended(queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)) == "finished"
    assert child.process.poll() is None
    child.send(signal.SIGTERM)
    assert child.code() == 0
    # Left over in the list of what was popped, they must not end the next worker, either.
    start_jobs(children, redis_url)
    assert ended(queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)) == "finished"


def test_jobs_that_are_bombs_end_nobody(children: list[Child], redis_url: str, queue: Queue) -> None:
    bombs = {
        "unpacks to 200 MB": zlib.compress(b'["cancelq.rq.submit", null, ["' + b"x" * 200_000_000 + b'"], {}]', 1),
        "is nested": zlib.compress(b'["cancelq.rq.submit", null, ' + b"[" * 900_000),
        "has a huge number": zlib.compress(b'["cancelq.rq.submit", null, [' + b"9" * 100_000 + b"], {}]"),
        "is large as it is": b'["cancelq.rq.submit", null, ["' + b"x" * 2_000_000 + b'"], {}]',
    }
    for name, data in bombs.items():
        queue.connection.hset(f"rq:job:{name}", "data", data)
        queue.connection.hset(f"rq:job:{name}", "created_at", "2026-01-01T00:00:00Z")
        queue.connection.rpush(queue.key, name)
    child = start_jobs(children, redis_url)
    assert ended(queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)) == "finished"
    assert child.process.poll() is None
    status = Path(f"/proc/{child.process.pid}/status").read_text()
    (most_kb,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    assert most_kb < 180_000
    assert len(inbox(queue.connection)) == 1


def test_every_job_is_bounded_whatever_it_asks_for(children: list[Child], redis_url: str, queue: Queue) -> None:
    start_jobs(children, redis_url)
    job = queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, result_ttl=-1, failure_ttl=-1, job_timeout=-1)
    assert ended(job) == "finished"
    assert 0 < queue.connection.ttl(job.key) <= RESULT_TTL_S
    job.refresh()  # type: ignore[no-untyped-call]  # RQ leaves it unannotated
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (30, RESULT_TTL_S, FAILURE_TTL_S)
    assert job.retries_left == 3


def test_a_failure_that_passes_is_tried_again_without_rq_s_scheduler(
    children: list[Child], redis_url: str, queue: Queue
) -> None:
    queue.connection.delete(LANE.inbox)
    start_jobs(children, redis_url)
    job = queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)
    while job.get_status() != "scheduled":  # bound by the test's time-out
        job.latest_result(timeout=1)
    queue.connection.xadd(LANE.inbox, {"scope": "order"}, id="1-1")
    queue.connection.zadd(queue.scheduled_job_registry.key, {job.id: 1})
    assert ended(job) == "finished"
    assert queue.connection.xlen(LANE.inbox) == 2
    assert queue.scheduled_job_registry.count == 0


def test_rq_requeue_runs_a_failed_job_again(children: list[Child], redis_url: str, queue: Queue) -> None:
    first = start_jobs(children, redis_url, CANCELQ_RQ_LANES="[]")
    job = queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, job_id="again")
    assert "those that are (rq_lanes): none" in failure(job)
    first.send(signal.SIGTERM)
    assert first.code() == 0
    start_jobs(children, redis_url)
    rq(redis_url, "requeue", "--queue", "cancelq", "-S", "json", job.id)
    while not inbox(queue.connection):
        job.latest_result(timeout=1)
    while job.get_status() != "finished":
        job.latest_result(timeout=1)
    assert [fields[b"id"] for fields in inbox(queue.connection)] == [b"rq-again"]


def test_rq_suspend_holds_the_jobs(children: list[Child], redis_url: str, queue: Queue) -> None:
    child = start_jobs(children, redis_url)
    rq(redis_url, "suspend")
    # The read that was under way may still take one; RQ looks whether it is suspended before the next.
    one, other = (queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL) for _ in range(2))
    child.expect("suspended")
    assert other.get_status() == "queued"
    rq(redis_url, "resume")
    assert (ended(one), ended(other)) == ("finished", "finished")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(children: list[Child], redis_url: str, number: signal.Signals) -> None:
    child = start_jobs(children, redis_url)
    child.send(number)
    assert child.code() == 0
    with Redis.from_url(redis_url) as client:
        assert client.smembers("rq:workers") == set()


def test_hup_reads_the_settings_again(children: list[Child], redis_url: str, queue: Queue, tmp_path: Path) -> None:
    config = tmp_path / "cancelq.toml"
    config.write_text('rq_lanes = ["bybit:main"]\n')
    child = start_jobs(children, redis_url, CANCELQ_CONFIG=str(config))
    config.write_text("rq_lane = []\n")
    child.send(signal.SIGHUP)
    assert "rq_lane" in child.expect("the old ones stay")
    assert "not open" in failure(queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL))
    config.write_text('rq_lanes = ["bitget:main"]\n')
    child.send(signal.SIGHUP)
    child.expect("*** Listening on")
    assert ended(queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)) == "finished"


def test_a_wish_to_end_is_kept_where_hup_comes_before_the_job_in_hand_has_ended(redis_url: str) -> None:
    session = _Session(Settings.load(None, {"CANCELQ_REDIS_URL": redis_url}, need_keys=False))
    with Redis.from_url(redis_url) as client:
        session.worker = JobsWorker([QUEUE], connection=client, job_class=GuardedJob, serializer=JSONSerializer)
        session.worker.stop_wished = True  # by TERM
        session._reread(signal.SIGHUP, None)
        assert not session.restart_wanted
        session.restart_wanted = True  # by HUP
        with pytest.raises(StopRequested):
            session._end(signal.SIGTERM, None)
        assert not session.restart_wanted


def test_redis_and_rq_may_be_two_servers(
    children: list[Child], redis_url: str, redis_server: RedisServer, lanes_server: Redis
) -> None:
    start_jobs(children, redis_url, CANCELQ_RQ_REDIS_URL=redis_server.url, **_SWEEP)
    with redis_server.client() as rqs:
        queue = queue_on(rqs)
        assert ended(queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL)) == "finished"
        while len(inbox(lanes_server)) < 2:  # the sweep, and the cancel
            assert ended(queue.enqueue("cancelq.rq.submit", "bitget:main", CANCEL, job_id="same")) == "finished"
        assert not [key for key in rqs.scan_iter() if b"{" in key]
        assert not list(lanes_server.scan_iter("rq:*"))


def test_rq_s_server_may_go_away_and_come_back(
    children: list[Child], redis_url: str, redis_server: RedisServer, lanes_server: Redis
) -> None:
    child = start_jobs(children, redis_url, CANCELQ_RQ_REDIS_URL=redis_server.url)
    redis_server.kill9()
    child.expect("RQ's server does not answer")
    redis_server.start()
    with redis_server.client() as rqs:
        assert ended(queue_on(rqs).enqueue("cancelq.rq.submit", "bitget:main", CANCEL)) == "finished"
    assert len(inbox(lanes_server)) == 1
    redis_server.kill9()
    child.send(signal.SIGTERM)
    assert child.code() == 0


def test_without_rq_s_server_it_does_not_begin(redis_url: str) -> None:
    env = clean_environment({"CANCELQ_REDIS_URL": redis_url, "CANCELQ_RQ_REDIS_URL": "redis://127.0.0.1:1/0"})
    command = [sys.executable, "-c", PROGRAM, "jobs"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 69
    assert "Redis cannot be reached" in done.stderr


@pytest.mark.parametrize("more", [[], ["--with-scheduler"]])
def test_rq_s_own_command_cannot_run_it_unguarded(children: list[Child], redis_url: str, more: list[str]) -> None:
    worker = ["-w", "cancelq_worker.jobs.worker.JobsWorker", "-u", redis_url]
    command = [sys.executable, "-m", "rq.cli", "worker", *worker, *more, "cancelq"]
    child = Child(command, {})
    children.append(child)
    child.expect("are run by `cancelq jobs` alone")
    assert child.code() == 2


def test_keys_are_not_needed_and_not_wanted(children: list[Child], redis_url: str) -> None:
    child = start_jobs(children, redis_url)
    assert not [line for line in child.seen if "exchange keys" in line]
    env = {"CANCELQ_REDIS_URL": redis_url, "CANCELQ_ACCOUNTS__BITGET__MAIN__API_KEY": "canary-key"}
    other = Child([sys.executable, "-c", PROGRAM, "jobs"], env)
    children.append(other)
    assert "start it without them" in other.expect("exchange keys")
    assert "canary" not in "".join(other.seen)


_SWEEP = {
    "CANCELQ_JOBS__SWEEP__BITGET__MAIN__EVERY": "1d",
    "CANCELQ_JOBS__SWEEP__BITGET__MAIN__OLDER_THAN": "1h",
}


def test_rq_s_own_command_can_ask_for_a_job(children: list[Child], redis_url: str, queue: Queue) -> None:
    start_jobs(children, redis_url, **_SWEEP)
    rq(
        redis_url,
        "enqueue",
        "-q",
        "cancelq",
        "-S",
        "json",
        "--job-id",
        "by-hand",
        "cancelq.jobs.redrive",
        "bitget:main",
    )
    job = Job.fetch("by-hand", queue.connection, JSONSerializer)
    assert ended(job) == "finished"
    assert job.return_value(refresh=True) == {"sent": {}, "left": {}}
    assert "cancelq" in rq(redis_url, "info", "-S", "json", "--only-queues", "--raw")


def test_a_signal_lets_the_job_in_hand_end(children: list[Child], redis_server: RedisServer, redis_url: str) -> None:
    with redis_server.client() as lanes:
        lanes.xadd(LANE.inbox, {"scope": "order"}, id="1-1")
    child = start_jobs(children, redis_server.url, CANCELQ_RQ_REDIS_URL=redis_url)
    with Redis.from_url(redis_url) as rqs, redis_server.client() as lanes:
        lanes.client_pause(2_000)  # the lanes' server takes its time
        job = queue_on(rqs).enqueue("cancelq.rq.submit", "bitget:main", CANCEL)
        while job.get_status() != "started":
            job.latest_result(timeout=1)
        child.send(signal.SIGTERM)
        assert child.code() == 0
        assert job.get_status() == "finished"
        assert lanes.xlen(LANE.inbox) == 2


@pytest.mark.parametrize("word", [b"mark", b"trim"])
def test_an_archive_job_that_is_killed_half_way_is_finished_by_the_next(
    children: list[Child], redis_server: RedisServer, redis_url: str, queue: Queue, tmp_path: Path, word: bytes
) -> None:
    """Killed when the server has done what it asked, and it does not know: nothing is lost, nothing twice."""
    settings = {
        "CANCELQ_ARCHIVE_DIR": str(tmp_path / "archive"),
        "CANCELQ_RQ_REDIS_URL": redis_url,
        "CANCELQ_RESULTS_KEEP_DAYS": "1",
    }
    with redis_server.client() as lanes:
        fill(lanes, 25)
        between = StallingProxy(redis_server.port, b"\r\n" + word + b"\r\n")
        try:
            first = start_jobs(children, f"redis://127.0.0.1:{between.port}/0", **settings)
            job = queue.enqueue("cancelq.jobs.archive", "bitget:main")
            assert between.stalled.wait(PATIENCE_S)
            first.send(signal.SIGKILL)
            first.code()
        finally:
            between.close()
        start_jobs(children, redis_server.url, **settings)
        give_up_the_dead(queue)
        assert ended(job) == "finished"
        found = audited(lanes, tmp_path / "archive")
        assert (found.archived, found.numbers.statuses["cancelled"], named(found)) == (25, 25, [])
        assert lanes.xlen(LANE.results) == 0
