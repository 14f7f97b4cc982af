"""`cancelq kill`: asks, shows how far it is, and ends well only when nothing is open."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable

import typer
from redis.exceptions import RedisError
from rich.live import Live
from rich.table import Table

from cancelq import Lane
from cancelq_worker.cli import showing
from cancelq_worker.cli.border import failure_of, unknown_lane
from cancelq_worker.cli.consoles import plain_console
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.flatten import Flattening, NotServed, Report, Wish
from cancelq_worker.operate import UnknownLane, default_actor
from cancelq_worker.trips import connect

PLAIN_EVERY_S = 1.0


class Killing:
    """One run of the command."""

    def __init__(self, invocation: Invocation, wish: Wish, within_s: float, *, as_json: bool) -> None:
        self._url = invocation.settings().redis_url
        self._user = invocation.redis_user
        self._wish = wish
        self._within_s = within_s
        self._as_json = as_json
        self._report = Report()
        self._said_s = 0.0
        self._interrupted = False

    def run(self, *, yes: bool) -> Exit:
        """Asks for leave, kills, and tells. Whatever ends it, what is known to be open is said."""
        if not yes:
            self._ask_leave()
        try:
            self._shown()
        except NotServed as error:
            remedy = f"start one: cancelq worker with the account {self._wish.lane}; then kill again"
            raise CommandFailed(str(error), remedy, Exit.UNHEALTHY) from None
        except UnknownLane as unknown:
            raise unknown_lane(unknown.lane) from None
        except (RedisError, OSError) as error:
            if self._report.rounds:
                self._tell()
            raise failure_of(error, self._user) from None
        self._tell()
        if self._interrupted and not self._report.empty:
            typer.echo("interrupted: the workers go on with what was asked; cancelq kill again to follow", err=True)
            return Exit.INTERRUPTED
        return Exit.OK if self._report.empty else Exit.UNHEALTHY

    def _ask_leave(self) -> None:
        question = f"Cancel everything that is open on {self._wish}?"
        if not sys.stdin.isatty():
            raise CommandFailed("nobody to ask whether this is meant", "add --yes", Exit.USAGE)
        if not typer.confirm(question, err=True):
            raise CommandFailed(
                "not confirmed, nothing was asked for", "cancelq kill again, or add --yes", Exit.UNHEALTHY
            )

    def _shown(self) -> None:
        console = plain_console(stderr=True)
        if not console.is_terminal:
            self._carried_out(self._say)
            return
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            self._carried_out(lambda report: live.update(_progress(report)))

    def _carried_out(self, tell: Callable[[Report], None]) -> None:
        async def kill() -> None:
            redis = connect(self._url)
            flattening = Flattening(redis, self._wish, default_actor())
            self._report = flattening.report
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()

            def interrupt() -> None:
                """Once: it ends after the read under way; the next one ends the process."""
                loop.remove_signal_handler(signal.SIGINT)
                self._interrupted = True
                stop.set()

            loop.add_signal_handler(signal.SIGINT, interrupt)
            try:
                await flattening.run(tell, within_s=self._within_s, stop=stop)
            finally:
                await redis.aclose()

        asyncio.run(kill())

    def _say(self, report: Report) -> None:
        """Off a terminal: a line now and then."""
        if time.monotonic() - self._said_s >= PLAIN_EVERY_S:
            self._said_s = time.monotonic()
            typer.echo(_progress(report), err=True)

    def _tell(self) -> None:
        report = self._report
        if self._as_json:
            typer.echo(showing.dumps(_as_object(self._wish, report)))
            return
        if report.pairs:
            typer.echo(_table(report), nl=False)
        for problem in report.problems:
            typer.echo(problem, err=True)
        bulk = f" and what {report.bulk_calls} bulk calls took" if report.bulk_calls else ""
        did = f"{report.cancelled} orders{bulk} cancelled in {report.took_ms / 1000:.1f} s"
        if report.empty:
            typer.echo(f"nothing is open on {self._wish}: {did}")
        else:
            still = (
                "how many are open is not known" if report.still_open is None else f"{report.still_open} are still open"
            )
            typer.echo(f"NOT empty: {self._wish}: {did}, {still}", err=True)


def kill_lane(
    invocation: Invocation,
    lane: str,
    symbol: str | None,
    client_prefix: str | None,
    within_s: float,
    *,
    orders_only: bool,
    yes: bool,
    as_json: bool,
) -> Exit:
    """Empties the lane, or what of it is named. What could only be rejected is refused before anybody is asked."""
    wish = Wish(Lane.parse(lane), symbol, client_prefix, orders_only)
    if fault := wish.fault():
        raise CommandFailed(fault, "correct it and kill again: nothing was asked for", Exit.BAD_INPUT)
    return Killing(invocation, wish, within_s, as_json=as_json).run(yes=yes)


def _progress(report: Report) -> str:
    still = "?" if report.still_open is None else str(report.still_open)
    again = f", round {report.rounds}" if report.rounds > 1 else ""
    return f"{report.took_ms / 1000:5.1f} s  cancelled {report.cancelled}, open {still}{again}"


def _table(report: Report) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair")
    table.add_column("cancelled by id", justify="right")
    table.add_column("still open", justify="right")
    for name, pair in report.pairs.items():
        table.add_row(name, str(pair.cancelled), str(pair.still_open))
    console = plain_console(color_system=None, width=80)
    with console.capture() as captured:
        console.print(table, markup=False)
    return captured.get()


def _as_object(wish: Wish, report: Report) -> dict[str, object]:
    return {
        "lane": str(wish.lane),
        "empty": report.empty,
        "cancelled": report.cancelled,
        "bulk_calls": report.bulk_calls,
        "still_open": report.still_open,
        "rounds": report.rounds,
        "took_ms": report.took_ms,
        "pairs": {n: {"cancelled": p.cancelled, "still_open": p.still_open} for n, p in report.pairs.items()},
        "problems": report.problems,
    }
