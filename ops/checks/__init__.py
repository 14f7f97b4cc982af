"""The judges of a run: they join what was accepted, what was told and what the venue knows to be true.

They know the contract and nothing else: not what went wrong in the run, not how the workers or the simulated venues
work. So one judge serves the chaos of real processes, the seeded simulation and the crash points.

    told = await read_streams(redis, lane)
    broken = judge(Case(lane, told, asks, acknowledged, VenueSaid(orders, calls, rates)))

Every broken promise is one `Broken`, with the number it has in docs/RELIABILITY.md.
"""

from ops.checks.case import Ask, Bounds, Broken, Case, VenueSaid
from ops.checks.judge import judge
from ops.checks.told import Told, key_of, read_streams

__all__ = ["Ask", "Bounds", "Broken", "Case", "Told", "VenueSaid", "judge", "key_of", "read_streams"]
