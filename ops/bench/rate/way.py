"""The network between a worker and the venue: how long a call is on its way there, and its answer on its way back."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Way:
    """Drawn anew for every call.

    `shape`: `halves` (both ways between half of `low_ms` and half of `high_ms`, independently), `there` or `back`
    (all of it on that way, the other takes no time), `any` (a round trip of `low_ms` to `high_ms`, cut anywhere),
    `tailed` (each way log-normal with half of `low_ms` as its median and `sigma`, `high_ms` at most).
    `silent`, `reset`: shares of calls that are carried out and never answered, or answered by a reset.
    """

    shape: str = "halves"
    low_ms: float = 1.0
    high_ms: float = 2.0
    sigma: float = 1.0
    silent: float = 0.0
    reset: float = 0.0

    def draw(self, rng: Random) -> tuple[float, float]:
        """Seconds there, seconds back."""
        low_s, high_s = self.low_ms / 1000, self.high_ms / 1000
        match self.shape:
            case "halves":
                return rng.uniform(low_s, high_s) / 2, rng.uniform(low_s, high_s) / 2
            case "there":
                return rng.uniform(low_s, high_s), 0.0
            case "back":
                return 0.0, rng.uniform(low_s, high_s)
            case "any":
                whole_s, share = rng.uniform(low_s, high_s), rng.random()
                return whole_s * share, whole_s * (1 - share)
            case "tailed":
                there_s, back_s = (low_s / 2 * rng.lognormvariate(0, self.sigma) for _ in range(2))
                return min(there_s, high_s), min(back_s, high_s)
            case _:
                raise ValueError(f"no such way: {self.shape}")

    def fate(self, rng: Random) -> str:
        """`answered`, `silent` or `reset`."""
        drawn = rng.random()
        if drawn < self.silent:
            return "silent"
        return "reset" if drawn < self.silent + self.reset else "answered"
