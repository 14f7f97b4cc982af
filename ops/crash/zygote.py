"""Starts real workers quickly: a process that has imported everything and forks one whenever it is asked.

Each child is what `cancelq worker` is, in a group of its own, with what shall go wrong installed first. Requests and
answers are lines of JSON; the last words of a child are in its log. It ends its children with itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cancelq_worker import cli, rq_worker, wiring
from cancelq_worker.archive import manifest
from ops.crash import hooks, poison

ROOT = Path(__file__).parents[2]
READY = (rq_worker, wiring, manifest)  # imported before the first fork, so that no child has to
REAP_S = 0.05


class Zygote:
    """Workers to be had. `exits`: pid → exit code of those that ended, negative for a signal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._started: asyncio.Queue[int] = asyncio.Queue()
        self._asking = asyncio.Lock()
        self._over: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.exits: dict[int, int] = {}

    async def start(self, env: Mapping[str, str], log: Path, **plans: str) -> int:
        """A new worker; its pid."""
        assert self._process.stdin is not None
        async with self._asking:
            line = json.dumps({"env": dict(env), "log": str(log), "plans": plans})
            self._process.stdin.write(line.encode() + b"\n")
            return await asyncio.wait_for(self._started.get(), 30)

    async def ended(self, pid: int, within_s: float) -> int | None:
        """The exit code, or None if it still runs then."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over[pid].wait(), within_s)
        return self.exits.get(pid)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Nothing if it has ended."""
        if pid not in self.exits:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "started" in told:
                self._started.put_nowait(told["started"])
            else:
                self.exits[told["ended"]] = told["code"]
                self._over[told["ended"]].set()


@asynccontextmanager
async def zygote() -> AsyncIterator[Zygote]:
    """One that ends, with all its workers, at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.crash.zygote", cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, process_group=0,
    )  # fmt: skip
    made = Zygote(process)
    listening = asyncio.ensure_future(made.listen())
    try:
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        listening.cancel()


def main() -> None:
    """Serves until its standard input ends."""
    alive: set[int] = set()
    buffer = b""
    while True:
        ready, _, _ = select.select([0], [], [], REAP_S)
        _reap(alive)
        if not ready:
            continue
        piece = os.read(0, 65_536)
        if not piece:
            break
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            alive.add(_fork(json.loads(line)))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _reap(alive: set[int]) -> None:
    for pid in list(alive):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            alive.discard(pid)
            _tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(what: Mapping[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _fork(asked: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        _tell({"started": pid})
        return pid
    code = 70
    try:
        code = _worker(asked)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _worker(asked: Mapping[str, Any]) -> int:
    os.setpgrp()
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    random.seed()
    for name in [name for name in os.environ if name.upper().startswith("CANCELQ_")]:
        del os.environ[name]
    os.environ.update(asked["env"])
    plans = asked["plans"]
    if "crash" in plans:
        hooks.install(hooks.Plan.read(plans["crash"]))
    if "poison" in plans:
        poison.install(json.loads(plans["poison"]))
    return cli.run(["worker"], os.environ)


if __name__ == "__main__":
    main()
