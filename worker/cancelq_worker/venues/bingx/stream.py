"""BingX's spot account stream: a listen key, frames that are gzip, one subscription.

Source: BingX API documentation, "Generate Listen Key" (valid for an hour, extended every half) and "Order update"; the
spot server sends a JSON ping, the swap one a text: both are answered. A frame names the order id, as a number or as
text, and no client id; how a trigger order that fired shows is documented nowhere, so those are looked up. An address
may have 60 connections open; how many it may open in a time is documented nowhere.
"""

from __future__ import annotations

import gzip
import io
import re
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson

from cancelq_worker.venues.bingx import rows
from cancelq_worker.venues.port import Answer, Bucket, Frame, Push, Request, Word
from cancelq_worker.venues.reading import object_of, payload, word

KEYS: Final = "/openApi/user/auth/userDataStream"
TOPIC: Final = "spot.executionReport"
FRAME_MOST: Final = 1024 * 1024
SOCKETS: Final = Bucket("bingx-sockets", 48, 0, rare=True, shared=True)
_KEY = re.compile(r"[A-Za-z0-9_-]{16,256}", re.ASCII)


class BingxStream:
    """One account's stream. The listen key stands in the address: neither is ever logged."""

    ping_every_s = 0.0  # the venue does the asking
    silent_most_s = 60.0
    renew_every_s = 1_500.0
    connects = ""
    sockets = SOCKETS.name

    def key_request(self) -> Request | None:
        return Request("POST", KEYS)

    def read_key(self, answer: Answer) -> str:
        body = payload(answer) or {}
        inner = body.get("data")
        key = word(body, "listenKey") or (word(inner, "listenKey") if isinstance(inner, dict) else "")
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"no listen key: HTTP {answer.status} {word(body, 'code', 16)} {word(body, 'msg')}".strip()
            )
        return key

    def renew_request(self, key: str) -> Request | None:
        return Request("PUT", KEYS, f"listenKey={quote(key, safe='')}")

    def address(self, ws_url: str, key: str) -> str:
        return f"{ws_url}?listenKey={quote(key, safe='')}"

    def hello(self, now_ms: int) -> list[str]:
        return [_say({"id": str(uuid.uuid4()), "reqType": "sub", "dataType": TOPIC})]

    def ping(self, now_ms: int) -> str:
        return ""

    def read(self, frame: str | bytes) -> Frame:
        text = _unpacked(frame)
        if text == b"Ping":
            return Frame(send=["Pong"])
        message = object_of(text)
        if message is None:
            return Frame()
        if "ping" in message:
            return Frame(send=[_say({"pong": word(message, "ping"), "time": word(message, "time")})])
        if message.get("e") == "listenKeyExpired":
            return Frame(refused="the listen key has expired")
        data = message.get("data")
        if message.get("dataType") == TOPIC and isinstance(data, dict) and data:
            push = _push(data)
            return Frame(pushes=[push] if push else [])
        code = word(message, "code", 16)
        if "id" not in message or not code:
            return Frame()
        return Frame(live=True) if code == "0" else Frame(refused=f"{code} {word(message, 'msg')}".strip())


def _say(message: Mapping[str, Any]) -> str:
    return orjson.dumps(message).decode()


def _unpacked(frame: str | bytes) -> bytes:
    """A frame's text, bounded; b"" if it cannot be had."""
    if isinstance(frame, str):
        return frame.encode()
    if not frame.startswith(b"\x1f\x8b"):
        return frame
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(frame)) as packed:
            text = packed.read(FRAME_MOST + 1)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""
    return text if len(text) <= FRAME_MOST else b""


def _push(data: Mapping[str, Any]) -> Push | None:
    row = {
        "symbol": data.get("s"), "orderId": data.get("i"), "status": data.get("X"), "executedQty": data.get("z"),
        "type": data.get("o"),
    }  # fmt: skip
    order_id, symbol = rows.order_id_of(row), word(row, "symbol", 48)
    if not order_id:
        return None
    meant = rows.state_of(row)
    if meant is Word.FILLED and rows.kind_of(row) != "order":
        meant = Word.UNCLEAR
    reply = rows.said_of(row, meant, place="stream")
    return Push(rows.order_keys(symbol, order_id, ""), reply)
