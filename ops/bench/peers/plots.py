"""The plots of PEERS.md, from peers.json alone. Runs in an environment of its own, which has matplotlib:
`python -m peers.plots RECORD FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

STEP_S = 0.25
CEILING, LIMIT_S = 510, 1.0
COLOURS = {
    "rq": "tab:red",
    "celery": "tab:green",
    "dramatiq": "tab:purple",
    "saq": "tab:brown",
    "faststream": "tab:orange",
    "ccxt": "tab:gray",
    "cancelq": "tab:blue",
}
LINES = {"as shipped": "--", "helped": "-", "with cancel_orders": ":", "urgent_reserve 0": "-"}

Run = dict[str, Any]


def main(record: Path, folder: Path) -> None:
    """Each plot that the record has runs for. The files are the same whenever the record is."""
    matplotlib.rcParams["svg.hashsalt"] = "peers"
    runs: list[Run] = json.loads(record.read_text())["runs"]
    for name, load, draw in PLOTS:
        if of_load := [run for run in runs if run["load"] == load and run["repeat"] == _first(runs, load)]:
            _save(folder / f"{name}.svg", of_load, draw)


def _save(file: Path, runs: list[Run], draw: Callable[[Any, list[Run]], None]) -> None:
    figure = Figure(figsize=(9, 5))
    axes = figure.subplots()
    draw(axes, runs)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})


def _drain(axes: Any, runs: list[Run]) -> None:
    for run in runs:
        _line(axes, run, run["figures"]["curve"])
    orders = runs[0]["figures"]["orders"]
    times = [step * LIMIT_S for step in range(-(-orders // CEILING))]
    axes.step(times, [min(orders, CEILING * (step + 1)) for step in range(len(times))], "k", where="post", label="best")
    axes.set(xlabel="s after the burst", ylabel="orders at the venue's door", title="Burst: orders done")


def _refusals(axes: Any, runs: list[Run]) -> None:
    for run in runs:
        _line(axes, run, run["figures"]["refusals"])
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="s after the burst", ylabel="calls refused so far", title="Burst: calls the venue refused")


def _urgent(axes: Any, runs: list[Run]) -> None:
    for run in runs:
        delays = sorted(delay for delay in run["figures"]["urgent_delays_ms"] if delay is not None)
        axes.plot([delay / 1000 for delay in delays], _ranks(delays), **_style(run))
    axes.set_xscale("log")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set(
        xlabel="s from the ask to the venue's door",
        ylabel="urgent orders there by then",
        title="Mixed: the urgent among the bulk",
    )


def _line(axes: Any, run: Run, counts: list[int]) -> None:
    axes.plot([STEP_S * (at + 1) for at in range(len(counts))], counts, **_style(run))


def _style(run: Run) -> dict[str, str]:
    return {
        "color": COLOURS.get(run["peer"], "k"),
        "linestyle": LINES.get(run["row"], "-."),
        "label": f"{run['peer']}, {run['row']}",
    }


def _ranks(delays: Iterable[float]) -> list[int]:
    return [at + 1 for at, _ in enumerate(delays)]


def _first(runs: list[Run], load: str) -> int:
    return min(int(run["repeat"]) for run in runs if run["load"] == load)


PLOTS = (("burst", "burst", _drain), ("refusals", "burst", _refusals), ("urgent", "mixed", _urgent))

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
