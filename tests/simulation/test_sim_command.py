"""`make sim`: many seeds counted together, figures kept, a broken one told with the command that makes it again."""

import json
from pathlib import Path

from ops import checks, sim
from tests.simulation.run import run
from tests.simulation.world import Plan


def test_figures_of_several_runs_are_added_up(tmp_path: Path) -> None:
    totals, place = sim.play((1, 3, sim.Kind(0.3))), tmp_path / "figures.json"
    assert totals.seeds == 2
    assert totals.intents == sum(run(Plan.of(seed, 0.3)).intents for seed in (1, 2))
    sim.keep(totals, place)
    before = place.read_text()
    sim.keep(totals, place)
    assert sim.Totals.read(json.loads(before)).seeds == 2
    kept = json.loads(place.read_text())
    assert (kept["seeds"], kept["intents"]) == (4, 2 * totals.intents)
    assert (kept["lost"], kept["doubled"], kept["false"], kept["over_the_limit"]) == (0, 0, 0, 0)


def test_a_broken_promise_is_told_with_what_makes_it_again() -> None:
    outcome = run(Plan.of(4, 0.3))
    outcome.broken.append(checks.Broken("2", "an id has 2 final events"))
    totals = sim.Totals()
    totals.add(outcome)
    assert "1 doubled" in totals.line()
    assert totals.figures()["doubled"] == 1
    (told,) = totals.failed
    assert "[2] an id has 2 final events" in told
    assert told.endswith("again: make sim SEED=4 LENGTH=0.3")


def test_seeds_are_a_number_or_from_to() -> None:
    assert sim.span("1000") == (0, 1000)
    assert sim.span("500-900") == (500, 901)


def test_the_command_of_a_rate_run_makes_the_same_run() -> None:
    plan = Plan.of_rate(7, 30.0)
    assert plan.again() == 'make sim SEED=7 LENGTH=0.5 ARGS="--rate"'
    assert sim.Kind(0.5 * 60, rate=True).plan(7) == plan
