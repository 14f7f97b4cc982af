"""`cancelq trace`: everything known of one id, from every lane or one."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time

import redis.asyncio as aioredis
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cancelq import Lane
from cancelq_worker import operate
from cancelq_worker.cli import showing, story
from cancelq_worker.cli.border import unknown_lane
from cancelq_worker.cli.consoles import plain_console
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.trace import ENTRIES_MOST, NAMES_MOST, Reach, Trace, reader, trace

# A reading shorter than this needs no progress line.
PATIENCE_S = 1.0
_AGE = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Tracing:
    """One run of the command."""

    def __init__(self, invocation: Invocation, id: str, lane: str | None, since: str | None, *, as_json: bool) -> None:
        # An argument that is no UTF-8 cannot be an id; escaped, it can be shown.
        self._word = os.fsencode(id).decode(errors="backslashreplace")
        self._lane = Lane.parse(lane) if lane is not None else None
        self._since = since
        self._as_json = as_json
        self._invocation = invocation

    def run(self) -> Exit:
        """Prints every step that is known; CommandFailed if there is none."""
        if not self._word:
            raise CommandFailed("an empty id", "give the id of an intent, of an order or of an entry", Exit.USAGE)
        younger_than_ms = None if self._since is None else _age_ms(self._since)
        url = self._invocation.settings().redis_url
        traces = asyncio.run(self._traces(url, younger_than_ms))
        if not any(found.steps for found in traces):
            raise self._nothing(traces)
        self._show(traces)
        if any(found.cut for found in traces):
            typer.echo(
                f"there is more: a trace follows {NAMES_MOST} names and keeps {ENTRIES_MOST} entries of a stream; "
                "--since narrows it",
                err=True,
            )
        return Exit.OK

    async def _traces(self, url: str, younger_than_ms: int | None) -> list[Trace]:
        redis = reader(url)
        try:
            with ProgressLine(plain_console(stderr=True)) as line:
                return [
                    await trace(redis, lane, self._word, younger_than_ms=younger_than_ms, progress=line.tell)
                    for lane in await self._lanes(redis)
                ]
        finally:
            await redis.aclose()

    async def _lanes(self, redis: aioredis.Redis) -> list[Lane]:
        if self._lane is None:
            return await operate.find_lanes(redis)
        if not await redis.exists(self._lane.inbox, self._lane.results):
            raise unknown_lane(self._lane)
        return [self._lane]

    def _show(self, traces: list[Trace]) -> None:
        steps = sorted((step for found in traces for step in found.steps), key=lambda step: step.order)
        if self._as_json:
            for step in steps:
                typer.echo(story.as_json(step))
            return
        console = plain_console(story.OFF_TERMINAL)
        with console.capture() as shown:
            for part in story.timeline(steps, console):
                console.print(part, markup=False, highlight=False)
        typer.echo("\n".join(line.rstrip() for line in shown.get().splitlines()), color=sys.stdout.isatty())

    def _nothing(self, traces: list[Trace]) -> CommandFailed:
        looked = [_reach(reach) for found in traces for reach in found.reaches]
        within = f", in entries younger than {self._since}" if self._since else ""
        where = f"looked in{within}:" if looked else "there is no lane on this server yet"
        remedy = "check the id; what is older was trimmed, or is in the archive if there is one"
        return CommandFailed(
            "\n".join([f"nothing is known of {showing.printable(self._word)}; {where}", *looked]),
            remedy if looked else "a worker creates its lanes when it starts",
            Exit.UNHEALTHY,
        )


class ProgressLine:
    """A line that tells how far the reading is; only on a terminal, and only if it takes longer than `patience_s`."""

    def __init__(self, console: Console, patience_s: float = PATIENCE_S) -> None:
        self._wanted = console.is_terminal
        self._patience_s = patience_s
        self._begun_s = time.monotonic()
        self._task: TaskID | None = None
        self._bar = Progress(
            TextColumn("reading {task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def tell(self, stream: str, read: int, most: int) -> None:
        """As `trace` calls it."""
        if self._task is None:
            if not self._wanted or time.monotonic() - self._begun_s < self._patience_s:
                return
            self._task = self._bar.add_task(stream)
            self._bar.start()
        self._bar.update(self._task, description=stream, completed=read, total=max(read, most))


def _age_ms(text: str) -> int:
    age = _AGE.fullmatch(text)
    if not age:
        raise CommandFailed(
            f"--since wants an age like 90s, 30m, 2h or 7d, got {showing.printable(text)}",
            "left out, everything there is is looked at",
            Exit.USAGE,
        )
    return int(age[1]) * _UNIT_MS[age[2]]


def _reach(reach: Reach) -> str:
    if reach.first_ms is None:
        return f"  {reach.stream}: empty"
    return f"  {reach.stream}: {reach.length} entries, back to {story.moment(reach.first_ms * 1000)} UTC"
