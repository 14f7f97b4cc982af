"""Bitget's private order stream: login, the channels `orders` (normal orders) and `orders-algo` (trigger orders).

Source: Bitget API documentation, websocket "Login", "Order Channel", "Trigger Order Channel"; the login's time stamp is
in seconds, as in Bitget's own example and in ccxt, whatever its text says. Pushes can be lost (FAQ, Q15). An address
may open 300 connections in five minutes, and have 100 open.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from cancelq_worker.venues.bitget import looks, signing
from cancelq_worker.venues.port import Answer, Bucket, Frame, Push, Reply, Request, Word
from cancelq_worker.venues.reading import filled, object_of, rows_of, safe_id, word

ORDERS: Final = "orders"
ALGO: Final = "orders-algo"
CONNECTS: Final = Bucket("bitget-connects", 240, 300_000_000, rare=True, shared=True)
SOCKETS: Final = Bucket("bitget-sockets", 80, 0, rare=True, shared=True)


class BitgetStream:
    """One account's stream."""

    ping_every_s = 25.0  # the venue closes a connection that sends none for two minutes
    silent_most_s = 65.0  # every ping is answered
    renew_every_s = 0.0
    connects = CONNECTS.name
    sockets = SOCKETS.name

    def __init__(self, credentials: signing.Credentials) -> None:
        self._credentials = credentials

    def key_request(self) -> Request | None:
        return None

    def read_key(self, answer: Answer) -> str:
        raise ValueError("Bitget's stream has no key of its own")

    def renew_request(self, key: str) -> Request | None:
        return None

    def address(self, ws_url: str, key: str) -> str:
        return ws_url

    def hello(self, now_ms: int) -> list[str]:
        return [_say("login", signing.login(self._credentials, now_ms // 1000))]

    def ping(self, now_ms: int) -> str:
        return "ping"

    def read(self, frame: str | bytes) -> Frame:
        message = object_of(frame)
        if message is None:
            return Frame()
        arg = message.get("arg")
        channel = word(arg, "channel") if isinstance(arg, dict) else ""
        match message.get("event"):
            case "login":
                return Frame(send=[_subscription()])
            case "subscribe":
                return Frame(live=channel == ORDERS)
            case "error" if channel == ALGO:
                return Frame()  # trigger orders are looked up then
            case "error":
                return Frame(refused=f"{word(message, 'code', 16)} {word(message, 'msg')}".strip())
            case _:
                pass
        pushes = [_push(channel, row) for row in rows_of(message.get("data"))] if channel in (ORDERS, ALGO) else []
        return Frame(pushes=[push for push in pushes if push])


def _say(op: str, *args: dict[str, str]) -> str:
    return orjson.dumps({"op": op, "args": args}).decode()


def _subscription() -> str:
    every = {"instType": "SPOT", "instId": "default"}
    return _say("subscribe", {**every, "channel": ORDERS}, {**every, "channel": ALGO})


def _push(channel: str, row: dict[str, Any]) -> Push | None:
    order_id, client_id = word(row, "orderId", 64), safe_id(word(row, "clientOid"))
    state = word(row, "status", 40)
    if not looks.is_order_id(order_id):
        return None
    scopes = ("order",) if channel == ORDERS else ("tpsl", "stop")
    keys = [f"{scope}:i:{order_id}" for scope in scopes]
    if client_id:
        keys += [f"{scope}:c:{word(row, 'instId', 32)}:{client_id}" for scope in scopes]
    reply = Reply(
        looks.STATES.get(state.lower(), Word.UNCLEAR),
        order_id=order_id,
        client_order_id=client_id,
        venue_state=state,
        filled=filled(word(row, "accBaseVolume")),
        place="stream",
    )
    return Push(tuple(keys), reply)
