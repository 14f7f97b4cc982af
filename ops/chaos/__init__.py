"""Chaos: real worker processes between a real server and the simulated venues, everything failing at once.

    make chaos SECONDS=120 SEED=7 VENUE=all

Faults and intents come from the seed: workers are killed, stopped and told to drain; the server is killed, forgets
its scripts, runs out of memory; links stall, break and swallow replies; the venue lies in every way it knows. Then
all of it heals, and what was accepted (the inbox), what was told (the results) and what is true (the venue's book)
are joined by `ops.checks`. Each broken promise is one line; the exit status is 1 if there is any. Timing is the
machine's own, so a seed repeats the plan, not every interleaving.
"""

from ops.chaos.figures import figures, in_words
from ops.chaos.run import run

__all__ = ["figures", "in_words", "run"]
