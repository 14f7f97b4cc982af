"""What tests of the jobs share: `cancelq jobs` as a real process, RQ's own command line, and a line that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from tests.integration.test_rq_worker import Child
from tests.unit.test_client_lost_replies import Listener

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
PROGRAM = "import sys; from cancelq_worker.cli import main; sys.argv[0] = 'cancelq'; main()"
SERVED = "*** Listening on"


class StallingProxy(Listener):
    """Passes everything on to a server, until a command holds `word`: that one is passed on, and nothing comes back
    any more. `nth`: which of these commands alone, counted from 1; 0: each."""

    def __init__(self, upstream_port: int, word: bytes, nth: int = 0) -> None:
        self._upstream_port = upstream_port
        self._word = word
        self._nth = nth
        self._seen = 0
        self.stalled = threading.Event()
        super().__init__()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        back = asyncio.ensure_future(self._pass_back(up_reader, writer))
        try:
            while data := await reader.read(65536):
                self._seen += self._word in data
                if self._word in data and self._nth in (0, self._seen):
                    back.cancel()
                    await asyncio.wait({back})
                    up_writer.write(data)
                    await up_writer.drain()
                    await up_reader.read(1)  # the server has done it
                    self.stalled.set()
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.Event().wait()
                    return
                up_writer.write(data)
                await up_writer.drain()
        finally:
            back.cancel()
            up_writer.close()
            writer.close()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def start_jobs(children: list[Child], url: str, **env: str) -> Child:
    """`cancelq jobs`, seen to listen. No exchange keys."""
    given = {"CANCELQ_REDIS_URL": url, "CANCELQ_ACCOUNTS__BITGET__MAIN__DEMO": "false", **env}
    child = Child([sys.executable, "-c", PROGRAM, "jobs"], given)
    children.append(child)
    child.expect(SERVED)
    return child


def rq(url: str, *words: str) -> str:
    """What RQ's own command line says."""
    done = subprocess.run(
        [sys.executable, "-m", "rq.cli", *words, "-u", url],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout


def clean_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")} | dict(env or {})


def queue_on(connection: Redis) -> Queue:
    """The queue as a desk has it."""
    return Queue("cancelq", connection=connection, serializer=JSONSerializer)


def ended(job: Job) -> str:
    """The status of a job, once it has one that is an end."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        result = job.latest_result(timeout=1)
        status = job.get_status()
        if result is not None and status in ("finished", "failed"):
            return str(status.value)
    raise AssertionError(f"job {job.id} did not end; it is {job.get_status()}")


def failure(job: Job) -> str:
    """Why a job failed, as RQ's dashboards show it."""
    assert ended(job) == "failed"
    result = job.latest_result()
    assert result is not None
    return result.exc_string or ""


def give_up_the_dead(queue: Queue) -> None:
    """Moves the clock past the time after which RQ regards jobs in hand as abandoned, and past the wait for a retry."""
    started = StartedJobRegistry(queue=queue)
    started.cleanup(timestamp=time.time() + 86_400)
    scheduled = ScheduledJobRegistry(queue=queue)  # type: ignore[no-untyped-call]  # RQ leaves it unannotated
    for job_id in scheduled.get_job_ids():
        queue.connection.zadd(scheduled.key, {job_id: 1})
