"""What the demo shows while it runs: on a terminal a live view, elsewhere a line each second. Fits 80 columns and 24
rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cancelq_worker.cli.consoles import plain_console
from cancelq_worker.demo import summary
from cancelq_worker.demo.audit import Report
from cancelq_worker.demo.progress import LaneProgress, Progress
from cancelq_worker.demo.summary import OUTCOMES, number, plain_table

LINE_EVERY_S = 1.0
BAR_WIDTH = 16
PATIENCE = "Unknown orders are looked for during 10 s, so the last ones take a while."


class Screen:
    """Speaks to the person in front of the demo, on standard output."""

    def __init__(self, entries: int) -> None:
        self._console = plain_console(highlight=False)
        self._live: Live | None = None
        self._line_s = 0.0
        self._console.print(
            f"[bold]cancelq demo[/]: {entries:,} cancels of every kind at three venues, and an audit of what\n"
            "became of each. Nothing here reaches a real venue. It starts:"
        )

    def starting(self, what: str) -> None:
        self._console.print(f"  - {what}")

    @contextmanager
    def live(self) -> Iterator[None]:
        """While this is open, `show` draws."""
        self._console.print()
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, vertical_overflow="visible") as self._live:
            yield
        self._live = None

    def show(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(_view(progress), refresh=True)
        elif progress.complete or progress.elapsed_s - self._line_s >= LINE_EVERY_S:
            self._line_s = progress.elapsed_s
            self._console.print(_line(progress), soft_wrap=True)

    def stuck(self, progress: Progress, still_s: float) -> None:
        left = progress.expected - progress.settled
        self._console.print(
            f"\n[bold red]Nothing has moved for {still_s:.0f} s[/], and {left:,} of {progress.expected:,} are not "
            "settled. The audit follows as things stand.",
            soft_wrap=True,
        )

    def report(self, report: Report, logs: Path | None) -> None:
        """The audit, and what to try next; `logs` are kept if something is wrong."""
        self._console.print(summary.view(report))
        if logs is None:
            for line in summary.what_next():
                self._console.print(line, soft_wrap=True, markup=False)
        else:
            self._say_where(logs)

    def failed(self, why: str, logs: Path) -> None:
        self._console.print(Text("\nThe demo failed: ", style="bold red") + Text(why, style="default"), soft_wrap=True)
        self._say_where(logs)

    def interrupted(self) -> None:
        self._console.print("\nInterrupted. Every process of the demo has ended; there was no audit.")

    def _say_where(self, logs: Path) -> None:
        self._console.print(f"Logs, and what the audit rests on, are kept in {logs}", soft_wrap=True)


def _view(progress: Progress) -> RenderableType:
    line = f"\n{progress.elapsed_s:.0f} s. {PATIENCE}"
    return Group(_lanes(progress), Text(), _outcomes(progress), Text(line, style="dim"))


def _lanes(progress: Progress) -> Table:
    table = plain_table("lane", "", "settled", "of", "cancels", "a batch", "looks", "refused")
    table.columns[1].justify = "left"
    for lane in progress.lanes:
        bar = ProgressBar(total=lane.expected, completed=lane.settled, width=BAR_WIDTH)
        table.add_row(str(lane.lane), bar, f"{lane.settled:,}", f"{lane.expected:,}", *_calls(lane))
    return table


def _calls(lane: LaneProgress) -> Iterator[RenderableType]:
    """Cancel calls, orders in a batch call, look-ups, refused calls."""
    yield f"{lane.calls.cancels:,}"
    yield f"{lane.calls.per_batch:.1f}" if lane.calls.batches else "-"
    yield f"{lane.calls.lookups:,}"
    yield number(lane.refused, bad=True)


def _outcomes(progress: Progress) -> Table:
    table = plain_table("outcomes so far", *(str(lane.lane) for lane in progress.lanes))
    for status in OUTCOMES:
        table.add_row(status, *(number(lane.outcomes[status]) for lane in progress.lanes))
    return table


def _line(progress: Progress) -> str:
    outcomes = progress.outcomes
    told = ", ".join(f"{status} {outcomes[status]:,}" for status in OUTCOMES if outcomes[status])
    lanes = ", ".join(f"{lane.lane} {lane.settled / lane.expected:.0%}" for lane in progress.lanes)
    return (
        f"{progress.elapsed_s:4.0f} s  {progress.settled:,} of {progress.expected:,} settled"
        f"{': ' + told if told else ''}; {lanes}; {progress.calls:,} calls, {progress.refused:,} refused"
    )
