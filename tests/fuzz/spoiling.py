"""Hostile values, and valid answers with something wrong in them. One source of chance decides everything."""

from __future__ import annotations

import gzip
import json
import zlib
from random import Random
from typing import Any

import orjson

DEEP = 1_200
HOSTILE_TEXTS = (
    "", " ", "0", "-1", "1e5", "null", "true", "NaN", "filled", "FILLED", "cancelled", "CANCELED", "Cancelled", "live",
    "New", "Triggered", "executed", "00000", "²", "١٢٣", "Ω", "\x00", "a\x00b", "\r\nSET x 1\r\n", "../../etc/passwd",
    "\x1b[2J\x1b]0;x\x07", "\x9b2J", "\u202e\u2066", "\ufeff", "\uff46illed", "cancelled ", " cancelled", "9" * 400,
    "x" * 3_000, "c\u0430ncelled", "BTC\u200bUSDT",
    "1" + "0" * 31, "18446744073709551616", "-0", "+5", "0x10", "1_000", "1.0", "https://x/?signature=abc",
    "order status :CANCELED", "order not exist", "system is busy", "1700000000000", "9999999999999", "spot", "linear",
)  # fmt: skip
HOSTILE_NUMBERS = (
    0, -1, 1, 10**15, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**40, 1.5, 1e300, -0.0, 1e-300, 1.7e18,
)  # fmt: skip
STATUSES = (200,) * 36 + (201, 204, 301, 302, 400, 400, 401, 403, 404, 408, 418, 429, 500, 502, 503, 504)
NOISE = (
    b"", b" ", b"null", b"true", b"[]", b"{}", b'""', b"0", b"NaN", b"[{}]", b"\xff\xfe", b"\x00" * 9, b'{"code":',
    b'{"code":"00000","data":[]}x', b'{"retCode":0', b"<html><body>Just a moment...</body></html>", b"[" * 2_000,
    b'{"a":' * 2_000, b"\xef\xbb\xbf{}", b'{"code":0}{"code":0}', b'{"code":0,"data":{}}', b"1" * 5_000,
    b'{"code":"00000","msg":"\xff"}', b'{"code":"\\ud800"}', b"Ping", b"ping", b"pong", b"\x1f\x8b",
    b"\x1f\x8b\x08\x00",
)  # fmt: skip
BOMB = gzip.compress(b"0" * 8_000_000)


def hostile(rng: Random) -> Any:
    """Some value that nobody expects."""
    match rng.randrange(12):
        case 0:
            return rng.choice((None, True, False))
        case 1 | 2:
            return rng.choice(HOSTILE_NUMBERS)
        case 3:
            return rng.choice(([], {}, [[]], [None], [{}], {"list": None}, {"orderList": []}, {"orders": [{}]}))
        case 4:
            return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xD7FF)))) for _ in range(8))
        case 5 if rng.random() < 0.04:
            return nested(rng.choice((3, 300, 950, 990, 1_005, 1_015, DEEP)), rng.random() < 0.5)
        case _:
            return rng.choice(HOSTILE_TEXTS)


def nested(depth: int, lists: bool) -> Any:
    """Something that deep."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value


def spoil(rng: Random, body: Any, words: tuple[Any, ...]) -> Any:
    """The body, changed in place where it can be, in up to four of its places. `words`: what the venue itself would
    write, at other places."""
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 2, 3, 4))):
        places = _places(body)
        if not places:
            return hostile(rng)
        parent, at = rng.choice(places)
        _change(rng, parent, at, places, words)
    return body


def _change(rng: Random, parent: Any, at: Any, places: list[tuple[Any, Any]], words: tuple[Any, ...]) -> None:
    match rng.randrange(10):
        case 0:
            parent[at] = hostile(rng)
        case 1 | 2:
            parent[at] = rng.choice(words)
        case 3:
            del parent[at]
        case 4:
            parent[at] = _other_type(parent[at])
        case 5:
            _repeat(rng, parent, at, words)
        case 6:
            other, there = rng.choice(places)
            parent[at], other[there] = _copy(other[there]), _copy(parent[at])
        case 7 if isinstance(parent, dict):
            name = rng.choice((str(at).upper(), f"{at} ", *parent))
            parent[name] = parent.pop(at)
        case 8 if isinstance(parent, list):
            rng.shuffle(parent)
        case _:
            start = "" if isinstance(parent[at], dict | list) else str(parent[at])[: rng.randrange(30)]
            parent[at] = rng.choice(([parent[at]], {"list": parent[at]}, start))


def _repeat(rng: Random, parent: Any, at: Any, words: tuple[Any, ...]) -> None:
    """The same once more, perhaps otherwise in one place."""
    again = _copy(parent[at])
    if isinstance(again, dict) and again and rng.random() < 0.7:
        again[rng.choice(list(again))] = rng.choice(words)
    if isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), again)
    else:
        parent[at] = [parent[at], again]


def _other_type(value: Any) -> Any:
    match value:
        case bool() | None:
            return str(value)
        case int():
            return str(value)
        case float():
            return int(value) if abs(value) < 1e18 else 0
        case str():
            return int(value) if value.isascii() and value.lstrip("-").isdigit() and len(value) < 19 else [value]
        case list():
            return {str(n): item for n, item in enumerate(value)}
        case _:
            return list(value.values())


def _copy(value: Any) -> Any:
    """Of its own, so that no change shows in two places; what is deep is shared, and never changed."""
    try:
        return orjson.loads(orjson.dumps(value))
    except (TypeError, ValueError):
        return 7


def _places(value: Any, most: int = 400) -> list[tuple[Any, Any]]:
    """Places in it, each as its parent and where in that; not all of a long list, and not too deep."""
    found: list[tuple[Any, Any]] = []
    level = [value]
    for _ in range(8):
        below = []
        for one in level:
            items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
            for at, item in items:
                found.append((one, at))
                if isinstance(item, dict | list):
                    below.append(item)
            if len(found) > most:
                return found
        level = below
    return found


def written(rng: Random, body: Any) -> bytes:
    """The body as bytes, one in eight of them not as it should be."""
    try:
        whole = orjson.dumps(body)
    except (TypeError, ValueError):
        try:
            whole = json.dumps(body).encode(errors="surrogatepass")
        except (RecursionError, ValueError):
            whole = b"[" * DEEP + b"]" * DEEP
    match rng.randrange(56):
        case 0 | 1:
            return whole[: rng.randrange(len(whole) + 1)]
        case 2:
            at = rng.randrange(len(whole) + 1)
            return whole[:at] + bytes(rng.randrange(256) for _ in range(3)) + whole[at + rng.randrange(4) :]
        case 3:
            return rng.choice(NOISE)
        case 4:
            return gzip.compress(whole) if rng.random() < 0.9 else zlib.compress(whole)
        case 5:
            return whole.decode(errors="replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
        case 6:
            return BOMB if rng.random() < 0.05 else whole + whole
        case _:
            return whole
