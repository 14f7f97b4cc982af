"""Bitget's signature, over exactly the bytes that are sent.

Source: Bitget API documentation, "Signature" (HMAC): base64 of HMAC-SHA256 over
timestamp_ms + METHOD + path + (?query) + body. The time stamp must be within 30 s of the venue's clock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import unquote

from pydantic import SecretStr

from cancelq_worker.venues.port import Request


@dataclass(frozen=True, slots=True)
class Credentials:
    """One API key. `demo`: a key of the demo environment, which needs the header `paptrading: 1`."""

    key: SecretStr
    secret: SecretStr
    passphrase: SecretStr
    demo: bool = False


def prehash(request: Request, timestamp_ms: int) -> bytes:
    """The bytes the signature covers."""
    # Bitget's samples, and ccxt, sign a query's values as they are before percent-encoding.
    query = f"?{unquote(request.query)}" if request.query else ""
    return f"{timestamp_ms}{request.method}{request.path}{query}".encode() + request.body


def signature(secret: str, request: Request, timestamp_ms: int) -> str:
    digest = hmac.new(secret.encode(), prehash(request, timestamp_ms), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def login(credentials: Credentials, timestamp_s: int) -> dict[str, str]:
    """The arguments of the private stream's login."""
    return {
        "apiKey": credentials.key.get_secret_value(),
        "passphrase": credentials.passphrase.get_secret_value(),
        "timestamp": str(timestamp_s),
        "sign": signature(credentials.secret.get_secret_value(), Request("GET", "/user/verify"), timestamp_s),
    }


def headers(credentials: Credentials, request: Request, timestamp_ms: int) -> dict[str, str]:
    """Every header of a private call. `locale` keeps the venue's texts in English."""
    out = {
        "ACCESS-KEY": credentials.key.get_secret_value(),
        "ACCESS-SIGN": signature(credentials.secret.get_secret_value(), request, timestamp_ms),
        "ACCESS-TIMESTAMP": str(timestamp_ms),
        "ACCESS-PASSPHRASE": credentials.passphrase.get_secret_value(),
        "Content-Type": "application/json",
        "locale": "en-US",
    }
    if credentials.demo:
        out["paptrading"] = "1"
    return out
