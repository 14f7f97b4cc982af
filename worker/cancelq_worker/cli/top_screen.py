"""How a view of the lanes looks: lines of text as wide and as many as there is room for."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from cancelq_worker.cli import showing
from cancelq_worker.cli.top_rows import Level, Note, Row, View
from cancelq_worker.snapshot import AddressStatus

STYLES = {Level.calm: "", Level.notice: "yellow", Level.trouble: "bold red"}
#: Wide enough for every column where no terminal tells how wide it is.
WIDTH_OFF_TERMINAL = 200
ADDRESSES_MOST = 4
#: Lines of lanes that nothing else takes the room of.
LANES_BEFORE_ALL = 12
LANE_LEAST, LANE_MOST = 10, 40
OLD_MS, VERY_OLD_MS = 5_000, 30_000
NONE = "-"

Cell = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Where there is no room for all, those with the highest `rank` are left out. `group` is the title
    above the titles of neighbours."""

    title: str
    width: int
    rank: int
    cell: Callable[[Row], Cell]
    group: str = ""
    align: Literal["left", "right"] = "right"


def draw(view: View, width: int, height: int | None = None) -> Group:
    """The view in at most `height` lines (None: as many as it takes) of at most `width` cells."""
    columns = _chosen(view.rows, width)
    top, bottom = [*_head(view), *_titles(columns)], list(_addresses(view.addresses, width))
    room = None
    if height is not None:
        # The lanes come first, unless they are so many that some are left out anyway.
        wanted = min(sum(1 + len(row.notes) for row in view.rows), LANES_BEFORE_ALL)
        bottom = bottom[: max(0, height - len(top) - wanted)]
        room = max(1, height - len(top) - len(bottom))
    lines = [*top, *_lanes(view.rows, columns, width, room), *bottom]
    if view.away:
        for line in lines[len(top) :]:
            line.stylize("dim")
    return Group(*(_fitted(line, width) for line in lines))


def _head(view: View) -> Iterator[Text]:
    server, totals = view.server, view.totals
    memory = _size(server.memory) + (f" of {_size(server.memory_most)}" if server.memory_most else "")
    at = datetime.fromtimestamp(server.now_us / 1e6, UTC)
    line = Text.assemble(
        ("cancelq", "bold"),
        f"  {at:%H:%M:%S} UTC  {server.name} {server.version}  {memory}  {server.round_trip_ms:.1f} ms  ",
        _counted(len(server.workers), "worker") if server.workers else ("no worker alive", STYLES[Level.trouble]),
    )
    if totals.flow.sampled:
        line.append("  sampled", "yellow")
    yield line
    troubled = (f"{totals.troubled} in trouble", STYLES[Level.trouble]) if totals.troubled else "none in trouble"
    line = Text.assemble(_counted(totals.lanes, "lane"), ", ", troubled if totals.lanes else "none served here yet")
    line.append(f"  queued {_count(totals.queued, more=totals.queued_more)}  flight {_count(totals.in_flight)}")
    line.append(f"  confirm {_count(totals.confirming)}  {_rate(sum(totals.flow.per_s.values()))}/s")
    if totals.flow.settled_ms:
        line.append(f"  p99 {_span(totals.flow.settled_ms[1])}")
    yield line
    if view.away:
        why, seconds = view.away
        said = f"away for {seconds:.0f} s, below is how it was before: {showing.printable(why)}"
        yield Text(said, STYLES[Level.trouble])
    if view.suspended:
        yield Text("suspended by `rq suspend`: every lane is paused until `rq resume`", STYLES[Level.trouble])
    if view.rehearsing:
        said = f"DRY RUN by {', '.join(view.rehearsing)}: nothing it tells in …:dryrun is real"
        yield Text(showing.printable(said), STYLES[Level.notice])
    yield Text("")


def _lanes(rows: Sequence[Row], columns: Sequence[Column], width: int, room: int | None) -> Iterator[Text]:
    """Each lane with its notes below it; lanes for which there is no room are counted."""
    blocks: list[list[Text]] = []
    lines = 0
    for row in rows:
        blocks.append([_line(row, columns), *(line for note in row.notes for line in _note(note, width))])
        lines += len(blocks[-1])
        if room is not None and lines > room:
            blocks = _fitting(blocks, room - 1)
            break
    for block in blocks:
        yield from block
    if len(blocks) < len(rows):
        yield Text(f"… and {_counted(len(rows) - len(blocks), 'more lane')}", "bold")


def _fitting(blocks: Sequence[list[Text]], room: int) -> list[list[Text]]:
    """The first blocks, as many as there is room for, the last perhaps without its notes."""
    fitting: list[list[Text]] = []
    for block in blocks:
        if room <= 0:
            break
        fitting.append(block[:room])
        room -= len(fitting[-1])
    return fitting


def _line(row: Row, columns: Sequence[Column]) -> Text:
    line = Text()
    for number, column in enumerate(columns):
        text, style = column.cell(row)
        line.append(" " * bool(number))
        line.append(_sized(showing.printable(text), column), style)
    return line


def _note(note: Note, width: int) -> list[Text]:
    """A line; trouble may take two, as what to do about it stands at its end."""
    style = "red" if note.level is Level.trouble else STYLES[note.level]
    most = 2 if note.level is Level.trouble else 1
    said = f"└ {showing.printable(note.text)}"
    fit = textwrap.TextWrapper(
        max(width, 20), subsequent_indent="  ", max_lines=most, placeholder=" …", break_on_hyphens=False
    )
    lines = fit.wrap(said)
    return [Text(line, style) for line in lines]


def _chosen(rows: Sequence[Row], width: int) -> list[Column]:
    """The columns there is room for, in their order: all, or the first by rank of those that say much in few cells."""
    longest = max((len(str(row.lane)) for row in rows), default=0)
    lane = replace(LANE, width=min(max(longest, LANE_LEAST), LANE_MOST))
    for wide in (WIDE, [column for column in WIDE if column.title != "timed"]):
        if _width((lane, *wide)) <= width:
            return [lane, *wide]
    chosen = [lane]
    for column in sorted(NARROW, key=lambda column: column.rank):
        if _width([*chosen, column]) > width:
            break
        chosen.append(column)
    return [column for column in (lane, *NARROW) if column in chosen]


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width + 1 for column in columns) - 1


def _titles(columns: Sequence[Column]) -> Iterator[Text]:
    """One line, or two where neighbours have a title in common."""
    parts = []
    for group, members in groupby(columns, key=lambda column: column.group):
        width = _width(list(members))
        parts.append((f" {group} ".center(width, "─") if group else "").ljust(width))
    if "".join(parts).strip():
        yield Text(" ".join(parts), "dim")
    yield Text(" ".join(_sized(column.title, column) for column in columns), "bold")


def _sized(text: str, column: Column) -> str:
    if cell_len(text) > column.width:
        return set_cell_size(text, column.width - 1) + "…"
    missing = " " * (column.width - cell_len(text))
    return text + missing if column.align == "left" else missing + text


def _fitted(line: Text, width: int) -> Text:
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


def _addresses(addresses: Sequence[AddressStatus], width: int) -> Iterator[Text]:
    """The limits per address that are closed or most in use."""
    used = [address for address in addresses if address.used or address.held_ms]
    if not used:
        return
    yield Text("")
    yield Text("limits per address", "bold")
    longest = max(len(f"{a.egress} {a.bucket}") for a in used[:ADDRESSES_MOST])
    for address in used[:ADDRESSES_MOST]:
        line = Text(showing.printable(f"{address.egress} {address.bucket}").ljust(min(longest, width // 2)))
        line.append(f" {address_use(address)}")
        if address.held_ms:
            line.append(f"  {address_hold(address)}", STYLES[Level.trouble])
        yield line
    if len(used) > ADDRESSES_MOST:
        yield Text(f"… and {len(used) - ADDRESSES_MOST} more")


def address_use(address: AddressStatus) -> str:
    """Units in use, of how many, and a bar if that is known."""
    if not address.limit:
        return f"{address.used} in use"
    return f"{_bar(address.share, 8)} {address.used}/{address.limit}"


def address_hold(address: AddressStatus) -> str:
    """For how long an address is closed, and why."""
    return f"closed {address.held_ms / 1000:.1f} s more: {showing.printable(address.held_why)}"


# -- cells ------------------------------------------------------------------------------------------------------


def _state(row: Row) -> Cell:
    return row.word, STYLES[row.level] or ("dim" if row.word == "idle" else "green")


def _queued(row: Row) -> Cell:
    return _count(row.queued, more=row.queued_more), ""


def _oldest(row: Row) -> Cell:
    if row.oldest_ms is None:
        return NONE, "dim"
    style = "bold red" if row.oldest_ms >= VERY_OLD_MS else "yellow" if row.oldest_ms >= OLD_MS else ""
    return _span(row.oldest_ms), style


def _used(row: Row) -> Cell:
    if row.busiest is None:
        return NONE, "dim"
    _, used, limit = row.busiest
    return f"{_bar(used / limit, 5)} {used:>3}/{limit:<3}", ""


def _share(row: Row) -> Cell:
    if row.busiest is None:
        return NONE, "dim"
    _, used, limit = row.busiest
    return f"{_bar(used / limit, 4)} {min(used / limit, 9.99):>4.0%}", ""


def _bucket(row: Row) -> Cell:
    return (row.busiest[0] if row.busiest else NONE), ("" if row.busiest else "dim")


def _workers(row: Row) -> Cell:
    many = len(row.status.workers) if row.status and not row.status.unattended else 0
    return str(many), "" if many else "bold red"


def _of_status(name: Literal["in_flight", "confirming", "timed"]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value: int = getattr(row.status, name) if row.status else 0
        return (_count(value), "") if value else (NONE, "dim")

    return cell


def _of_rate(group: str, style: str = "") -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        rate = row.flow.per_s[group]
        return (_rate(rate), style) if rate else (NONE, "dim")

    return cell


def _done(row: Row) -> Cell:
    rate = sum(row.flow.per_s.values())
    return (_rate(rate), "") if rate else (NONE, "dim")


def _of_latency(name: Literal["sent_ms", "settled_ms"], which: Literal[0, 1]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        found: tuple[float, float] | None = getattr(row.flow, name)
        return (_span(found[which]), "") if found else (NONE, "dim")

    return cell


LANE = Column("lane", LANE_LEAST, 0, lambda row: (str(row.lane), "bold"), align="left")
_BEGIN = (
    Column("state", 10, 1, _state, align="left"),
    Column("queued", 6, 1, _queued),
    Column("oldest", 6, 2, _oldest),
    Column("flight", 6, 4, _of_status("in_flight")),
    Column("confirm", 7, 7, _of_status("confirming")),
)
_SENT, _SETTLED = "queued→sent", "queued→settled"
WIDE = (
    *_BEGIN,
    Column("timed", 5, 0, _of_status("timed")),
    Column("cancel", 6, 0, _of_rate("cancelled", "green"), "outcomes per second"),
    Column("late", 5, 0, _of_rate("too late", "yellow"), "outcomes per second"),
    Column("unres", 5, 0, _of_rate("unresolved", "bold red"), "outcomes per second"),
    Column("other", 5, 0, _of_rate("other"), "outcomes per second"),
    Column("p50", 6, 0, _of_latency("sent_ms", 0), _SENT),
    Column("p99", 6, 0, _of_latency("sent_ms", 1), _SENT),
    Column("p50", 6, 0, _of_latency("settled_ms", 0), _SETTLED),
    Column("p99", 6, 0, _of_latency("settled_ms", 1), _SETTLED),
    Column("busiest", 18, 0, _bucket, "budget", align="left"),
    Column("used", 13, 0, _used, "budget", align="left"),
    Column("workers", 7, 0, _workers),
)
NARROW = (
    *_BEGIN,
    Column("done/s", 6, 3, _done),
    Column("sent99", 6, 9, _of_latency("sent_ms", 1)),
    Column("p50", 6, 8, _of_latency("settled_ms", 0)),
    Column("p99", 6, 5, _of_latency("settled_ms", 1)),
    Column("budget", 9, 6, _share, align="left"),
    Column("busiest", 18, 10, _bucket, align="left"),
    Column("workers", 7, 11, _workers),
)


# -- words ------------------------------------------------------------------------------------------------------


def _bar(share: float, cells: int) -> str:
    full = min(cells, round(share * cells + 0.499)) if share > 0 else 0
    return "█" * full + "░" * (cells - full)


def _count(number: int, *, more: bool = False) -> str:
    said = f"{number:,}" if number < (10_000 if more else 100_000) else f"{number / 1000:.0f}k"
    return f"≥{said}" if more else said


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _rate(per_s: float) -> str:
    return f"{per_s:.1f}" if per_s < 100 else f"{per_s:,.0f}"


def _span(ms: float) -> str:
    """A span in six cells."""
    if ms < 9_950:
        return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s" if ms < 99_950 else f"{ms / 1000:.0f} s"
    return showing.duration(ms)


def _size(many: int) -> str:
    for unit, size in (("G", 1 << 30), ("M", 1 << 20)):
        if many >= size:
            return f"{many / size:.1f}{unit}"
    return f"{many / 1024:.0f}K"
