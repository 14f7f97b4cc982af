"""The venue's limits: so many units in any sliding window, counted at arrival on the simulator's steady
clock.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# What a desk may write for one bucket: a number per the venue's own window, a number and a window in ms, or
# nothing at all (lifted).
LimitOverride = int | tuple[int, int] | None

EVERY_BUCKET = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """`limit` units in any `span_us`; no limit if it is None. A refusal closes the bucket for
    `penalty_us`.
    """

    limit: int | None
    span_us: int
    penalty_us: int = 0


class Window:
    """One bucket of one owner. Of the admitted units, `t[i + limit] - t[i] >= span_us` holds for every i.

    It also remembers the worst it has seen: how many units were admitted, and how many arrived, within any
    one span. Times must not run backwards.
    """

    __slots__ = (
        "_admitted_at",
        "_arrived_at",
        "_closed_until_us",
        "admitted",
        "arrived_worst",
        "refused",
        "rule",
        "worst",
    )

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.admitted = 0
        self.refused = 0
        self.worst = 0
        self.arrived_worst = 0
        self._admitted_at: deque[int] = deque()
        self._arrived_at: deque[int] = deque()
        self._closed_until_us: int | None = None

    def admit(self, at_us: int, units: int = 1) -> bool:
        """Counts a call of that many units, and tells whether all of them found room. Refused units cost
        nothing.
        """
        rule = self.rule
        arrived = self._arrived_at
        admitted = self._admitted_at
        oldest_us = at_us - rule.span_us
        _forget(arrived, oldest_us)
        _forget(admitted, oldest_us)
        arrived.extend([at_us] * units)
        self.arrived_worst = max(self.arrived_worst, len(arrived))
        if not self._open(at_us) or (rule.limit is not None and len(admitted) + units > rule.limit):
            self.refused += units
            if rule.penalty_us and self._closed_until_us is None:
                self._closed_until_us = at_us + rule.penalty_us
            return False
        admitted.extend([at_us] * units)
        self.admitted += units
        self.worst = max(self.worst, len(admitted))
        return True

    def remaining(self) -> int | None:
        """Units left as of the last `admit`; None where there is no limit."""
        return None if self.rule.limit is None else max(0, self.rule.limit - len(self._admitted_at))

    def frees_us(self) -> int | None:
        """When, as of the last `admit`, the oldest unit leaves the window; None if there is none in it."""
        return self._admitted_at[0] + self.rule.span_us if self._admitted_at else None

    def _open(self, at_us: int) -> bool:
        if self._closed_until_us is not None and at_us >= self._closed_until_us:
            self._closed_until_us = None
        return self._closed_until_us is None


def _forget(times: deque[int], oldest_us: int) -> None:
    while times and times[0] <= oldest_us:
        times.popleft()


class UnknownBucketError(Exception):
    """An override names a bucket that no venue has; the message lists the ones there are."""


class Limiter:
    """All buckets of all venues. A bucket's name is `venue/endpoint`, its owner a UID or an IP address."""

    def __init__(self) -> None:
        self._declared: dict[str, Rule] = {}
        self._rules: dict[str, Rule] = {}
        self._windows: dict[tuple[str, str], Window] = {}

    def declare(self, bucket: str, rule: Rule) -> None:
        """Adds a bucket with the limit the venue documents."""
        self._declared[bucket] = rule
        self._rules[bucket] = rule

    def override(self, overrides: Mapping[str, LimitOverride]) -> None:
        """Replaces all earlier overrides. Units counted so far stay counted."""
        unknown = sorted(set(overrides) - set(self._declared) - {EVERY_BUCKET})
        if unknown:
            raise UnknownBucketError(
                f"limits: no bucket {', '.join(unknown)}; there are {', '.join(sorted(self._declared))}, or '*'"
            )
        for bucket, rule in self._declared.items():
            if bucket in overrides:
                self._rules[bucket] = _overridden(rule, overrides[bucket])
            elif EVERY_BUCKET in overrides:
                self._rules[bucket] = _overridden(rule, overrides[EVERY_BUCKET])
            else:
                self._rules[bucket] = rule
        for (bucket, _owner), window in self._windows.items():
            window.rule = self._rules[bucket]

    def rule(self, bucket: str) -> Rule:
        """What a bucket allows now, for a window that is kept elsewhere."""
        return self._rules[bucket]

    def window(self, bucket: str, owner: str) -> Window:
        """The owner's window in that bucket, made when first asked for."""
        window = self._windows.get((bucket, owner))
        if window is None:
            window = self._windows[bucket, owner] = Window(self._rules[bucket])
        return window

    def windows(self) -> Iterator[tuple[str, str, Window]]:
        for (bucket, owner), window in sorted(self._windows.items()):
            yield bucket, owner, window

    def forget(self) -> None:
        """Drops everything counted."""
        self._windows.clear()


def _overridden(rule: Rule, override: LimitOverride) -> Rule:
    match override:
        case None:
            return Rule(None, rule.span_us, 0)
        case int():
            return Rule(override, rule.span_us, rule.penalty_us)
        case (limit, window_ms):
            return Rule(limit, window_ms * 1000, rule.penalty_us)
