"""Every scenario by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rig import Server

from rate import backlog, refusals, single, troubles
from rate.backlog import Options
from rate.judge import Verdict

__all__ = ["SCENARIOS", "Options", "play_all"]

SCENARIOS: dict[str, Callable[[Server, Options], Verdict]] = {
    "drain-far": backlog.drain_far,
    "drain-there": backlog.drain_there,
    "drain-back": backlog.drain_back,
    "drain-any": backlog.drain_any,
    "drain-near": backlog.drain_near,
    "stalls": backlog.stalls,
    "long-stalls": backlog.long_stalls,
    "near-and-far": backlog.near_and_far,
    "near-joins": backlog.near_joins,
    "shorter": backlog.shorter,
    "tailed": backlog.tailed,
    "bybit": backlog.bybit,
    "bybit-address": backlog.bybit_address,
    "bingx": backlog.bingx,
    "crowd": troubles.crowd,
    "killed": troubles.killed,
    "server-stalls": troubles.server_stalls,
    "drops": troubles.drops,
    "refused": refusals.refused,
    "banned": refusals.banned,
    "paused": refusals.paused,
    "urgent": single.urgent,
    "urgent-bybit": single.urgent_bybit,
    "urgent-bitget": single.urgent_bitget,
    "lone": single.lone,
}


def play_all(server: Server, names: Sequence[str], options: Options) -> list[Verdict]:
    """One after the other; each is told when it is over."""
    verdicts = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        verdicts.append(SCENARIOS[name](server, options))
        print(verdicts[-1].text(), flush=True)
    return verdicts
