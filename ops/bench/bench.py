"""`make bench`: how fast, at what cost, and how many rules were broken on the way.

Everything is a ratio to a bare loop that does the same on the same machine in the same minute, or processor time;
nothing here is a test. What each figure means is in the notes below the table.
"""

from __future__ import annotations

import argparse
import io
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import enqueue
import growth
import latency
import orjson
import rig
import throughput
from peers import part as peers
from peers.loads import LOADS
from peers.roster import PEERS
from rate import part as rate
from report import Row, as_json, page, table

HERE = Path(__file__).parent
PARTS = ("enqueue", "throughput", "latency")
KNOWN = (*PARTS, "rate", "peers", "growth")  # only when asked for: from a quarter of an hour to more than an hour
NOTES = (*enqueue.NOTES, *throughput.NOTES, *latency.NOTES)


def main() -> int:
    asked = _arguments()
    if "peers" in asked.parts or asked.render:
        return _peers(asked)
    machine = {**rig.machine(), "durability": "AOF, fsync always" if asked.durable else "none (memory only)"}
    started_s = time.monotonic()
    try:
        if asked.profile:
            return _profile(asked)
        rows = _rows(asked)
    except rig.BenchFailed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    machine["took"] = f"{time.monotonic() - started_s:.0f} s"
    print(table(rows))
    if asked.json:
        asked.json.write_bytes(orjson.dumps(as_json(rows, machine), option=orjson.OPT_INDENT_2))
    if asked.keep and asked.parts == ("growth",):
        (HERE / "growth.json").write_bytes(orjson.dumps(as_json(rows, machine), option=orjson.OPT_INDENT_2) + b"\n")
        servers = f"--servers {','.join(asked.servers)} " if asked.servers else ""
        told = f"--parts growth {servers}--repeat {asked.repeat} --keep"
        (HERE / "GROWTH.md").write_text(page(rows, machine, growth.NOTES, told))
    elif asked.keep:
        (HERE / "results.json").write_bytes(orjson.dumps(as_json(rows, machine), option=orjson.OPT_INDENT_2) + b"\n")
        (HERE / "RESULTS.md").write_text(page(rows, machine, (*NOTES, *(rate.NOTES if "rate" in asked.parts else ()))))
    return 0 if not any(row.what == "broken rules" and row.value for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--parts", type=_words(KNOWN), default=PARTS, help=f"comma list of {', '.join(KNOWN)}")
    parser.add_argument("--servers", type=_words(("valkey", "redis")), help="comma list of valkey, redis; default all")
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of what is repeated; the notes tell what counts of them"
    )
    parser.add_argument("--lanes", type=int, default=20, help="accounts of the throughput part")
    parser.add_argument("--intents", type=int, default=20_000, help="intents of each throughput run")
    parser.add_argument("--durable", action="store_true", help="servers with AOF, fsync always")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--keep", action="store_true", help="also write RESULTS.md and results.json beside this file")
    parser.add_argument("--peers", type=_words(PEERS), default=PEERS, help=f"part peers: of {', '.join(PEERS)}")
    parser.add_argument("--loads", type=_words(LOADS), default=LOADS, help=f"part peers: of {', '.join(LOADS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="part peers: shrinks every load, to try things out")
    parser.add_argument("--missing", action="store_true", help="part peers: only what peers.json does not have yet")
    parser.add_argument("--render", action="store_true", help="part peers: only PEERS.md and plots, from peers.json")
    parser.add_argument("--axes", type=_words(growth.AXES), default=growth.AXES, help=f"of {', '.join(growth.AXES)}")
    parser.add_argument(
        "--most", type=int, default=1000, help="growth: thousandths of each axis' length to go; 1000: all"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="growth: how long idle and lone lanes are watched")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="only a throughput run under cProfile, as text")
    return parser.parse_args()


def _peers(asked: argparse.Namespace) -> int:
    """The part that has a record and a page of its own, and is therefore played without the others."""
    try:
        if asked.render:
            return peers.render()
        return peers.run(peers.Wanted(asked.peers, asked.loads, asked.repeat, asked.scale, asked.keep, asked.missing))
    except rig.BenchFailed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1


def _words(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        if strange := set(words) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(strange)}; known are {', '.join(known)}")
        return words

    return read


def _rows(asked: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for name, start in rig.servers(asked.durable).items():
        if asked.servers and name not in asked.servers:
            continue
        with start() as server:
            for part in asked.parts:
                print(f"{part} on {server.name} …", file=sys.stderr, flush=True)
                match part:
                    case "enqueue":
                        rows += enqueue.measure(server, asked.repeat)
                    case "throughput":
                        rows += throughput.measure(server, asked.repeat, asked.lanes, asked.intents)
                    case "growth":
                        wanted = growth.sizes(asked.axes, asked.most, asked.intents, asked.seconds, asked.repeat)
                        rows += growth.measure(server, wanted)
                    case "rate":
                        rows += rate.measure(server)
                    case _:
                        rows += latency.measure(server)
    return rows


def _profile(asked: argparse.Namespace) -> int:
    """The worker's functions by their own time, then by all that they called."""
    text = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="cancelq-bench-") as folder:
        raw = Path(folder) / "profile"
        with rig.servers(asked.durable)["valkey"]() as server:
            throughput.profile(server, asked.lanes, asked.intents, raw)
        stats = pstats.Stats(str(raw), stream=text).strip_dirs()
        stats.sort_stats("tottime").print_stats(40)
        stats.sort_stats("cumtime").print_stats(60)
    asked.profile.write_text(text.getvalue())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
