"""Bybit's private order stream: auth, and the topic `order` for spot.

Source: Bybit API documentation v5, websocket "Connect" and "Order". A cancel that was accepted and lost against a fill
shows as a second `Filled` with `cancelType` CancelByUser: `orderStatus` alone decides. An address may open 500
connections in five minutes; how many it may have open is documented nowhere.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

import orjson

from cancelq_worker.venues.bybit import looks
from cancelq_worker.venues.bybit.signing import Credentials
from cancelq_worker.venues.port import Answer, Bucket, Frame, Push, Request, Word
from cancelq_worker.venues.reading import object_of, row_id, rows_of, word

TOPIC: Final = "order.spot"
TOPICS: Final = ("order", TOPIC)
AUTH_LIVES_MS: Final = 10_000  # how far ahead of the venue's clock the login's expiry is
CONNECTS: Final = Bucket("bybit-connects", 400, 300_000_000, rare=True, shared=True)


class BybitStream:
    """One account's stream."""

    ping_every_s = 20.0
    silent_most_s = 50.0  # every ping is answered
    renew_every_s = 0.0
    connects = CONNECTS.name
    sockets = ""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def key_request(self) -> Request | None:
        return None

    def read_key(self, answer: Answer) -> str:
        raise ValueError("Bybit's stream has no key of its own")

    def renew_request(self, key: str) -> Request | None:
        return None

    def address(self, ws_url: str, key: str) -> str:
        return ws_url

    def hello(self, now_ms: int) -> list[str]:
        expires = now_ms + AUTH_LIVES_MS
        secret = self._credentials.secret.get_secret_value().encode()
        sign = hmac.new(secret, f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
        return [_say("auth", self._credentials.key.get_secret_value(), expires, sign)]

    def ping(self, now_ms: int) -> str:
        return _say("ping")

    def read(self, frame: str | bytes) -> Frame:
        message = object_of(frame)
        if message is None:
            return Frame()
        if "topic" in message:
            rows = rows_of(message.get("data")) if message["topic"] in TOPICS else []
            return Frame(pushes=[push for push in map(_push, rows) if push])
        op, success = message.get("op"), message.get("success")
        if op in ("auth", "subscribe") and success is False:
            return Frame(refused=word(message, "ret_msg") or f"{op} was refused")
        if op == "auth" and success is True:
            return Frame(send=[_say("subscribe", TOPIC)])
        return Frame(live=op == "subscribe" and success is True)


def _say(op: str, *args: str | int) -> str:
    return orjson.dumps({"op": op, "args": args} if args else {"op": op}).decode()


def _push(row: dict[str, Any]) -> Push | None:
    order_id, client_id = row_id(row, "orderId"), row_id(row, "orderLinkId")
    if not order_id or word(row, "category") not in ("", "spot"):
        return None
    reply = looks.row_reply(row)
    reply.place = "stream"
    scopes: tuple[str, ...] = looks.SCOPES
    if reply.word is Word.TRIGGERED:
        # It goes on under its own id, as a normal order: only who meant the trigger is told that it fired.
        scopes, reply.child_order_id = ("tpsl", "stop"), order_id
    keys = [key for scope in scopes for key in looks.order_keys(scope, word(row, "symbol", 32), order_id, client_id)]
    return Push(tuple(keys), reply)
