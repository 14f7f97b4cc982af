"""Bybit's signature, over exactly the bytes that are sent.

Source: Bybit API documentation v5, "Integration Guidance": hex of HMAC-SHA256 over
timestamp_ms + key + recv_window + (query of a GET, body of a POST). Neither path nor method is covered, so a signed
read can be sent as a cancel for some seconds: signed calls are never logged whole. A time stamp must lie within
[venue's clock - recv_window, venue's clock + 1 s): no window helps a clock that runs ahead.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from pydantic import SecretStr

from cancelq_worker.venues.port import Request

RECV_WINDOW_MS = 5_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """One API key with the secret of a system-generated (HMAC) key. It belongs to one of the venue's environments."""

    key: SecretStr
    secret: SecretStr


def prehash(credentials: Credentials, request: Request, timestamp_ms: int) -> bytes:
    """The bytes the signature covers."""
    covered = request.query.encode() if request.method == "GET" else request.body
    return f"{timestamp_ms}{credentials.key.get_secret_value()}{RECV_WINDOW_MS}".encode() + covered


def signature(credentials: Credentials, request: Request, timestamp_ms: int) -> str:
    secret = credentials.secret.get_secret_value().encode()
    return hmac.new(secret, prehash(credentials, request, timestamp_ms), hashlib.sha256).hexdigest()


def headers(credentials: Credentials, request: Request, timestamp_ms: int) -> dict[str, str]:
    """Every header of a private call."""
    return {
        "X-BAPI-API-KEY": credentials.key.get_secret_value(),
        "X-BAPI-SIGN": signature(credentials, request, timestamp_ms),
        "X-BAPI-TIMESTAMP": str(timestamp_ms),
        "X-BAPI-RECV-WINDOW": str(RECV_WINDOW_MS),
        "Content-Type": "application/json",
    }
