"""A real `cancelq worker --http` as a process, and what can be asked of it over HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from cancelq_worker.trips import command
from tests.integration.rig import Rig

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from cancelq_worker.cli import main; sys.argv[0] = 'cancelq'; main()"
PATIENCE_S = 20.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def find(program: str) -> str | None:
    """A program of Debian's package `prometheus`, which a user's path may lack."""
    return shutil.which(program) or shutil.which(program, path="/usr/bin:/usr/local/bin")


def get(url: str) -> tuple[int, str]:
    """Status and body; blocking."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


class ObservedWorker:
    """`seen` is what it logged so far, up to the line that was last expected."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen = ""
        self.place = ""

    async def expect(self, pattern: str) -> re.Match[str]:
        """Reads on to a line that matches; the end of the output is an error."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            async for raw in self.process.stdout:
                line = raw.decode()
                self.seen += line
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"no line with {pattern!r} in:\n{self.seen}")

    async def listening(self) -> None:
        self.place = (await self.expect(r'"http": "([^"]+)"'))[1]

    async def get(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(get, f"http://{self.place}{path}")

    async def samples(self) -> Samples:
        """Every sample of a scrape, by name and labels."""
        _, text = await self.get("/metrics")
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await self.process.communicate()
        self.seen += out.decode()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def observed_worker(
    environment: Mapping[str, str], *args: str, program: str = PROGRAM
) -> AsyncIterator[ObservedWorker]:
    """Starts it; it is killed at the end if it still runs."""
    mine = {name: value for name, value in os.environ.items() if not name.upper().startswith("CANCELQ_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "worker", *args,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=ROOT, env={**mine, **environment}, process_group=0,
    )  # fmt: skip
    worker = ObservedWorker(process)
    try:
        yield worker
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_asked(rig: Rig, ask: Callable[[], bool]) -> None:
    """Asks until the answer is yes. The answer is on a page that nobody could block on: Redis keeps the time."""
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(ask):
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")
