"""A real, small engine behind the RQ adapter, as a process: it says what it sees, and answers on stdin.

Run as a program it serves every configured lane, like `cancelq worker`; `rq worker -w` takes `SmallWorker`.
"""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from cancelq_worker import logs
from cancelq_worker.rq_worker import LaneWorker, run
from cancelq_worker.settings import Settings

LOOK_S = 0.01


def say(text: str) -> None:
    """One write a line, so that the lines of several processes on one pipe stay whole."""
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


async def serve(
    settings: Settings,
    *,
    worker_name: str,
    stop: asyncio.Event,
    suspended: Callable[[], bool],
    dry_run: bool = False,
    fresh: asyncio.Queue[Settings] | None = None,
) -> None:
    """Repeats each line of stdin; says when it is suspended and resumed; drains on `stop`, if SLOW until it hears
    that it is done."""
    heard = [""]
    done = asyncio.Event()

    def hear() -> None:
        heard.append(sys.stdin.readline().strip())
        say(f"heard {heard[-1]}")
        if heard[-1] == "done":
            done.set()

    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):  # not under `rq worker-pool`
        asyncio.get_running_loop().add_reader(sys.stdin, hear)
    was_suspended = suspended()
    say(f"serving {' '.join(map(str, settings.lanes))} as {worker_name}{' suspended' * was_suspended}")
    while not stop.is_set():
        if fresh is not None and not fresh.empty():
            say(f"serving {' '.join(map(str, fresh.get_nowait().lanes))} from now on")
        if suspended() != was_suspended:
            was_suspended = not was_suspended
            say("suspended" if was_suspended else "resumed")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)
        if heard[-1] == "break":
            raise RuntimeError("the engine broke")
    say("asked to stop")
    if os.environ.get("SLOW"):
        await done.wait()
    if os.environ.get("STUCK"):
        threading.Event().wait()  # blocks the loop for good, which is its purpose
    if os.environ.get("BROKEN"):
        raise RuntimeError("the engine broke")


class SmallWorker(LaneWorker):
    serve = staticmethod(serve)


if __name__ == "__main__":
    logs.configure(sys.stderr)
    say("restart wanted" if run(Settings.load(None, os.environ), serve=serve) else "ended")
