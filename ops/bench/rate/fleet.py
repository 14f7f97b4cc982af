"""The processes of a run: the venue and real `cancelq worker`s; what is asked of them, and what they tell."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import hiredis
import orjson
import rig
from redis import Redis
from rig import BenchFailed, Server, cpu_s, wait_for

from cancelq.contract import Lane
from cancelq_worker.roster import FRESH_MS, ROSTER
from cancelq_worker.settings_origin import PREFIX
from rate.book import SYMBOLS
from rate.rules import Arrival
from rate.way import Way

PAGE = 5_000
HERE = Path(__file__).parent


class VenueProcess:
    """The venue as a process of its own. `urls`: one for each way given."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        self.process = process
        self.urls = [f"http://127.0.0.1:{port}" for port in ports["doors"]]
        self._socket = socket.create_connection(("127.0.0.1", ports["control"]), timeout=60)
        self._file = self._socket.makefile("rwb")

    def ask(self, do: str, **what: Any) -> Any:
        self._file.write(orjson.dumps({"do": do, **what}) + b"\n")
        self._file.flush()
        return orjson.loads(self._file.readline())

    def orders(self, lane: Lane, count: int) -> list[str]:
        """New live orders of a lane's account; their ids."""
        first = self.ask("give", venue=lane.venue, account=lane.account, count=count)
        return [str(first + number) for number in range(count)]

    def change(self, way: Way, door: int = 0) -> int:
        """Another way from now on; the machine's steady µs at which it began."""
        fields = {name: getattr(way, name) for name in way.__slots__}
        return int(self.ask("way", door=door, way=fields))

    def calls(self, after: int = 0) -> list[Arrival]:
        """Every call from the `after`th on, in the order they came."""
        found: list[Arrival] = []
        while page := self.ask("calls", after=after + len(found), most=PAGE):
            found += [_arrival(number, row) for number, row in enumerate(page, after + len(found))]
        return found

    def ended(self, lane: Lane) -> dict[str, int]:
        """The lane's orders that were cancelled, by the venue's own books, and when (venue ms)."""
        told: dict[str, int] = self.ask("ended", venue=lane.venue, account=lane.account)
        return told

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _arrival(number: int, row: Sequence[Any]) -> Arrival:
    values: list[Any] = [number, *row[:-1], tuple(row[-1])]
    return Arrival(*values)


@dataclass(slots=True)
class Worker:
    process: subprocess.Popen[bytes]
    log: Path
    began_s: float = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(slots=True)
class Fleet:
    """A server, a venue and the settings that workers are started with."""

    server: Server
    venue: VenueProcess
    lanes: list[Lane]
    folder: Path
    env: dict[str, str]
    workers: list[Worker] = field(default_factory=list)

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.process.poll() is None]

    def start(self, count: int, door: int = 0, **settings: str) -> None:
        """More workers, which reach the venue by this door; returns when all are alive and every lane is served."""
        env = {**self.env, **settings}
        env |= {f"{_account(lane)}BASE_URL": self.venue.urls[door] for lane in self.lanes}
        for _ in range(count):
            log = self.folder / f"worker-{len(self.workers)}.log"
            self.workers.append(Worker(rig.start([sys.executable, "-c", rig.CLI, "worker"], env, log), log))
        with self.server.client() as redis:
            wanted = len(self.alive)
            for worker in self.workers[-count:]:
                wait_for("a worker", lambda: _alive(redis) >= wanted, worker.process, 60)
            for lane in self.lanes:
                wait_for(f"lane {lane}", partial(_is_there, redis, lane.inbox), self.workers[-1].process)
        for worker in self.workers[-count:]:
            worker.began_s = cpu_s(worker.pid)

    def cpu_s(self) -> list[float]:
        """Processor time of each living worker since it was ready."""
        return [cpu_s(worker.pid) - worker.began_s for worker in self.alive]

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`cancelq …` with the fleet's settings."""
        command = [sys.executable, "-c", rig.CLI, *words]
        env = {**rig.clean_env(), **self.env, f"{_account(self.lanes[0])}BASE_URL": self.venue.urls[0]}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    def stop_workers(self) -> None:
        for worker in self.alive:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.terminate()
        for worker in self.workers:
            rig.end(worker.process)

    def said(self, level: str) -> list[str]:
        """What the workers logged at this level."""
        found = []
        for worker in self.workers:
            for line in worker.log.read_bytes().splitlines():
                row = orjson.loads(line) if line.startswith(b"{") else {}
                if row.get("level") == level:
                    found.append(f"{worker.pid}: {row.get('event')} {row.get('said', row.get('why', ''))}".strip())
        return found


@contextmanager
def fleet(
    server: Server,
    lanes: Sequence[Lane],
    ways: Sequence[Way],
    venue: Mapping[str, Any],
    settings: Mapping[str, str] | None = None,
) -> Iterator[Fleet]:
    """A venue with a door for each way, and settings for workers of these lanes. `venue`: its `sizes`, `offset_ms`,
    `drift_ppm` and `seed`, as far as they are not the usual ones."""
    env = {f"{PREFIX}REDIS_URL": server.url, **(settings or {})}
    for lane in lanes:
        keys, name = rig.credentials(lane.account), _account(lane)
        env |= {f"{name}API_KEY": keys["key"], f"{name}API_SECRET": keys["secret"]}
        if lane.venue == "bitget":
            env[f"{name}PASSPHRASE"] = keys["passphrase"]
    doors = [{name: getattr(way, name) for name in way.__slots__} for way in ways]
    asked = orjson.dumps({"doors": doors, **venue}).decode()
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="cancelq-rate-")))
        with server.client() as redis:
            rig.clear(redis)
        process = rig.start([sys.executable, "-m", "rate.venue", asked], {"PYTHONPATH": str(HERE.parent)}, None)
        undo.callback(rig.end, process)
        running = VenueProcess(process)
        undo.callback(running.close)
        fleet = Fleet(server, running, list(lanes), folder, env)
        undo.callback(fleet.stop_workers)
        yield fleet


def _account(lane: Lane) -> str:
    return f"{PREFIX}ACCOUNTS__{lane.venue.upper()}__{lane.account.upper()}__"


def _alive(redis: Redis) -> int:
    now: Any = redis.time()
    now_ms = int(now[0]) * 1000
    alive: Any = redis.zcount(ROSTER, now_ms - FRESH_MS, "+inf")
    return int(alive)


def _is_there(redis: Redis, key: str) -> bool:
    return bool(redis.exists(key))


# -- producing and reading ------------------------------------------------------------------------------------------


def fill(server: Server, lane: Lane, orders: Sequence[str], *, at_once: bool = False, **fields: str) -> None:
    """One intent for each order, packed before anything is sent; `at_once`: all in one transaction, so that no worker
    sees a part of them. Raises BenchFailed if one was not taken."""
    more = [word for pair in fields.items() for word in pair]
    head = ("XADD", lane.inbox, "*", "symbol", SYMBOLS[lane.venue], *more, "order_id")
    packed = [_packed(*head, order) for order in orders]
    if at_once:
        packed = [_packed("MULTI"), *packed, _packed("EXEC")]
    host, _, port = server.url.removeprefix("redis://").partition("/")[0].partition(":")
    reader, wanted = hiredis.Reader(), len(packed)
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(b"".join(packed))
        while wanted:
            reader.feed(sock.recv(1 << 16))
            while (reply := reader.gets()) is not False:
                if isinstance(reply, Exception):
                    raise BenchFailed(f"{lane}: {reply}")
                wanted -= 1


def _packed(*words: str) -> bytes:
    return cast(bytes, hiredis.pack_command(words))  # type: ignore[arg-type]  # its hint allows one word only


@dataclass(slots=True)
class Ledger:
    """A lane's events as they come: by intent, the final ones, and what the last attempt of each says."""

    server: Server
    lane: Lane
    last: bytes = b"-"
    finals: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    refused: int = 0
    last_final_us: int = 0

    def read(self) -> int:
        """Reads on to the newest event; how many intents have ended."""
        with self.server.client() as redis:
            while rows := redis.xrange(self.lane.results, self.last, count=PAGE):
                for entry_id, fields in rows:
                    self._note({name.decode(): value.decode() for name, value in fields.items()})
                    self.last = b"(" + entry_id
                if len(rows) < PAGE:
                    break
        return len(self.finals)

    def _note(self, event: dict[str, str]) -> None:
        if event.get("final") == "1":
            self.finals.setdefault(event["order_id"], []).append(event)
            self.last_final_us = max(self.last_final_us, int(event["settled_us"]))

    def wait(self, count: int, within_s: float) -> None:
        """Until that many intents have ended; BenchFailed after `within_s`."""
        give_up_s = time.monotonic() + within_s
        while self.read() < count:
            if time.monotonic() > give_up_s:
                raise BenchFailed(f"{self.lane}: {len(self.finals)} of {count} intents ended in {within_s:.0f} s")
            time.sleep(0.5)
