"""The demo's processes: the simulated venues and the workers, as they would run anywhere, with a log file each.

Each is ended by its own process id, and none outlives the `with` block. They sit in sessions of their own, so
that a Ctrl-C in the terminal reaches the demo alone, which then lets the workers drain.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis

from cancelq_worker.demo.failure import DemoFailed
from cancelq_worker.demo.markets import Market
from cancelq_worker.demo.venue import Venues
from cancelq_worker.embedded import free_port
from cancelq_worker.roster import ROSTER
from cancelq_worker.settings_origin import PREFIX

WORKERS = 3
# What the installed command `cancelq` runs, by this interpreter, wherever the command itself may lie.
COMMAND = (sys.executable, "-c", "from cancelq_worker.cli import main; main()")
START_S = 30.0
# A worker that drains waits for its calls' answers, at most a lease long.
DRAIN_S = 15.0
STEP_S = 0.05
LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Child:
    """One process of the demo."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> str:
        """How a process that has ended did so, for a message."""
        code = self.process.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    def last_words(self) -> str:
        """The end of its log, for a message."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line[:300]}" for line in lines[-LAST_LINES:]) or "  (it wrote nothing)"


class Fleet:
    """Starts the venues and the workers; ends whatever it started when the block is left.

    Logs go to `folder`. `pause` waits for some seconds, and may raise to give up.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], pause: Callable[[float], None]) -> None:
        self._folder = folder
        self._pause = pause
        # What the user has set for real lanes, keys above all, has no business here.
        self._env = {name: value for name, value in env.items() if not name.startswith(PREFIX)}
        self._simulator: Child | None = None
        self.workers: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self.workers)
        _end([self._simulator] if self._simulator else [])

    def start_venues(self) -> Venues:
        """The simulator on a free port; returns once it answers."""
        venues = Venues(free_port())
        self._simulator = self._start("simulator", ["simulate", "--port", str(venues.port)], {})
        self._await("the simulator", venues.answers)
        return venues

    def start_workers(self, markets: Sequence[Market], venues: Venues, redis_url: str) -> None:
        """The workers; returns once all of them have told that they live, every lane is open, and every order stream
        that a venue has."""
        env = {f"{PREFIX}REDIS_URL": redis_url}
        for market in markets:
            env.update(_account(market, venues))
        for number in range(1, WORKERS + 1):
            self.workers.append(self._start(f"worker-{number}", ["worker"], env))
        with Redis.from_url(redis_url, socket_timeout=5.0) as redis:
            self._await("the workers", lambda: int(redis.zcard(ROSTER)) >= WORKERS and _all_open(redis, markets))

    def check(self) -> None:
        """Raises `DemoFailed` if any process has ended."""
        for child in (*self.workers, *([self._simulator] if self._simulator else [])):
            if child.process.poll() is not None:
                raise DemoFailed(f"{child.name} {child.end()}; its last words:\n{child.last_words()}")

    def drain_workers(self) -> None:
        """Ends the workers as a deployment would, with TERM. Raises `DemoFailed` for one that did not end well."""
        _end(self.workers)
        for child in self.workers:
            if child.process.returncode != 0:
                raise DemoFailed(
                    f"{child.name} was told to drain, but {child.end()}; its last words:\n{child.last_words()}"
                )
        self.workers = []

    def _start(self, name: str, command: list[str], env: Mapping[str, str]) -> Child:
        log = self._folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*COMMAND, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**self._env, **env},
                process_group=0,
            )
        return Child(name, process, log)

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + START_S
        while not ready():
            self.check()
            if time.monotonic() > give_up_s:
                raise DemoFailed(f"{what} did not get ready within {START_S:.0f} s")
            self._pause(STEP_S)


def _account(market: Market, venues: Venues) -> Mapping[str, str]:
    """A lane's settings, as a desk would set them."""
    account = f"{PREFIX}ACCOUNTS__{market.lane.venue}__{market.lane.account}__".upper()
    settings = {
        "BASE_URL": venues.url,
        "WS_URL": venues.stream_url(market),
        "API_KEY": market.key,
        "API_SECRET": market.secret,
        **({"PASSPHRASE": market.passphrase} if market.passphrase else {}),
    }
    return {f"{account}{name}": value for name, value in settings.items()}


def _all_open(redis: Redis, markets: Sequence[Market]) -> bool:
    wanted = [market.lane.inbox for market in markets]
    wanted += [market.lane.key("stream") for market in markets if market.stream_path]
    return int(redis.exists(*wanted)) == len(wanted)


def _end(children: Sequence[Child]) -> None:
    """TERM, then what is left by force; returns when all are gone."""
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    give_up_s = time.monotonic() + DRAIN_S
    for child in children:
        try:
            child.process.wait(max(0.0, give_up_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
