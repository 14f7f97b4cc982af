"""Every way a secret may be spelt where it leaks: as it is, encoded, escaped, backwards, or only a part of it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

#: Characters of a part that gives a secret away: a log that cuts a line short may hold no more. Such a part is found by
#: the pieces of it that are searched for.
PART, PIECE = 12, 8


def spellings(secret: str) -> dict[str, set[bytes]]:
    """The secret's spellings by the name of their form. Searching for all of a form finds the secret in that form
    wherever it begins."""
    raw = secret.encode()
    return {
        "plain": {raw},
        "part": set(_pieces(raw)),
        "base64": set(_base64(raw, b"+/")),
        "base64url": set(_base64(raw, b"-_")),
        "hex": {raw.hex().encode()},
        "HEX": {raw.hex().upper().encode()},
        "percent": set(_percent(secret)),
        "percent, every byte": {_every(raw, "%%%02X"), _every(raw, "%%%02x")},
        "json": set(_json(secret)),
        "json, every character": {_every(raw, "\\u%04x"), _every(raw, "\\u%04X")},
        "html": {html.escape(secret).encode(), html.escape(secret, quote=False).encode()},
        "repr": {repr(secret)[1:-1].encode(), repr(raw)[2:-1].encode(), _every(raw, "\\x%02x")},
        "reversed": {raw[::-1]},
    }


def _pieces(raw: bytes) -> Iterator[bytes]:
    """At least one of them is in each part of the secret."""
    for at in range(0, len(raw) - PIECE + 1, PART - PIECE + 1):
        yield raw[at : at + PIECE]


def _base64(raw: bytes, more: bytes) -> Iterator[bytes]:
    """What of the encoding does not depend on the bytes around it, at each of the three places it may begin at."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw, altchars=more)
        first = -(-before * 8 // 6)
        last = (before + len(raw)) * 8 // 6
        yield whole[first:last]


def _percent(secret: str) -> Iterator[bytes]:
    for made in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield made.encode()
        yield _lower_hex(made).encode()


def _lower_hex(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


def _json(secret: str) -> Iterator[bytes]:
    for made in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield made.encode()
        yield made.replace("/", "\\/").encode()
        yield json.dumps(made)[1:-1].encode()  # a JSON text inside another, as in a log line


def _every(raw: bytes, form: str) -> bytes:
    return "".join(form % byte for byte in raw).encode()
