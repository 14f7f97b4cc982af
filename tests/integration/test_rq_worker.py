"""The worker under RQ, for real: child processes, RQ's own command line, signals, a server that goes away."""

import contextlib
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from cancelq_worker.rq_worker import LaneWorker, _fail_misplaced, _Pulse, rq_connection, worker_name
from cancelq_worker.settings import Settings, SettingsError
from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]
PATIENCE_S = 15.0

pytestmark = pytest.mark.one_server

KEYS = {
    "CANCELQ_ACCOUNTS__BITGET__MAIN__API_KEY": "canary-key-1",
    "CANCELQ_ACCOUNTS__BITGET__MAIN__API_SECRET": "canary-secret-1",
    "CANCELQ_ACCOUNTS__BITGET__MAIN__PASSPHRASE": "canary-pass-1",
    "CANCELQ_ACCOUNTS__BYBIT__DESK_2__API_KEY": "canary-key-2",
    "CANCELQ_ACCOUNTS__BYBIT__DESK_2__API_SECRET": "canary-secret-2",
}


class Child:
    """A process whose lines, of stdout and stderr alike, can be waited for."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**_environment(), **env},
            process_group=0,
        )
        assert self.process.stdout is not None
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def expect(self, part: str) -> str:
        """The next line that holds `part`."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self._lines.get(timeout=max(0, deadline_s - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line with {part!r} in:\n" + "".join(self.seen))
            self.seen.append(line)
            if part in line:
                return line

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def send_until_it_ends(self, number: signal.Signals) -> None:
        """Again and again, as somebody does who has lost his patience."""
        while self.process.poll() is None:
            self.send(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.2)

    def code(self) -> int:
        """The exit code, once it ended by itself."""
        return self.process.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=PATIENCE_S)
        self._reader.join(PATIENCE_S)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.close()


@pytest.fixture
def small(children: list[Child], redis_url: str) -> Child:
    """The small engine serving both lanes, seen to have begun."""
    return _start(children, redis_url)


def test_rq_info_lists_the_worker_with_its_lanes(small: Child, redis_url: str) -> None:
    told = _rq(redis_url, "info", "--only-workers", "--raw")
    name = small.seen[-1].split(" as ")[1].strip()
    assert name in told
    assert f"-{small.process.pid}-" in name
    assert "started lane:bitget:main, lane:bybit:desk_2." in told
    small.send(signal.SIGTERM)
    assert small.code() == 0
    assert name not in _rq(redis_url, "info", "--only-workers", "--raw")


def test_rq_info_lists_the_worker_beside_other_queues(small: Child, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        Queue("cancelq", connection=client, serializer=JSONSerializer).enqueue("cancelq.rq.submit")
    assert f"-{small.process.pid}-" in _rq(redis_url, "info", "--only-workers", "--raw")


def test_rq_suspend_and_resume_reach_the_engine(small: Child, redis_url: str) -> None:
    _rq(redis_url, "suspend")
    small.expect("suspended")
    with Redis.from_url(redis_url) as client:
        (key,) = client.smembers("rq:workers")
        assert client.hget(key, "state") == b"suspended"
        _rq(redis_url, "resume")
        small.expect("resumed")


def test_a_worker_that_starts_while_suspended_knows_it_before_it_serves(children: list[Child], redis_url: str) -> None:
    _rq(redis_url, "suspend")
    child = _start(children, redis_url)
    assert child.seen[-1].strip().endswith("suspended")


def test_a_resume_is_heard_while_memory_is_full(children: list[Child], redis_server: RedisServer) -> None:
    child = _start(children, redis_server.url)
    _rq(redis_server.url, "suspend")
    child.expect("suspended")
    with Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        _rq(redis_server.url, "resume")
        child.expect("resumed")
        with client.monitor() as heard:
            looks = (said for said in heard.listen() if said["command"].upper().startswith("EXISTS RQ:SUSPENDED"))
            for _ in range(3):  # beats
                next(looks)
        client.config_set("maxmemory", 0)
        child.expect("answers again")
        (key,) = client.smembers("rq:workers")
        assert client.hget(key, "state") == b"started"
    assert sum("does not answer" in line for line in child.seen) == 1


@pytest.mark.parametrize("suspended", [False, True])
def test_a_worker_starts_while_memory_is_full(
    children: list[Child], redis_server: RedisServer, suspended: bool
) -> None:
    if suspended:
        _rq(redis_server.url, "suspend")
    with Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        child = _start(children, redis_server.url)
        assert child.seen[-1].strip().endswith("suspended") == suspended
        client.config_set("maxmemory", 0)
        child.expect("answers again")
    assert f"-{child.process.pid}-" in _rq(redis_server.url, "info", "--only-workers", "--raw")
    child.send(signal.SIGTERM)
    assert child.code() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(small: Child, number: signal.Signals) -> None:
    small.send(number)
    small.expect("asked to stop")
    small.expect("ended")
    assert small.code() == 0


def test_a_second_interrupt_ends_even_a_stuck_engine(children: list[Child], redis_url: str) -> None:
    child = _start(children, redis_url, STUCK="1")
    child.send(signal.SIGTERM)
    child.expect("asked to stop")
    child.send_until_it_ends(signal.SIGINT)
    child.expect("ended at once")
    assert child.code() == 130


def test_an_interrupt_sent_twice_at_once_is_one_wish(small: Child) -> None:
    small.send(signal.SIGINT)
    small.send(signal.SIGINT)
    small.expect("ended")
    assert small.code() == 0


def test_an_engine_that_breaks_is_not_hidden_and_leaves_no_registration(children: list[Child], redis_url: str) -> None:
    child = _start(children, redis_url, BROKEN="1")
    child.send(signal.SIGTERM)
    child.expect("RuntimeError: the engine broke")
    assert child.code() == 1
    with Redis.from_url(redis_url) as client:
        assert client.smembers("rq:workers") == set()


def test_a_wish_to_end_leaves_a_worker_that_ends_by_itself_its_exit_code(
    children: list[Child], redis_server: RedisServer
) -> None:
    """RQ's server swallows what it is told, so that the end takes its time."""
    child = _start(children, redis_server.url)
    os.kill(redis_server.pid, signal.SIGSTOP)
    child.say("break")
    child.expect("heard break")
    child.send_until_it_ends(signal.SIGTERM)
    child.expect("RuntimeError: the engine broke")
    assert child.code() == 1


def test_rq_s_shutdown_command_drains(small: Child, redis_url: str) -> None:
    name = small.seen[-1].split(" as ")[1].strip()
    with Redis.from_url(redis_url) as client:
        client.publish(f"rq:pubsub:{name}", '{"command": "shutdown"}')
    small.expect("asked to stop")
    assert small.code() == 0


@pytest.mark.parametrize("kind", ["json", "pickle"])
def test_a_job_on_a_lane_s_queue_is_failed_aloud_and_not_run(small: Child, redis_url: str, kind: str) -> None:
    with Redis.from_url(redis_url) as client:
        lane = Queue("lane:bitget:main", connection=client, serializer=kind)
        job = lane.enqueue("os.system", "echo pwned")
        small.expect("failed a job that was put on a lane's queue")
        assert job.id in lane.failed_job_registry
        assert lane.count == 0
        failed = Job.fetch(job.id, connection=client, serializer=JSONSerializer)
        assert failed.is_failed
        result = failed.latest_result()
        assert result is not None
        told = result.exc_string
        assert told is not None
        assert "cancelq:{bitget:main}:inbox" in told
        assert "queue 'cancelq'" in told
    assert "pwned\n" not in small.seen


def test_what_is_no_job_at_all_is_removed_and_harms_nobody(small: Child, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.hset("rq:job:garbage", mapping={"data": b"\xff", "created_at": "yesterday"})
        client.rpush("rq:queue:lane:bitget:main", "garbage", "vanished", b"\xff\xfe")
        job = Queue("lane:bitget:main", connection=client, serializer=JSONSerializer).enqueue("os.getpid")
        assert '"garbage"' in small.expect("removed what is no job")
        small.expect("removed what is no job")
        assert job.id in small.expect("failed a job that was put on a lane's queue")
        assert client.llen("rq:queue:lane:bitget:main") == 0


def test_a_server_that_goes_away_does_not_stop_the_engine(children: list[Child], redis_server: RedisServer) -> None:
    child = _start(children, redis_server.url)
    redis_server.kill9()
    child.expect("RQ's server does not answer")
    child.say("still there?")
    child.expect("heard still there?")
    redis_server.start()
    child.expect("RQ's server answers again")
    assert "started lane:bitget:main" in _rq(redis_server.url, "info", "--only-workers", "--raw")
    # A server that lost everything gets the whole registration again, not only a heartbeat.
    redis_server.flush()
    _rq(redis_server.url, "suspend")
    child.expect("suspended")
    assert "suspended lane:bitget:main, lane:bybit:desk_2" in _rq(redis_server.url, "info", "-W", "-r")
    redis_server.kill9()
    child.send(signal.SIGTERM)
    child.expect("RQ was not told that this worker ended")
    assert child.code() == 0


def test_hup_with_broken_settings_changes_nothing_and_good_ones_are_served_or_want_a_start(
    children: list[Child], redis_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "cancelq.toml"
    config.touch(mode=0o600)
    config.write_text("lease_ms = 4000\n")
    child = _start(children, redis_url, CANCELQ_CONFIG=str(config))
    config.write_text("lease_sm = 4000\n")
    child.send(signal.SIGHUP)
    assert "lease_sm" in child.expect("the old ones stay")
    child.say("still there?")
    child.expect("heard still there?")
    config.write_text('[accounts.bybit.third]\napi_key = "canary-key-3"\napi_secret = "canary-secret-3"\n')
    child.send(signal.SIGHUP)
    assert "bybit:third" in child.expect("from now on")
    deadline_s = time.monotonic() + PATIENCE_S
    while "lane:bybit:third" not in _rq(redis_url, "info", "--only-workers", "--raw"):
        assert time.monotonic() < deadline_s
    config.write_text("egress = 'elsewhere'\n")
    child.send(signal.SIGHUP)
    child.expect("restart wanted")
    assert child.code() == 0


@pytest.mark.parametrize("numbers", [(signal.SIGHUP, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP)])
def test_a_wish_to_end_is_kept_by_a_worker_that_was_about_to_start_again(
    children: list[Child], redis_url: str, tmp_path: Path, numbers: tuple[signal.Signals, signal.Signals]
) -> None:
    config = tmp_path / "cancelq.toml"
    config.touch(mode=0o600)
    child = _start(children, redis_url, CANCELQ_CONFIG=str(config), SLOW="1")
    config.write_text("egress = 'elsewhere'\n")
    child.send(numbers[0])
    child.expect("asked to stop")
    child.send(numbers[1])
    child.say("done")  # one pipe and one loop: it is heard behind the signal
    child.expect("heard done")
    child.expect("ended")
    assert child.code() == 0


def test_rq_s_own_command_starts_it_on_the_lanes_it_names(children: list[Child], redis_url: str) -> None:
    child = _start_by_rq(children, redis_url, "worker", "lane:bybit:desk_2")
    assert "serving bybit:desk_2 as" in child.expect("serving bybit")
    assert "lane:bybit:desk_2." in _rq(redis_url, "info", "-W", "-r")
    child.send(signal.SIGTERM)
    assert child.code() == 0


@pytest.mark.parametrize(
    ("lane", "problem"),
    [
        ("lane:bybit:nobody", "bybit:nobody is not configured; add [accounts.bybit.nobody]"),
        ("default", "default is no lane's queue"),
        ("lane:bitget:main", "set CANCELQ_ACCOUNTS__BITGET__MAIN__API_KEY"),
    ],
)
def test_rq_s_own_command_is_told_what_is_missing(
    children: list[Child], redis_url: str, lane: str, problem: str
) -> None:
    child = _start_by_rq(children, redis_url, "worker", lane)
    assert problem in child.expect("error: ")
    assert child.code() == 78
    assert "Traceback" not in "".join(child.seen)


def test_a_pool_of_rq_runs_several_and_ends_them(children: list[Child], redis_url: str) -> None:
    child = _start_by_rq(children, redis_url, "worker-pool", "-n", "2", "lane:bybit:desk_2")
    names = {child.expect("serving bybit:desk_2 as").split(" as ")[1] for _ in range(2)}
    assert len(names) == 2
    child.send(signal.SIGTERM)
    child.expect("asked to stop")
    child.expect("asked to stop")
    assert child.code() == 0


def test_no_secret_is_written_anywhere(small: Child, redis_url: str) -> None:
    _rq(redis_url, "suspend")
    small.expect("suspended")
    small.send(signal.SIGTERM)
    assert small.code() == 0
    small.close()
    assert "canary" not in "".join(small.seen)
    with Redis.from_url(redis_url) as client:
        for key in client.scan_iter():
            assert b"canary" not in client.dump(key)


def test_rq_is_refused_where_it_does_not_run() -> None:
    url = "redis+cluster://127.0.0.1:1"
    with pytest.raises(SettingsError, match="rq_redis_url is missing, and redis_url names a cluster"):
        rq_connection(Settings(redis_url=url))
    with pytest.raises(SettingsError, match="rq_redis_url names a cluster"):
        rq_connection(Settings(rq_redis_url=url))
    with rq_connection(Settings(redis_url=url, rq_redis_url="redis://127.0.0.1:1/3")) as client:
        assert client.get_connection_kwargs()["db"] == 3


def test_names_are_unique() -> None:
    assert worker_name() != worker_name()


def test_a_secret_that_came_with_hup_is_blanked_in_what_is_logged(
    children: list[Child], redis_url: str, tmp_path: Path
) -> None:
    """As if it had been pasted where a setting's name belongs, which the error quotes."""
    config = tmp_path / "cancelq.toml"
    config.touch(mode=0o600)
    child = _start(children, redis_url, CANCELQ_CONFIG=str(config))
    config.write_text('[accounts.bybit.third]\napi_key = "canary-key-3"\napi_secret = "canary-secret-3"\n')
    child.send(signal.SIGHUP)
    child.expect("from now on")
    config.write_text("lease_sm = 1\ncanary-secret-3 = 1\n")
    child.send(signal.SIGHUP)
    assert "lease_sm" in child.expect("the old ones stay")
    child.send(signal.SIGTERM)
    assert child.code() == 0
    child.close()
    assert "canary" not in "".join(child.seen)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the limits of another process")
def test_a_worker_that_serves_writes_no_core_file(children: list[Child], redis_url: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] == 0:
        pytest.skip("nothing here writes core files")
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        child = _start(children, redis_url)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert resource.prlimit(child.process.pid, resource.RLIMIT_CORE) == (0, before[1])


def _start(children: list[Child], url: str, **env: str) -> Child:
    command = [sys.executable, "-m", "tests.integration.small_engine"]
    child = Child(command, {**KEYS, "CANCELQ_REDIS_URL": url, **env})
    children.append(child)
    child.expect("serving bitget:main bybit:desk_2 as ")
    return child


def _start_by_rq(children: list[Child], url: str, command: str, *words: str) -> Child:
    """The small engine started by RQ's own command, with the key of one lane missing."""
    worker = ["-w", "tests.integration.small_engine.SmallWorker", "-u", url]
    env = {**KEYS, "CANCELQ_ACCOUNTS__BITGET__MAIN__API_KEY": "", "CANCELQ_REDIS_URL": url}
    child = Child([*_rq_command(), command, *worker, *words], env)
    children.append(child)
    return child


def _rq_command() -> list[str]:
    return [sys.executable, "-m", "rq.cli"]


def _rq(url: str, *words: str) -> str:
    done = subprocess.run(
        [*_rq_command(), *words, "-u", url],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout


def _environment() -> dict[str, str]:
    """This process' environment without settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("CANCELQ_")}


def test_a_thousand_queues_without_a_job_are_looked_at_by_one_command(redis_url: str) -> None:
    """Two and a half times a second, by every worker of every desk."""
    names = [f"lane:bitget:t{number}" for number in range(1_000)]
    with Redis.from_url(redis_url) as client:
        worker = LaneWorker(names, name="w1", connection=client, serializer=JSONSerializer)
        client.config_resetstat()
        _fail_misplaced(worker)
        stats = client.info("commandstats")
        assert stats["cmdstat_exists"]["calls"] == 1
        assert "cmdstat_lrange" not in stats
        job = Queue(names[-1], connection=client, serializer=JSONSerializer).enqueue("os.system", "true")
        _fail_misplaced(worker)
        assert job.get_status() == "failed"


def test_a_move_to_other_queues_that_is_cut_off_half_way_is_made_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise ConnectionError

    with Redis.from_url(redis_url) as client:
        worker = LaneWorker(["lane:bitget:main"], name="w1", connection=client, serializer=JSONSerializer)
        pulse = _Pulse(worker)
        pulse.beat()
        pulse.serve_lanes(Settings.load(None, {name: key for name, key in KEYS.items() if "DESK_2" in name}))
        with monkeypatch.context() as once:
            once.setattr(client, "delete", lost)
            with pytest.raises(ConnectionError):
                pulse.beat()
        pulse.beat()
        assert client.smembers("rq:workers") == client.smembers("rq:workers:lane:bybit:desk_2") == {b"rq:worker:w1"}
        assert not client.exists("rq:workers:lane:bitget:main")


def test_a_worker_of_no_queue_has_none_to_look_at(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        worker = LaneWorker(["lane:bitget:main"], name="w1", connection=client, serializer=JSONSerializer)
        worker.queues = []
        _fail_misplaced(worker)
