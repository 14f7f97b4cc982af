"""One run: a venue, three workers and a producer on a cleared server, one load, and everything that is left of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson
import rig
from redis import Redis
from rig import Server, Venue

from cancelq_worker.roster import ROSTER
from cancelq_worker.settings_origin import PREFIX
from peers.desk.plan import PLAN
from peers.environments import python_of
from peers.figures import figures
from peers.loads import load, orders_needed
from peers.processes import Program, program
from peers.roster import WHOLE, WORKERS, Row
from peers.traces import LANE
from peers.watching import Stage, watch

ACCOUNT = LANE.account
HERE = Path(__file__).parents[1]  # what `peers` is imported from
WAY_MS = (10, 30)  # each way, drawn evenly for each call
READY_S = 60.0


def play(row: Row, name: str, server: Server, seed: int, scale: float) -> dict[str, Any]:
    """The figures of one run. Raises `rig.BenchFailed` if its processes do not start."""
    with ExitStack() as stack:
        redis = stack.enter_context(server.client())
        rig.clear(redis)
        venue = stack.enter_context(_venue())
        orders = venue.orders(ACCOUNT, orders_needed(name, row.single, scale))
        wanted = load(name, orders, Random(seed))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cancelq-peers-")))
        (folder / PLAN).write_bytes(orjson.dumps([asdict(step) for step in wanted.steps]))
        workers = stack.enter_context(_desk(row, name, server, venue, folder, redis))
        return figures(watch(Stage(row, server, venue, redis, folder, wanted, workers)), wanted)


@contextmanager
def _venue() -> Iterator[Venue]:
    """The simulator with Bitget's own limits, and a network before it."""
    with rig.venue() as venue:
        settings = {"limits": {}, "latency_before_ms": WAY_MS, "latency_after_ms": WAY_MS}
        httpx.post(f"{venue.url}/sim/settings", json=settings, trust_env=False).raise_for_status()
        venue.open_account(ACCOUNT)
        yield venue


# -- the desk's processes ------------------------------------------------------------------------------------------


@contextmanager
def _desk(row: Row, name: str, server: Server, venue: Venue, folder: Path, redis: Redis) -> Iterator[list[Program]]:
    """Workers that take work, and beside them a producer that waits for its sign."""
    python = str(python_of(row.peer))
    env = {
        **_environment(row, server, venue, folder),
        **(_cancelq(row, server, venue) if row.peer == "cancelq" else {}),
    }
    with ExitStack() as stack:
        workers = []
        for number in range(WORKERS):
            words = [word.replace("{n}", str(number)) for word in row.worker]
            workers.append(stack.enter_context(program([python, *words], env, folder / f"worker-{number}.log")))
        for worker in workers:
            _ready(worker, partial(_takes_work, row, worker, redis))
        if row.producer:
            command = [python, "-m", "peers.desk.produce", row.producer]
            producer = stack.enter_context(program(command, env, folder / "producer.log"))
            _ready(producer, partial(producer.says, "ready"))
        yield workers


def _ready(program: Program, ready: Callable[[], bool]) -> None:
    try:
        rig.wait_for("a peer's process", ready, program.process, READY_S)
    except rig.BenchFailed as failure:
        last = program.log.read_text(errors="replace").splitlines()[-8:]
        raise rig.BenchFailed("\n".join([str(failure), *last])) from failure


def _takes_work(row: Row, worker: Program, redis: Redis) -> bool:
    if row.ready:
        return worker.says(row.ready)
    return int(redis.zcard(ROSTER)) >= WORKERS and bool(redis.exists(LANE.inbox))


def _environment(row: Row, server: Server, venue: Venue, folder: Path) -> dict[str, str]:
    keys = rig.credentials(ACCOUNT)
    return {
        "PYTHONPATH": str(HERE),
        "PYTHONUNBUFFERED": "1",
        "DESK_ROW": row.row,
        "DESK_REDIS": server.url,
        "DESK_VENUE": venue.url,
        "DESK_KEY": keys["key"],
        "DESK_SECRET": keys["secret"],
        "DESK_PASSPHRASE": keys["passphrase"],
        "DESK_FOLDER": str(folder),
    }


def _cancelq(row: Row, server: Server, venue: Venue) -> dict[str, str]:
    keys, account = rig.credentials(ACCOUNT), f"{PREFIX}ACCOUNTS__BITGET__{ACCOUNT.upper()}__"
    return {
        f"{PREFIX}REDIS_URL": server.url,
        **({f"{PREFIX}URGENT_RESERVE": "0"} if row.row == WHOLE else {}),
        f"{account}API_KEY": keys["key"],
        f"{account}API_SECRET": keys["secret"],
        f"{account}PASSPHRASE": keys["passphrase"],
        f"{account}BASE_URL": venue.url,
        f"{account}WS_URL": f"ws{venue.url.removeprefix('http')}/v2/ws/private",
    }
