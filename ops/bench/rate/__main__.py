"""`PYTHONPATH=ops/bench python -m rate [scenario …]`: the rate promise, scenario by scenario."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson
import rig

from cancelq_worker.settings_origin import PREFIX
from rate.scenarios import SCENARIOS, Options, play_all


def main() -> int:
    asked = _arguments()
    settings = dict(asked.set or ())
    options = Options(asked.seconds, asked.seed, asked.orders, asked.evidence, settings)
    with rig.servers(durable=False)[asked.server]() as server:
        verdicts = play_all(server, asked.scenarios or list(SCENARIOS), options)
    if asked.json:
        rows = [{"scenario": v.name, "figures": v.figures, "broken": v.broken, "lines": v.lines} for v in verdicts]
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    return 1 if any(verdict.broken for verdict in verdicts) else 0


def _arguments() -> argparse.Namespace:
    known = "\n".join(f"  {name:15} {' '.join((play.__doc__ or '').split())}" for name, play in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="rate", description=__doc__, epilog=known, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", type=_scenario, metavar="scenario", help="default: all")
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a scenario's backlog lasts")
    parser.add_argument("--orders", type=int, default=10_000, help="orders of the drain scenarios")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evidence", type=int, default=8, help="calls over a limit that are told one by one")
    parser.add_argument("--set", action="append", type=_setting, metavar="NAME=VALUE", help="a setting of the workers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    return parser.parse_args()


def _scenario(name: str) -> str:
    if name not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"unknown: {name}; known are {', '.join(SCENARIOS)}")
    return name


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name.startswith(PREFIX):
        raise argparse.ArgumentTypeError(f"write {PREFIX}NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
