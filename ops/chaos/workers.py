"""Worker processes: each in a slot with links of its own, started again whenever it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET
from ops.chaos.clocks import Clocks
from ops.chaos.links import Link
from ops.chaos.places import Place

LEASE_MS = 4_000
DRAIN_S = 10.0  # promised: TERM ends a worker within
CANCELQ = (sys.executable, "-c", "from cancelq_worker.cli import main; main()")


@dataclass
class Slot:
    """A place for one worker process that serves all lanes."""

    number: int
    redis: Link
    venue: Link
    folder: Path
    places: Sequence[Place]
    streams: bool
    clocks: Clocks | None = None
    process: subprocess.Popen[bytes] | None = None
    doomed: bool = False  # we ended it
    draining_since: float = 0.0
    disturbed: bool = False  # a fault of the server or its link fell into the drain
    stopped: bool = False
    started: int = 0
    drained_ms: list[float] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """Of the process that runs now; each has a file of its own."""
        return self.folder / f"worker-{self.number}-{self.started}.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def serving(self) -> bool:
        """Until it says so, TERM ends it as it ends any process."""
        return b'"serving"' in self.log.read_bytes()

    def start(self) -> None:
        env = outside_env() | {
            "CANCELQ_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "CANCELQ_LEASE_MS": str(LEASE_MS),
            "CANCELQ_EGRESS": "chaos",
            **(self.clocks.environment(str(self.number)) if self.clocks else {}),
        }
        for place in self.places:
            env |= self._account(place)
        self.started += 1
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                (*CANCELQ, "worker"), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self.doomed = self.stopped = self.disturbed = False
        self.draining_since = 0.0

    def _account(self, place: Place) -> dict[str, str]:
        at, lane = f"127.0.0.1:{self.venue.port}", place.lane
        prefix = f"CANCELQ_ACCOUNTS__{lane.venue}__{lane.account}__".upper()
        env = {
            f"{prefix}BASE_URL": f"http://{at}",
            f"{prefix}WS_URL": f"ws://{at}{place.stream_path}" if self.streams else "",
            f"{prefix}API_KEY": DEMO_KEY,
            f"{prefix}API_SECRET": DEMO_SECRET,
        }
        return env | {f"{prefix}PASSPHRASE": DEMO_PASSPHRASE} if lane.venue == "bitget" else env

    def signal(self, number: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1][:300] if lines else ""


Tell = Callable[[str, str], None]


def outside_env() -> dict[str, str]:
    """This process' environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")}


async def supervise(slots: Sequence[Slot], tell: Tell) -> None:
    """Fills empty slots and judges how their processes ended (17: TERM)."""
    while True:
        for slot in slots:
            if slot.process is not None and slot.process.poll() is None:
                _judge_drain(slot, tell)
                continue
            if slot.process is not None:
                _judge_end(slot, slot.process.returncode, tell)
            slot.start()
        await asyncio.sleep(0.1)


def _judge_drain(slot: Slot, tell: Tell) -> None:
    if slot.draining_since and not slot.disturbed and time.monotonic() - slot.draining_since > DRAIN_S:
        tell("17", f"{slot.log.name} drains for over {DRAIN_S} s")
        slot.disturbed = True


def _judge_end(slot: Slot, code: int, tell: Tell) -> None:
    if slot.draining_since:
        if not slot.disturbed:
            if code == 69 and "draining" not in slot.log.read_text(errors="replace"):
                return  # it was ending by itself by then: Redis was away as it began
            slot.drained_ms.append((time.monotonic() - slot.draining_since) * 1000)
            if code != 0:
                tell("17", f"{slot.log.name} was told to drain and ended with {code}")
    elif not slot.doomed and code != 69:
        tell("life", f"{slot.log.name} ended by itself with {code}: {slot.last_words()}")


async def end_workers(slots: Sequence[Slot], tell: Tell) -> None:
    """TERM for all; each has to end with 0 in time."""
    began_s = time.monotonic()
    alive = [slot for slot in slots if slot.alive]
    ready = {slot.number for slot in alive if slot.serving}
    for slot in alive:
        slot.signal(signal.SIGCONT)
        if not slot.draining_since:
            slot.signal(signal.SIGTERM)
    for slot in alive:
        assert slot.process is not None
        try:
            await asyncio.to_thread(slot.process.wait, max(0.0, began_s + DRAIN_S + 2 - time.monotonic()))
        except subprocess.TimeoutExpired:
            slot.process.kill()
            slot.process.wait()
        took_s = time.monotonic() - began_s
        if slot.number in ready and (slot.process.returncode != 0 or took_s > DRAIN_S):
            tell("17", f"{slot.log.name} ended with {slot.process.returncode} after {took_s:.1f} s of TERM")
