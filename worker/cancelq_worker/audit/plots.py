"""The report's plots, as SVG that takes its colours and type from the page. The one module that needs matplotlib."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from cancelq_worker.audit.numbers import Histogram

# Placeholders that are replaced by the page's own colours, so that one plot serves a light and a dark page.
_INK, _FAINT = "#010101", "#020202"
_SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305", "#030306")
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, start=1)},
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cancelq",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
# At most so many bars or points along the time axis.
_STEPS_MOST = 120


def latency(spans: Mapping[tuple[str, str], Histogram]) -> str:
    """For every span, how many percent were done within a time."""
    drawn = {f"{begin} → {end}": h.points() for (begin, end), h in spans.items() if h.slots}
    if not drawn:
        return ""
    figure, axes = _figure()
    for colour, (name, points) in zip(_SERIES, drawn.items(), strict=False):
        whole, seen, times, shares = sum(count for _, count in points), 0, [], []
        for us, count in points:
            seen += count
            times.append(max(us, 1) / 1000)
            shares.append(100 * seen / whole)
        axes.step([times[0], *times], [0.0, *shares], where="post", color=colour, label=name, linewidth=1.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("% done within")
    axes.set_ylim(0, 101)
    return _svg(figure, axes, "How long each step took")


def outcomes(by_minute: Mapping[int, Mapping[str, int]], statuses: Sequence[str]) -> str:
    """Final events over time, stacked by status."""
    if not by_minute:
        return ""
    step = _step(by_minute)
    slots: dict[int, Counter[str]] = {}
    for minute, counts in by_minute.items():
        slots.setdefault(minute // step, Counter()).update(counts)
    order = sorted(slots)
    at, width = [_day(slot * step) for slot in order], 0.9 * step / 1440
    figure, axes = _figure()
    floor = [0] * len(order)
    for colour, status in zip(_SERIES, statuses, strict=False):
        heights = [slots[slot][status] for slot in order]
        axes.bar(at, heights, width, bottom=floor, color=colour, label=status)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    _time_axis(axes, f"outcomes in {_span(step)}")
    return _svg(figure, axes, "Outcomes over time")


def calls(by_minute: Mapping[int, int], refused: Mapping[int, int]) -> str:
    """Cancel calls and refusals over time."""
    if not by_minute and not refused:
        return ""
    step = _step({**by_minute, **refused})
    figure, axes = _figure()
    for colour, name, counts in zip(_SERIES, ("calls", "refused intents"), (by_minute, refused), strict=False):
        slots: Counter[int] = Counter()
        for minute, count in counts.items():
            slots[minute // step] += count
        order = range(min(slots), max(slots) + 1) if slots and len(slots) < _STEPS_MOST * 2 else sorted(slots)
        at = [_day(slot * step) for slot in order]
        axes.plot(at, [slots[slot] for slot in order], color=colour, label=name, marker="o", markersize=3.5)
    axes.set_ylim(bottom=0)
    _time_axis(axes, f"in {_span(step)}")
    return _svg(figure, axes, "Calls and refusals over time")


def _figure() -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def _time_axis(axes: Axes, label: str) -> None:
    locator = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=True))  # type: ignore[no-untyped-call]
    axes.set_ylabel(label)
    axes.set_xlabel("UTC")


def _step(minutes: Mapping[int, object]) -> int:
    """Minutes that one bar stands for."""
    whole = max(minutes) - min(minutes) + 1
    return next(
        (step for step in (1, 5, 15, 60, 360, 1440, 10_080) if whole <= step * _STEPS_MOST), whole // _STEPS_MOST
    )


def _span(step: int) -> str:
    return {1: "a minute", 60: "an hour", 1440: "a day", 10_080: "a week"}.get(
        step, f"{step} minutes" if step < 60 else f"{step / 60:g} hours"
    )


def _day(minute: int) -> float:
    """As matplotlib counts time: days since the epoch."""
    return datetime.fromtimestamp(minute * 60, UTC).timestamp() / 86_400


def _svg(figure: Figure, axes: Axes, title: str) -> str:
    with mpl.rc_context(_STYLE):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, fontsize=10)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # No address of anything, not even of a name space: inside HTML it is not needed.
    svg = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([^;\"]*?)'[^\"]*\"", r'font: \1var(--font)"', svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
