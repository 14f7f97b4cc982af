"""`cancelq feed`: queues the intents of a file or of standard input, and may wait for their outcomes."""

from __future__ import annotations

import io
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal, TextIO, TypeVar

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from cancelq import BatchIncomplete, BrokerDown, Client, Conflicting, Event, Lane, OutcomeTimeout, Ticket
from cancelq_worker.cli import showing
from cancelq_worker.cli.consoles import plain_console
from cancelq_worker.cli.feed_file import Bad, Good, form_of, lines_of, read_lines
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.exits import CommandFailed, Exit

T = TypeVar("T")

# Lines per round trip, when so many are there already.
CHUNK = 500
# Pauses before what was not confirmed is sent again, with its ids; after the last, it is given up.
AGAIN_AFTER_S = (0.2, 0.5, 1.0, 2.0, 4.0)
# How often the bar moves while outcomes are awaited.
LOOK_S = 0.25


class Feed:
    """One run of the command."""

    def __init__(
        self,
        invocation: Invocation,
        file: str,
        form: Literal["auto", "jsonl", "csv"],
        lane: str | None,
        timeout_s: float | None,
        *,
        durable: bool,
        as_json: bool,
    ) -> None:
        self._invocation = invocation
        self._file = file
        self._form: Literal["auto", "jsonl", "csv"] = form
        self._lane = Lane.parse(lane) if lane else None
        self._timeout_s = timeout_s
        self._durable = durable
        self._as_json = as_json
        self._tickets: list[Ticket] = []
        self._queued = 0
        self._bad = 0

    def run(self) -> Exit:
        """Queues every good line. Bad input counts most for the exit code, then outcomes not as asked."""
        settings = self._invocation.settings()
        with self._invocation.redis(settings) as redis, Client(redis) as client, _bar() as bar:
            self._send_all(client, bar)
            outcomes = self._outcomes(client, bar) if self._timeout_s is not None else []
        self._summarise(outcomes)
        if self._bad:
            return Exit.BAD_INPUT
        settled = self._timeout_s is None or len(outcomes) == self._queued
        return Exit.OK if settled and all(map(showing.as_asked, outcomes)) else Exit.UNHEALTHY

    def _send_all(self, client: Client, bar: Progress) -> None:
        task = bar.add_task("queued", total=None)
        with _opened(self._file) as stream:
            for lines in _as_they_come(self._lines(stream), CHUNK):
                by_lane: dict[Lane, list[dict[str, str]]] = {}
                for line in lines:
                    if isinstance(line, Bad):
                        self._tell(line, bar)
                    else:
                        by_lane.setdefault(line.lane, []).append(line.fields)
                for lane, intents in by_lane.items():
                    self._keep(_submit(client, lane, intents, durable=self._durable))
                bar.update(task, completed=self._queued)
        bar.update(task, total=self._queued)

    def _lines(self, stream: TextIO) -> Iterator[Good | Bad]:
        lines = lines_of(stream)
        if self._form != "auto":
            return read_lines(lines, self._form, self._lane)
        first = next(lines, "")
        return read_lines(chain([first], lines), form_of(self._file, first or ""), self._lane)

    def _tell(self, line: Bad, bar: Progress) -> None:
        self._bad += 1
        name = "stdin" if self._file == "-" else self._file
        bar.console.print(f"{name}:{line.number}: {showing.printable(line.says)}", markup=False, highlight=False)

    def _keep(self, tickets: list[Ticket]) -> None:
        self._queued += len(tickets)
        if self._timeout_s is not None:
            self._tickets += tickets
        elif self._as_json:
            for ticket in tickets:
                receipt = {"lane": str(ticket.lane), "id": ticket.id, "entry_id": ticket.entry_id}
                typer.echo(showing.dumps(receipt))

    def _outcomes(self, client: Client, bar: Progress) -> list[Event]:
        """The final events there are when all are or the time is over, in the order of the lines."""
        assert self._timeout_s is not None
        task = bar.add_task("settled", total=len(self._tickets))
        deadline_s = time.monotonic() + self._timeout_s
        waiting = self._tickets
        while waiting:
            left_s = deadline_s - time.monotonic()
            try:
                client.wait_all(waiting, max(0.0, min(LOOK_S, left_s)))
            except OutcomeTimeout as still:
                if left_s <= 0:
                    self._give_up(still, bar)
                    break
            except Conflicting as conflict:
                bar.console.print(str(conflict), markup=False, highlight=False)
            waiting = [ticket for ticket in waiting if not ticket.settled]
            bar.update(task, completed=len(self._tickets) - len(waiting))
        return [ticket.event for ticket in self._tickets if ticket.event is not None]

    def _give_up(self, still: OutcomeTimeout, bar: Progress) -> None:
        text = f"{len(still.ids)} without an outcome after {self._timeout_s:g} s, not given up: {still.ids[0]}"
        bar.console.print(text + (", …" if len(still.ids) > 1 else ""), markup=False, highlight=False)

    def _summarise(self, outcomes: list[Event]) -> None:
        if self._as_json:
            for event in outcomes:
                typer.echo(showing.as_json(event))
        parts = [f"{self._queued} queued"]
        if self._bad:
            parts.append(f"{self._bad} bad lines not sent")
        parts += [f"{count} {status}" for status, count in Counter(event.status for event in outcomes).most_common()]
        typer.echo(", ".join(parts), err=self._as_json)


def _submit(client: Client, lane: Lane, intents: list[dict[str, str]], *, durable: bool) -> list[Ticket]:
    """Queues a batch; what was not confirmed is sent again under its ids, which cannot cancel twice."""
    tickets: list[Ticket] = []
    left: list[dict[str, str]] = intents
    for pause_s in (*AGAIN_AFTER_S, None):
        try:
            return tickets + client.submit_many(lane, left, durable=durable)
        except BatchIncomplete as incomplete:
            tickets += incomplete.queued
            left = [dict(fields) for fields in (*incomplete.uncertain, *incomplete.not_queued)]
            failure: BatchIncomplete | BrokerDown = incomplete
        except BrokerDown as down:
            failure = down
        if pause_s is None:
            raise failure
        time.sleep(pause_s)
    raise AssertionError("the last pause is None")


def _bar() -> Progress:
    """Progress on stderr; only its messages where that is no terminal."""
    console = plain_console(stderr=True, soft_wrap=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _opened(file: str) -> TextIO:
    """The file as text. What is not UTF-8 stays where it is, for the rules of the contract to refuse."""
    raw = sys.stdin.buffer if file == "-" else _file(file)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _file(file: str) -> io.BufferedReader:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise CommandFailed(
            f"{file} cannot be read: {error.strerror}", "name a file, or - for standard input", Exit.BAD_INPUT
        ) from error


def _as_they_come(source: Iterable[T], most: int) -> Iterator[list[T]]:
    """Lists of what has arrived, at most `most` long: a slow source is not waited for to fill one."""
    arrived: queue.Queue[T | _End] = queue.Queue(2 * most)

    def read() -> None:
        error: Exception | None = None
        try:
            for item in source:
                arrived.put(item)
        except Exception as failed:
            error = failed
        arrived.put(_End(error))

    threading.Thread(target=read, daemon=True).start()
    while True:
        batch: list[T] = []
        item = arrived.get()
        while not isinstance(item, _End):
            batch.append(item)
            if len(batch) == most or arrived.empty():
                break
            item = arrived.get()
        if batch:
            yield batch
        if isinstance(item, _End):
            if item.error:
                raise item.error
            return


class _End:
    """Nothing more comes; `error` is why, if it should not be so."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
