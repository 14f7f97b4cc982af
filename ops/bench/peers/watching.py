"""A run from its first ask to its end: what is done by when, what it costs, and a worker's death in between."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from rig import Server, Venue, cpu_s

from peers import traces
from peers.desk.plan import START
from peers.figures import CANCELS, Counters, Taken
from peers.loads import CAP_S, KILL_AT, Load
from peers.processes import Program
from peers.roster import Row
from peers.traces import LANE

START_IN_S = 0.3
POLL_S, POLL_RECOVERY_S = 0.1, 0.02
TELL_S = 2.0  # for answers that are under way when all orders are done
LATE_MS = 1_000  # how late the venue answers while a worker is about to die
LATE_WITHIN_US = 2_000_000  # for a call that is answered late to come
#: Commands under which a server counts the time of others as well.
AROUND = ("evalsha", "eval", "fcall", "exec")


@dataclass(slots=True)
class Stage:
    """What plays in a run."""

    row: Row
    server: Server
    venue: Venue
    redis: Redis
    folder: Path
    load: Load
    workers: list[Program]

    def spent(self) -> Counters:
        return Counters(sum(worker.cpu_s() for worker in self.workers), cpu_s(self.server.pid), _redis_us(self.redis))


@dataclass(slots=True)
class _Seen:
    """What the venue's log told so far."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    late: int = 0

    def add(self, calls: list[dict[str, Any]]) -> None:
        self.calls += calls
        for call in calls:
            if call["endpoint"] in CANCELS and call["executed"] and not call["refused"]:
                self.done.update(call["ids"])
                self.late += bool(call["fault"])


@dataclass(slots=True)
class _Death:
    """One worker's, with work in its hands: the venue answers late, and the worker at work is killed meanwhile."""

    stage: Stage
    late_since_us: int | None = None
    killed_us: int | None = None
    cpu_s: float = 0.0

    def step(self, seen: _Seen, now_us: int) -> None:
        if self.killed_us is not None or len(seen.done) < KILL_AT * len(self.stage.load.orders):
            return
        if self.late_since_us is None:
            self._ask("POST", {"kind": "slow_ms", "endpoint": " ".join(CANCELS), "count": None, "delay_ms": LATE_MS})
            self.late_since_us = now_us
            return
        if not seen.late and now_us < self.late_since_us + LATE_WITHIN_US:
            return
        holder = _holder(self.stage)
        if holder is not None:
            self.cpu_s = holder.cpu_s()
            self.killed_us = time.time_ns() // 1000
            holder.kill()
            self._ask("DELETE", None)

    def _ask(self, method: str, body: object) -> None:
        answer = httpx.request(method, f"{self.stage.venue.url}/sim/faults", json=body, trust_env=False)
        answer.raise_for_status()


def watch(stage: Stage) -> Taken:
    """From the sign to the producer until all is done and told, or until the time is up."""
    stage.venue.calls()  # what the workers asked while they started is no part of the run
    stage.redis.config_resetstat()
    before = stage.spent()
    start_us = time.time_ns() // 1000 + int(START_IN_S * 1e6)
    _sign(stage.folder, start_us)
    seen, death = _Seen(), _Death(stage)
    recovery = stage.load.name == "recovery"
    all_done_us: int | None = None
    now_us = start_us
    while now_us - start_us < CAP_S * 1e6:
        time.sleep(POLL_RECOVERY_S if recovery else POLL_S)
        now_us = time.time_ns() // 1000
        seen.add(stage.venue.calls())
        if recovery:
            death.step(seen, now_us)
        if len(seen.done) >= len(stage.load.orders):
            all_done_us = all_done_us or now_us
            if _all_told(stage, now_us - all_done_us):
                break
    after = stage.spent()
    seen.add(stage.venue.calls())
    counters = Counters(
        after.workers_cpu_s + death.cpu_s - before.workers_cpu_s,
        after.broker_cpu_s - before.broker_cpu_s,
        after.redis_us - before.redis_us,
    )
    return _taken(stage, seen.calls, (start_us, now_us), death.killed_us, counters)


def _sign(folder: Path, start_us: int) -> None:
    # In place at once with its content, as others are looking.
    written = folder / f"{START}.new"
    written.write_text(str(start_us))
    os.replace(written, folder / START)


def _holder(stage: Stage) -> Program | None:
    """The worker that was answered last: it is the one that is at work."""
    if stage.row.peer == "cancelq":
        pid = traces.last_worker(stage.redis).split("-")[-2]
        return next((worker for worker in stage.workers if str(worker.process.pid) == pid), None)
    files = sorted(stage.folder.glob("outcomes-*"), key=lambda file: file.stat().st_mtime_ns)
    session = files[-1].name.split("-")[1] if files else ""
    return next((worker for worker in stage.workers if str(worker.session) == session), None)


def _all_told(stage: Stage, since_us: int) -> bool:
    """Whether nothing more is to be expected, so long after all orders were done."""
    if stage.row.peer == "cancelq":
        return not stage.redis.hlen(LANE.key("state"))
    if len(traces.answers(stage.folder)[0]) >= len(stage.load.orders):
        return True
    # What a killed worker held may be told much later, by another one.
    return stage.load.name != "recovery" and since_us > TELL_S * 1e6


def _taken(
    stage: Stage, calls: list[dict[str, Any]], span_us: tuple[int, int], killed_us: int | None, counters: Counters
) -> Taken:
    asked, urgent = traces.asked(stage.folder)
    answers, codes = traces.answers(stage.folder)
    finals = None
    if stage.row.peer == "cancelq":
        finals = traces.finals(stage.redis)
        answers, codes = traces.cancelq_answers(stage.redis)
    cancelled = set(stage.load.orders) - stage.venue.open_orders()
    return Taken(*span_us, asked, urgent, calls, answers, codes, cancelled, finals, killed_us, counters)


def _redis_us(redis: Redis) -> int:
    """Time in commands, at the least: what runs inside a script or a transaction is counted there and by itself, so
    the larger of the two sums is never too much."""
    stats: Any = redis.info("commandstats")
    times = {name.removeprefix("cmdstat_"): row["usec"] for name, row in stats.items()}
    around = sum(usec for name, usec in times.items() if name in AROUND)
    return int(max(around, sum(times.values()) - around))
