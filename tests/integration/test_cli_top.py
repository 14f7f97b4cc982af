"""`cancelq top` as a process: on a pipe, on a terminal, with a server that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from rq.suspension import suspend

from cancelq import Lane
from cancelq_worker import cli, operate
from tests.integration.floor import floor
from tests.servers import RedisServer

MAIN = Lane("bitget", "main")
OTHER = Lane("bybit", "desk")
PROGRAM = (sys.executable, "-c", "from cancelq_worker.cli import main; main()")
PATIENCE_S = 30.0

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def run(redis_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str, **env: str) -> tuple[int, str, str]:
        code = cli.run(["top", *args], {"CANCELQ_REDIS_URL": redis_url, **env})
        out, err = capsys.readouterr()
        return code, out, err

    return run


def make(client: Redis, *lanes: Lane) -> None:
    """Lanes as workers would have made them, with nobody serving them now."""
    for lane in lanes:
        for stream in (lane.inbox, lane.results):
            client.xgroup_create(stream, "g", mkstream=True)
            client.xgroup_destroy(stream, "g")


def environment(url: str, **env: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return {**kept, "CANCELQ_REDIS_URL": url, "TERM": "xterm-256color", **env}


async def asked(url: str, *args: str) -> Any:
    """What a command prints as JSON."""
    process = await asyncio.create_subprocess_exec(*PROGRAM, *args, env=environment(url), stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    return json.loads(out)


class Terminal:
    """A command on a terminal of its own; what it draws is read frame by frame."""

    def __init__(self, url: str, *args: str, columns: int = 80, **env: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.execve(PROGRAM[0], [*PROGRAM, *args], environment(url, **env))
        self.resize(columns)
        self.said = b""

    def resize(self, columns: int, rows: int = 24) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def frame(self) -> str:
        """The last picture that is complete or on its way."""
        return self.said.rpartition(b"\x1b[H")[2].decode(errors="replace")

    def until(self, true: Callable[[str], bool]) -> str:
        """Reads until a frame is as wanted; that frame."""
        end_s = time.monotonic() + PATIENCE_S
        while not true(self.frame):
            assert time.monotonic() < end_s, self.frame
            assert self._read(1.0), self.said[-2000:]
        return self.frame

    def _read(self, within_s: float) -> bool:
        """False once the command has left the terminal."""
        if select.select([self._master], [], [], within_s)[0]:
            try:
                self.said += os.read(self._master, 65536)
            except OSError:
                return False
        return True

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self) -> int:
        """The exit code, once it has ended."""
        end_s = time.monotonic() + PATIENCE_S
        while self._read(1.0):
            assert time.monotonic() < end_s, self.frame
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        os.close(self._master)
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def terminal(url: str, *args: str, **more: Any) -> Iterator[Terminal]:
    made = Terminal(url, *args, **more)
    try:
        yield made
    finally:
        made.close()


class TestAgainstAWorker:
    async def test_its_numbers_are_those_of_status_and_of_the_results(self, redis_url: str) -> None:
        async with floor(redis_url, "bitget:main", "bybit:desk", workers=1) as desk:
            main, other = desk.lanes
            orders = [desk.order(main) for _ in range(20)] + [desk.order(main, state="filled")]
            ids = await desk.send_all(main, [{"symbol": "BTCUSDT", "order_id": order} for order in orders])
            finals = list((await desk.finals(main, ids)).values())
            await desk.client.hset(other.key("hold"), "*|paused", "-1 paused by test")
            for _ in range(5):
                await desk.send(other, symbol="BTCUSDT", order_id=desk.order(other))

            async def waiting() -> bool:
                (state,) = await operate.status(desk.client, [other])
                return state.queued == 5

            await desk.until(waiting)
            told, states = await asyncio.gather(
                asked(redis_url, "top", "--once", "--json"), asked(redis_url, "status", "--json")
            )
        rows = {row["lane"]: row for row in told["lanes"]}
        assert list(rows) == ["bybit:desk", "bitget:main"]  # the paused one first
        for state in states:
            row = rows[state["lane"]]
            same = ("queued", "not_admitted", "confirming", "in_flight", "timed", "paused", "workers", "healthy")
            assert {name: row[name] for name in same} == {name: state[name] for name in same}
            assert {name: bucket["limit"] for name, bucket in row["budget"].items()} == {
                name: bucket["limit"] for name, bucket in state["budget"].items()
            }
        assert rows["bybit:desk"]["waiting"] == 5
        assert told["totals"]["waiting"] == 5
        assert rows["bitget:main"]["outcomes"] == Counter(event.status.value for event in finals)
        assert rows["bitget:main"]["per_s"]["too late"] > 0
        took = sorted((e.settled_us or 0) - (e.queued_us or 0) for e in finals)
        assert rows["bitget:main"]["settled_ms"] == {"p50": took[10] / 1000, "p99": took[20] / 1000}
        assert told["server"]["workers"] == ["w1"]
        buckets = {address["bucket"]: address for address in told["addresses"]}
        assert buckets["bitget-ip"]["limit"] == 6000
        assert buckets["bitget-ip"]["used"] > 0
        found = next(state for state in states if state["lane"] == "bitget:main")["addresses"]
        (address,) = (one for one in found if one["bucket"] == "bitget-ip")
        assert (address["bucket"], address["limit"]) == ("bitget-ip", 6000)


@pytest.mark.one_server
class TestOnAPipe:
    def test_one_table_without_control_codes(self, client: Redis, run: Run) -> None:
        make(client, MAIN, OTHER)
        client.xadd(MAIN.results, {"id": "x", "status": "unresolved", "final": "1"})
        code, out, err = run("--once")
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        lines = out.splitlines()
        assert lines[1].startswith("2 lanes, 2 in trouble")
        assert any("1 unresolved, a person must look: cancelq trace x" in line for line in lines)
        assert not any(line != line.rstrip() for line in lines)

    def test_lanes_that_are_named(self, client: Redis, run: Run) -> None:
        make(client, MAIN, OTHER)
        told = json.loads(run("bybit:desk", "--once", "--json")[1])
        assert [row["lane"] for row in told["lanes"]] == ["bybit:desk"]

    def test_an_unknown_lane_exits_1_and_is_not_created(self, client: Redis, run: Run) -> None:
        code, out, err = run("bitget:mian", "--once")
        assert (code, out) == (1, "")
        assert err.startswith("error: bitget:mian has no inbox on this server")
        assert client.dbsize() == 0

    def test_a_configured_lane_that_nobody_served_is_trouble(self, client: Redis, run: Run) -> None:
        make(client, MAIN)
        told = json.loads(run("--once", "--json", CANCELQ_ACCOUNTS__BYBIT__X__API_KEY="k")[1])
        rows = {row["lane"]: row for row in told["lanes"]}
        assert (rows["bybit:x"]["state"], rows["bybit:x"]["healthy"]) == ("not served", False)

    def test_a_suspension_by_rq(self, client: Redis, run: Run) -> None:
        make(client, MAIN)
        assert json.loads(run("--once", "--json")[1])["rq_suspended"] is False
        suspend(client)
        assert json.loads(run("--once", "--json")[1])["rq_suspended"] is True
        assert "suspended by `rq suspend`" in run("--once")[1]

    @pytest.mark.parametrize("args", [("--every", "never"), ("nolane",), ("kraken:main",)])
    def test_misuse_exits_2(self, run: Run, args: tuple[str, ...]) -> None:
        assert run(*args)[0] == 2

    def test_without_a_server_it_exits_69(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["top"], {"CANCELQ_REDIS_URL": "redis://127.0.0.1:1/0"}) == 69
        assert "Redis cannot be reached" in capsys.readouterr().err

    def test_json_goes_on_line_by_line_and_an_interrupt_is_no_error(self, client: Redis, redis_url: str) -> None:
        make(client, MAIN)
        command = (*PROGRAM, "top", "--json", "--every", "100ms")
        with subprocess.Popen(command, env=environment(redis_url), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            first, second = (json.loads(process.stdout.readline()) for _ in range(2))
            assert second["at_us"] > first["at_us"]
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(PATIENCE_S) == 0

    def test_a_reader_that_has_seen_enough_is_no_error(self, client: Redis, redis_url: str) -> None:
        make(client, MAIN)
        command = (*PROGRAM, "top", "--every", "100ms")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment(redis_url), **pipes) as process:  # type: ignore[call-overload]
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(PATIENCE_S) == 0
            assert process.stderr.read() == b""


@pytest.mark.one_server
class TestOnATerminal:
    def test_a_server_that_goes_and_comes_back(self, redis_server: RedisServer) -> None:
        with redis_server.client() as client:
            make(client, MAIN)
            client.set(MAIN.key("cursor"), "0-0")
        with terminal(redis_server.url, "top", "--every", "100ms") as screen:
            screen.until(lambda frame: "bitget:main" in frame and "no worker" in frame)
            redis_server.kill9()
            screen.until(lambda frame: "away for" in frame and "bitget:main" in frame)
            redis_server.start()
            screen.until(lambda frame: "1 lane," in frame and "bitget:main" in frame and "away for" not in frame)
            with redis_server.client() as client:
                client.xadd(MAIN.inbox, {"symbol": "A", "order_id": "1"})
            screen.until(lambda frame: "queued 1 " in frame)
            screen.type(b"\x03")
            assert screen.end() == 0
            # The screen that was there before is back, and so is the cursor.
            assert screen.said.rstrip().endswith(b"\x1b[?25h") or screen.said.rstrip().endswith(b"\x1b[?1049l")
            assert screen.said.count(b"\x1b[?1049h") == screen.said.count(b"\x1b[?1049l") == 1

    def test_another_width_is_drawn_at_once(self, client: Redis, redis_url: str) -> None:
        make(client, MAIN)
        with terminal(redis_url, "top", "--every", "50m") as screen:
            screen.until(lambda frame: "done/s" in frame and "bitget:main" in frame)
            screen.resize(160)
            screen.until(lambda frame: "queued→settled" in frame and "bitget:main" in frame)
            screen.type(b"q")
            assert screen.end() == 0

    def test_a_terminal_that_cannot_move_its_cursor_gets_tables(self, client: Redis, redis_url: str) -> None:
        make(client, MAIN)
        with terminal(redis_url, "top", "--every", "100ms", TERM="dumb") as screen:
            screen.until(lambda frame: frame.count("bitget:main") >= 2)
            screen.type(b"\x03")
            assert screen.end() == 0
            assert b"\x1b" not in screen.said

    def test_colours_and_none(self, client: Redis, redis_url: str) -> None:
        make(client, MAIN)
        with terminal(redis_url, "top", "--once") as screen:
            assert screen.end() == 0
            assert b"\x1b[1;31mno worker" in screen.said
        with terminal(redis_url, "top", "--once", NO_COLOR="1") as screen:
            assert screen.end() == 0
            assert b"no worker" in screen.said
            assert b"31m" not in screen.said
