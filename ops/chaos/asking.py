"""Producers: intents of every kind, some twice; an uncertain one is sent again under its id."""

from __future__ import annotations

import asyncio
import random

import redis.asyncio as aioredis
from redis.exceptions import RedisError, ResponseError

from ops.chaos.world import Desk, client
from ops.checks import Ask

Fields = dict[str, str]


async def produce(desk: Desk, rng: random.Random, url: str, stop: asyncio.Event, per_s: float) -> None:
    """Asks until told to stop."""
    redis, recent = client(url), list[Fields]()
    try:
        while not stop.is_set():
            fields = next_intent(desk, rng, recent)
            await add(desk, redis, fields)
            if "id" in fields:
                recent.append(fields)
            await asyncio.sleep(rng.expovariate(per_s))
    finally:
        await redis.aclose()


def next_intent(desk: Desk, rng: random.Random, recent: list[Fields]) -> Fields:
    """The next entry to be queued; what it means is noted in the desk's `asks`."""
    return _repeat(desk, rng, recent) or _intent(desk, rng)


def _repeat(desk: Desk, rng: random.Random, recent: list[Fields]) -> Fields | None:
    """One of the last intents again, a few of them with another order under the same id."""
    if not recent or rng.random() > 0.1:
        return None
    fields = dict(rng.choice(recent[-200:]))
    if rng.random() < 0.2 and "order_id" in fields and fields.get("scope", "order") == "order":
        fields["order_id"] = desk.new_order()
        desk.asks[fields["id"]].spared += (fields["order_id"],)
    return fields


def _intent(desk: Desk, rng: random.Random) -> Fields:
    desk.sent += 1
    fields, ask = _of_kind(desk, rng, 1.0 if desk.plain and rng.random() < desk.plain else rng.random())
    if rng.random() < 0.1 and "not_before_ms" not in fields:
        fields["priority"] = "urgent"
    fields["x_n"] = str(desk.sent)
    if rng.random() < 0.6 or "id" in fields or ask.target:
        fields.setdefault("id", f"c-{desk.sent}")
    # Without an id of its own the intent is found by its number.
    desk.asks[fields.get("id") or f"n:{desk.sent}"] = ask
    return fields


def _of_kind(desk: Desk, rng: random.Random, draw: float) -> tuple[Fields, Ask]:
    n, base = desk.sent, {"symbol": desk.place.spelt("BTC")}
    if draw < 0.10:
        order = desk.new_order(client_id=f"mine{n}")
        return {**base, "client_order_id": f"mine{n}"}, Ask((order,))
    if draw < 0.16:
        order = desk.new_order("tpsl")
        return {**base, "scope": "tpsl", "order_id": order}, Ask((order,))
    if draw < 0.23:
        order = desk.new_order("plan", client_id=f"plan{n}")
        named = {"client_order_id": f"plan{n}"} if draw < 0.19 else {"order_id": order}
        return {**base, "scope": "stop", **named}, Ask((order,))
    if draw < 0.25:
        return {**base, "order_id": str(10**17 + n)}, Ask(unknown=True)
    if draw < 0.33:
        timed = _timed(desk, rng, draw)
        if timed is not None:
            return timed
    if draw < 0.335:
        return _sweep(desk, rng)
    if draw < 0.345:
        return {"symbol": "BTC/USDT", "order_id": "1"}, Ask()
    symbol = desk.place.spelt(rng.choice(["BTC", "ETH"]))
    order = desk.new_order(symbol=symbol)
    return {"symbol": symbol, "order_id": order}, Ask((order,))


def _timed(desk: Desk, rng: random.Random, draw: float) -> tuple[Fields, Ask] | None:
    """What expires, what waits, and the withdrawal of what waits."""
    now_ms, base = desk.now_ms(), {"symbol": desk.place.spelt("BTC")}
    if draw < 0.28:
        order = desk.new_order()
        return {**base, "order_id": order, "expires_at_ms": str(now_ms + rng.randrange(3000))}, Ask((order,))
    if draw < 0.31:
        order = desk.new_order()
        due = str(now_ms + rng.randrange(500, 6000))
        return {**base, "order_id": order, "id": f"t-{desk.sent}", "not_before_ms": due}, Ask((order,))
    waiting = [i for i in desk.asks if i.startswith("t-")][-3:]
    if not waiting:
        return None
    target = rng.choice(waiting)
    return {"scope": "revoke", "target": target}, Ask(target=target)


def _sweep(desk: Desk, rng: random.Random) -> tuple[Fields, Ask]:
    """All orders of a pair that nothing else uses: as one bulk call, with triggers, by prefix, by age."""
    symbol = desk.new_pair()
    orders = [desk.new_order(symbol=symbol, client_id=f"in{desk.pair}x{k}") for k in range(rng.randrange(1, 12))]
    fields = {"scope": "symbol", "symbol": symbol}
    match desk.pair % 4:
        case 1:
            orders += [desk.new_order("plan", symbol=symbol) for _ in range(3)]
            return {**fields, "kinds": "order,stop"}, Ask(tuple(orders))
        case 2:
            others = [desk.new_order(symbol=symbol, client_id=f"out{desk.pair}x{k}") for k in range(3)]
            return {**fields, "client_prefix": "in"}, Ask(tuple(orders), tuple(others))
        case 3:
            before = str(desk.now_ms() - 1000)
            newer = [desk.new_order(symbol=symbol, age_ms=0) for _ in range(3)]
            return {**fields, "older_than_ms": before}, Ask(tuple(orders), tuple(newer))
        case _:
            return fields, Ask(tuple(orders))


async def add(desk: Desk, redis: aioredis.Redis, fields: Fields) -> None:
    """Queues one entry, however often that takes; what the server said is noted in the desk."""
    flat = [word for pair in fields.items() for word in pair]
    for _ in range(100):
        try:
            entry = await redis.execute_command("XADD", desk.lane.inbox, "NOMKSTREAM", "*", *flat)  # type: ignore[no-untyped-call]
        except ResponseError:
            desk.refused_adds += 1  # memory full, or loading: surely not taken
            await asyncio.sleep(0.2)
        except (RedisError, OSError):
            await asyncio.sleep(0.2)
            if "id" not in fields:
                return  # uncertain, and not to be repeated: the inbox will tell
        else:
            if entry is not None:
                desk.acknowledged.append(entry.decode())
                return
            await asyncio.sleep(0.1)
