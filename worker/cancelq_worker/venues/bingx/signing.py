"""BingX's signature: hex HMAC-SHA256 over all parameters but itself, sorted by name, values as they are before
percent-encoding.

Source: BingX API documentation, "Signature authentication"; ccxt signs the same way. Everything travels in the query.
Neither path nor method is signed, so a signed query is as good as a cancel for a few seconds: it is never logged.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, quote

from pydantic import SecretStr

from cancelq_worker.venues.port import Request, Signed

#: How far, in ms, a call's time stamp may be from the venue's clock. BingX allows no more.
RECV_WINDOW_MS: Final = 5000

#: Characters that would make two parameters of one value, or another list of ids. Nothing that holds one is signed.
UNSAFE: Final = frozenset("&=?#,")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One API key."""

    key: SecretStr
    secret: SecretStr


def is_safe(value: str) -> bool:
    """Whether an id can be signed as the text it is: no separator, no blank, no control character."""
    return bool(value) and not UNSAFE.intersection(value) and value.isprintable() and " " not in value


def query(params: Mapping[str, str]) -> str:
    """Parameters as they travel: sorted by name, values percent-encoded."""
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(params.items()))


def canonical(params: Mapping[str, str]) -> str:
    """What the signature covers."""
    return "&".join(f"{name}={value}" for name, value in sorted(params.items()))


def signature(secret: str, params: Mapping[str, str]) -> str:
    return hmac.new(secret.encode(), canonical(params).encode(), hashlib.sha256).hexdigest()


def signed_query(secret: str, params: Mapping[str, str]) -> str:
    """The whole query, its signature last."""
    return f"{query(params)}&signature={signature(secret, params)}"


def sign(credentials: Credentials, request: Request, timestamp_ms: int) -> Signed:
    """The request with its window, time stamp and signature in the query."""
    params = dict(parse_qsl(request.query, keep_blank_values=True, strict_parsing=bool(request.query)))
    params |= {"recvWindow": str(RECV_WINDOW_MS), "timestamp": str(timestamp_ms)}
    whole = signed_query(credentials.secret.get_secret_value(), params)
    return Signed(replace(request, query=whole), {"X-BX-APIKEY": credentials.key.get_secret_value()})
