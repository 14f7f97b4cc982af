"""The kill switch in the middle of it (12): real `cancelq kill` commands, and what the venue has open when they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

from ops.chaos.asking import add, next_intent
from ops.chaos.workers import CANCELQ, outside_env
from ops.chaos.world import Desk, World, client
from ops.checks import Ask, Told

_KINDS = {"order": "order", "tpsl": "tpsl", "stop": "plan"}
#: Kills that are under way end on their own within this; the command's own limit is shorter.
WITHIN_S = 60
OK, UNHEALTHY, UNREACHABLE = 0, 1, 69
#: Promised are as many windows as the calls need, and a second; a busy machine gets more.
ALLOWED_S = 10.0


async def use_kill_switch(world: World) -> None:
    """Empties a pair of its own while everything fails. Exit 0 must mean that nothing is open; it may also fail
    aloud."""
    desk = world.rng.choice(world.desks)
    symbol = _filled_pair(world, desk)
    code, _ = await _kill(world, desk, symbol)
    world.did(f"kill switch: exit {code}")
    if code == OK:
        _judge_empty(world, desk, symbol)
    elif code not in (UNHEALTHY, UNREACHABLE):
        world.tell("12", f"kill of {symbol} ended with {code}")


async def kill_behind_a_backlog(world: World, orders: int = 60) -> None:
    """A kill at each venue when nothing fails, while cancels for five seconds wait: it ends well, and in time."""
    for desk in world.desks:
        if desk.lane in world.closed_s:
            continue
        redis = client(world.url)
        for _ in range(int(5 * desk.place.per_s)):
            await add(desk, redis, next_intent(desk, world.rng, []))
        await redis.aclose()
        symbol = _filled_pair(world, desk, orders)
        code, took_s = await _kill(world, desk, symbol)
        world.measured(f"kill of {orders} orders behind a backlog, {desk.lane.venue}", took_s * 1000)
        if code != OK:
            world.tell("12", f"kill of {symbol} ended with {code} though nothing failed")
        else:
            _judge_empty(world, desk, symbol)
        if took_s > ALLOWED_S:
            world.tell("12", f"kill of {orders} orders of {symbol} took {took_s:.1f} s, {ALLOWED_S} s are allowed")


def know_kills(desk: Desk, told: Told) -> None:
    """Notes what the intents of kills meant: each order of their pair and kinds that was there when they were queued. A
    trigger that fired meanwhile left a newer one, which is the next round's."""
    rows = desk.simulator.truth(venue=desk.lane.venue).entries
    for id_, entries in told.intents.items():
        fields = entries[0].fields
        if id_.startswith("kill-") and fields.get("reason") == "kill":
            kinds = {_KINDS[kind] for kind in fields.get("kinds", "order").split(",")}
            of_pair = [row for row in rows if row["symbol"] == fields.get("symbol") and row["kind"] in kinds]
            meant = [row["order_id"] for row in of_pair if row["created_us"] < entries[0].queued_us]
            desk.asks[id_] = Ask(tuple(meant))


def _filled_pair(world: World, desk: Desk, orders: int | None = None) -> str:
    symbol = desk.new_pair()
    for _ in range(orders or world.rng.randrange(1, 30)):
        desk.new_order(symbol=symbol)
    for _ in range(2):
        desk.new_order("plan", symbol=symbol)
    return symbol


async def _kill(world: World, desk: Desk, symbol: str) -> tuple[int, float]:
    """The exit status, and the seconds it took by its own account; one that hangs is a broken promise and is ended."""
    said = world.folder / f"kill-{desk.lane.venue}-{symbol}.log"
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *CANCELQ, "kill", str(desk.lane), "--symbol", symbol, "--yes", "--json", "--timeout", "30",
            env=outside_env() | {"CANCELQ_REDIS_URL": world.url},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            code = await asyncio.wait_for(process.wait(), WITHIN_S)
        except TimeoutError:
            world.tell("12", f"kill of {symbol} did not end within {WITHIN_S} s")
            process.kill()
            code = await process.wait()
    return code, _took_s(said)


def _judge_empty(world: World, desk: Desk, symbol: str) -> None:
    left = desk.left_open(symbol)
    if left:
        world.tell("12", f"kill of {symbol} ended with 0, and {left} are open")


def _took_s(said: Path) -> float:
    for line in said.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return float(json.loads(line)["took_ms"]) / 1000
    return 0.0
