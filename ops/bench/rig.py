"""What every measurement stands on: servers, the simulated venues and a worker as processes of their own, and the
counters they are read by. Only processes started here are ever ended, by their own id.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from cancelq_worker.embedded import DURABLE, EmbeddedServer, free_port
from cancelq_worker.roster import ROSTER
from cancelq_worker.settings_origin import PREFIX

START_S = 30.0
END_S = 15.0
STEP_S = 0.02
TICKS = os.sysconf("SC_CLK_TCK")

CLI = "from cancelq_worker.cli import main; main()"
# The same under cProfile; `main` ends by SystemExit, after which the file is written.
PROFILED_CLI = "import cProfile, sys; from cancelq_worker.cli import main; cProfile.run('main()', sys.argv.pop())"

#: Commands that no script calls. What a script calls is inside `evalsha` already, so only these may be added up.
OUTER = ("evalsha", "xread", "script|load", "client|unblock", "client|id")


class BenchFailed(Exception):
    """A measurement could not be made; the message says why."""


# -- Redis ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: `name` as the table shows it, e.g. `Valkey 9.1.2`."""

    name: str
    url: str
    pid: int

    def client(self) -> Redis:
        """A client that asks once."""
        return Redis.from_url(self.url, socket_timeout=30, retry=Retry(NoBackoff(), 0))


def servers(durable: bool) -> dict[str, Callable[[], AbstractContextManager[Server]]]:
    """By short name, the servers this machine has: the embedded Valkey, and `redis-server` if it is there."""
    found: dict[str, Callable[[], AbstractContextManager[Server]]] = {"valkey": lambda: _embedded(durable)}
    if path := shutil.which("redis-server") or shutil.which("/usr/bin/redis-server"):
        found["redis"] = lambda: _installed(path, durable)
    return found


@contextmanager
def _embedded(durable: bool) -> Iterator[Server]:
    with EmbeddedServer(durable=durable) as server:
        yield _told(server.url, server.pid)


@contextmanager
def _installed(path: str, durable: bool) -> Iterator[Server]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cancelq-bench-") as folder:
        wanted = {"port": str(port), "bind": "127.0.0.1", "dir": folder, "save": "", **(DURABLE if durable else {})}
        words = [word for name, value in wanted.items() for word in (f"--{name}", value)]
        process = start([path, *words], {}, Path(folder) / "log")
        try:
            url = f"redis://127.0.0.1:{port}/0"
            wait_for("redis-server", lambda: _answers(url), process)
            yield _told(url, process.pid)
        finally:
            end(process)


def _answers(url: str) -> bool:
    with Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def _told(url: str, pid: int) -> Server:
    with Redis.from_url(url) as client:
        info: Any = client.info("server")
    valkey = info.get("valkey_version")
    return Server(f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}", url, pid)


def clear(client: Redis) -> None:
    """Empties the server, its memory too: some free it in the background unless told otherwise, and what is weighed
    next would be the lighter for it."""
    raw: Any = client
    raw.execute_command("FLUSHALL", "SYNC")


class RedisTime:
    """Time a server spends in commands, between two looks. In microseconds of wall time, as the server counts
    it: a server that has to wait for a processor counts the wait too. Parsing and sending are not in it."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        client.config_resetstat()

    def spent_us(self) -> int:
        """Since the start: all commands that came over a connection, each counted once."""
        stats: Any = self._client.info("commandstats")
        return sum(row["usec"] for name, row in stats.items() if name.removeprefix("cmdstat_") in OUTER)


# -- processes -----------------------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def clean_env() -> dict[str, str]:
    """The environment without the caller's own settings, keys above all: they have no business here."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def start(command: Sequence[str], env: Mapping[str, str], log: Path | None) -> subprocess.Popen[bytes]:
    """A process with its output in `log`; None: its standard output is read here."""
    with ExitStack() as open_files:
        out: Any = subprocess.PIPE if log is None else open_files.enter_context(log.open("wb"))
        err: Any = None if log is None else out
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**clean_env(), **env},
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
        return
    process.kill()
    process.wait()


def wait_for(
    what: str,
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    within_s: float = START_S,
    step_s: float = STEP_S,
) -> None:
    """Polls until `ready`, `step_s` after each time; BenchFailed if the process ends or the time is over first."""
    give_up_s = time.monotonic() + within_s
    while not ready():
        if process.poll() is not None:
            raise BenchFailed(f"{what}: process {process.pid} ended with code {process.returncode}")
        if time.monotonic() > give_up_s:
            raise BenchFailed(f"{what}: not within {within_s:.0f} s")
        time.sleep(step_s)


class Venue:
    """The simulated venues as `cancelq simulate` runs them, with every limit lifted."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)
        self._calls_seen = 0

    def answers(self) -> bool:
        try:
            return self._http.get("/sim/settings").status_code == 200
        except httpx.HTTPError:
            return False

    def lift_limits(self) -> None:
        self.limit({"*": None})

    def limit(self, limits: Mapping[str, int | None]) -> None:
        """Replaces what limits were set before; a bucket not named keeps the venue's own, None lifts it."""
        self._ask("POST", "settings", {"limits": dict(limits)})

    def open_account(self, name: str) -> None:
        """An account whose key, secret, passphrase and UID all follow from its name."""
        self._ask("POST", "accounts", {"uid": name, **credentials(name)})

    def orders(self, account: str, count: int) -> list[str]:
        """New live orders; their ids."""
        body = {"uid": account, "count": count, "like": {"symbol": "BTCUSDT"}}
        return [row["order_id"] for row in self._ask("POST", "orders", body)["orders"]]

    def calls(self) -> list[dict[str, Any]]:
        """The calls that arrived since the last look; `at_us` is the machine's clock at the venue's door."""
        calls: list[dict[str, Any]] = []
        while True:
            page = self._ask("GET", f"calls?after={self._calls_seen}")
            self._calls_seen = page["next"]
            if not page["calls"]:
                return calls
            calls += page["calls"]

    def open_orders(self) -> set[str]:
        """Ids of the orders that are not cancelled, by the venue's own books."""
        still: set[str] = set()
        after = 0
        while True:
            page = self._ask("GET", f"truth?after={after}")
            if not page["orders"]:
                return still
            after = page["next"]
            still.update(row["order_id"] for row in page["orders"] if row["state"] != "cancelled")

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, what: str, body: object = None) -> Any:
        answer = self._http.request(method, f"/sim/{what}", content=None if body is None else orjson.dumps(body))
        if answer.status_code != 200:
            raise BenchFailed(f"{method} /sim/{what}: HTTP {answer.status_code} {answer.text[:200]}")
        return orjson.loads(answer.content)


def credentials(account: str) -> dict[str, str]:
    return {"key": f"key-{account}", "secret": f"secret-{account}", "passphrase": "p"}


@contextmanager
def venue() -> Iterator[Venue]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cancelq-bench-") as folder:
        command = [sys.executable, "-c", CLI, "simulate", "--port", str(port)]
        process = start(command, {}, Path(folder) / "log")
        running = Venue(process, port)
        try:
            wait_for("the simulated venues", running.answers, process)
            running.lift_limits()
            yield running
        finally:
            running.close()
            end(process)


@dataclass(frozen=True, slots=True)
class Worker:
    """A running `cancelq worker`."""

    process: subprocess.Popen[bytes]
    log: Path

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def complaints(self) -> list[str]:
        """What it logged about a lane at level warning and above."""
        lines = [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        bad = [row for row in lines if row.get("level") in ("warning", "error", "critical")]
        return [str(row["event"]) for row in bad if "lane" in row]


#: Sizes no run comes near, for every bucket the lanes of a measurement use.
LIFTED = dict.fromkeys(
    ("cancel-order", "batch-cancel-order", "orderInfo", "unfilled-orders", "history-orders", "bitget-ip"), 1_000_000
)


@contextmanager
def worker(
    server: Server,
    at: Venue,
    accounts: Sequence[str],
    profile: Path | None = None,
    limits: Mapping[str, int] = LIFTED,
) -> Iterator[Worker]:
    """One `cancelq worker` with Bitget lanes of these accounts, all limits lifted unless told otherwise, under
    cProfile if asked."""
    env = {f"{PREFIX}REDIS_URL": server.url}
    told = orjson.dumps(dict(limits)).decode()
    for account in accounts:
        name, keys = f"{PREFIX}ACCOUNTS__BITGET__{account.upper()}__", credentials(account)
        env |= {f"{name}API_KEY": keys["key"], f"{name}API_SECRET": keys["secret"]}
        env |= {f"{name}PASSPHRASE": keys["passphrase"], f"{name}BASE_URL": at.url, f"{name}LIMITS": told}
    with tempfile.TemporaryDirectory(prefix="cancelq-bench-") as folder:
        log = Path(folder) / "log"
        command = [
            sys.executable,
            "-c",
            PROFILED_CLI if profile else CLI,
            "worker",
            *([str(profile)] if profile else []),
        ]
        process = start(command, env, log)
        try:
            yield Worker(process, log)
        except BenchFailed as failure:
            last = log.read_text(errors="replace").splitlines()[-3:]
            raise BenchFailed("\n".join([str(failure), *last])) from failure
        finally:
            end(process)


@contextmanager
def fleet(
    server: Server, at: Venue, accounts: Sequence[str], count: int, limits: Mapping[str, int] = LIFTED
) -> Iterator[list[Worker]]:
    """Several workers, each with every one of these lanes."""
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(server, at, accounts, limits=limits)) for _ in range(count)]
        yield workers
        for one in workers:  # all at once: each may take its time to end
            one.process.terminate()


def alive(client: Redis) -> bool:
    """Whether a worker has told that it lives."""
    return bool(client.zcard(ROSTER))


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    model = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "load before": load,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
