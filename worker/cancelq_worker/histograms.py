"""Histograms that cost little to write: a settled batch adds 150 values, each of which costs prometheus_client's own a
lock and most of a microsecond; here all of them together cost ten.

Cells are written by one thread, the event loop's, and read by the one that answers a scrape. A scrape may miss a value
that is being added; it never sees a count go down.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry


class Cells:
    """One histogram under its labels. A value counts in the first bucket whose bound is not below it."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One value. Negative ones, which only clocks that disagree make, count as 0: a sum must not shrink."""
        if value < 0.0:
            value = 0.0
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def add_all(self, values: list[float]) -> None:
        """Many values at once, for a fraction of the time. They are sorted on the way."""
        values.sort()
        if values and values[0] < 0.0:
            values[: bisect_left(values, 0.0)] = [0.0] * bisect_left(values, 0.0)
        self.total += sum(values)
        counts, begin = self.counts, 0
        for place, bound in enumerate(self._bounds):
            end = bisect_right(values, bound, begin)
            if end != begin:
                counts[place] += end - begin
                begin = end
        counts[-1] += len(values) - begin


class Histogram(Collector):
    """A family of histograms. `bounds`: the upper bounds of the buckets, ascending, without the last, infinite one."""

    def __init__(
        self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self.name = name
        self._about = about
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._cells: dict[tuple[str, ...], Cells] = {}
        registry.register(self)

    def labels(self, *values: str) -> Cells:
        """The histogram under these labels, made at its first use; keep it where it is used often."""
        cells = self._cells.get(values)
        if cells is None:
            cells = self._cells[values] = Cells(self._bounds)
        return cells

    def describe(self) -> list[HistogramMetricFamily]:
        return [HistogramMetricFamily(self.name, self._about, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self._about, labels=self._labels)
        for values, cells in list(self._cells.items()):
            total, counts, below = cells.total, list(cells.counts), 0
            buckets = []
            for name, count in zip(self._names, counts, strict=True):
                below += count
                buckets.append((name, float(below)))
            family.add_metric(values, buckets, total)
        yield family
