"""What a desk configures of the jobs: which run by themselves, for which lanes, and how often.

    [jobs.sweep.bitget.main]
    older_than = "1h"
    every = "5m"

A job without a table never runs by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from cancelq.contract import Lane, read_entry
from cancelq.contract import Refused as RefusedEntry
from cancelq_worker.settings_names import known_venue, usable_account

SECOND_MS = 1000
DAY_MS = 86_400 * SECOND_MS
#: What a span must be, and so each setting that a job cannot do without.
A_SPAN = 'must be a span like "90s", "5m", "2h" or "1d"'
_UNITS = {"s": SECOND_MS, "m": 60 * SECOND_MS, "h": 3600 * SECOND_MS, "d": DAY_MS}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")


def duration_ms(text: object) -> int:
    """The milliseconds of a span like `90s`, `5m`, `2h` or `1d`. Raises ValueError for anything else."""
    span = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if span is None:
        raise ValueError(A_SPAN)
    return int(span[1]) * _UNITS[span[2]]


def _at_least(least: str) -> AfterValidator:
    def check(ms: int) -> int:
        if ms < duration_ms(least):
            raise ValueError(f"must be at least {least}")
        return ms

    return AfterValidator(check)


Span = Annotated[int, BeforeValidator(duration_ms)]
# A job is an order to a few servers; more often than this is a lane's work, not a job's.
Every = Annotated[Span, _at_least("10s")]


class Periodic(BaseModel):
    """A job that runs by itself, once in every `every` (ms), counted from the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    every: Every


class Sweep(Periodic):
    """Cancels what was placed longer than `older_than` (ms) ago: orders of `kinds`, of all pairs or of `symbol`."""

    older_than: Annotated[Span, _at_least("1m")]
    kinds: str = "order"
    symbol: str | None = None
    client_prefix: str | None = None

    def fields(self, begun_ms: int) -> dict[str, str]:
        """The intent of the period that began at `begun_ms`: the same each time it is asked for."""
        chosen = {"symbol": self.symbol, "client_prefix": self.client_prefix}
        return {
            "id": f"sweep-{begun_ms}",
            "scope": "symbol" if self.symbol else "account",
            **{name: value for name, value in chosen.items() if value},
            "kinds": self.kinds,
            "older_than_ms": str(begun_ms - self.older_than),
            "reason": "sweep",
        }


class Reconcile(Periodic):
    """Asks again what became of the orders of `unresolved` intents, for `within` (ms) after they ended."""

    within: Annotated[Span, _at_least("1m")] = DAY_MS


def _fit_to_ask(sweep: Sweep) -> Sweep:
    """What a worker would reject is told where it is written."""
    flat = [text.encode() for pair in sweep.fields(DAY_MS * 20_000).items() for text in pair]
    read = read_entry("0-1", flat)
    if isinstance(read, RefusedEntry):
        raise ValueError(read.detail)
    return sweep


PeriodicT = TypeVar("PeriodicT", bound=Periodic)
ByLane = dict[
    Annotated[str, AfterValidator(known_venue)], dict[Annotated[str, AfterValidator(usable_account)], PeriodicT]
]


class Jobs(BaseModel):
    """The jobs that run by themselves, by venue and account."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sweep: ByLane[Annotated[Sweep, AfterValidator(_fit_to_ask)]] = Field(default_factory=dict)
    reconcile: ByLane[Reconcile] = Field(default_factory=dict)
    archive: ByLane[Periodic] = Field(default_factory=dict)

    def periods(self) -> Iterator[tuple[str, Lane, Periodic]]:
        """Every job's name, lane and settings."""
        for name in type(self).model_fields:
            by_venue: Mapping[str, Mapping[str, Periodic]] = getattr(self, name)
            for venue, by_account in by_venue.items():
                for account, periodic in by_account.items():
                    yield name, Lane(venue, account), periodic


def fields_at(path: Sequence[str]) -> Iterator[str]:
    """The settings there are below `jobs` at a path, for a message about one that is none."""
    fields = Jobs.model_fields
    if len(path) >= 1 and path[0] in fields:
        of: dict[str, type[Periodic]] = {"sweep": Sweep, "reconcile": Reconcile}
        yield from of.get(path[0], Periodic).model_fields
    else:
        yield from fields
