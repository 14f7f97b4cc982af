"""The one call all peers make: a signed cancel at Bitget, and a line for each answer.

Signed as the venue documents it: base64 of HMAC-SHA256 over time, method, path and body. A call over the limit raises
`Refused`, whatever else a peer does about it is its own mechanism; every other answer is written down as the outcome.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from peers.desk.noting import note

SINGLE, BATCH = "/api/v2/spot/trade/cancel-order", "/api/v2/spot/trade/batch-cancel-order"
SYMBOL = "BTCUSDT"
DONE, OVER_LIMIT = "00000", "429"
MOST = 50  # orders of a batch call
TIMEOUT_S = 4.0  # a call ends before its orders are taken for a dead worker's


class Refused(Exception):
    """The venue refused the call because it was over its limit; no order was touched."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where the venue is and with which key; from the environment that the bench gives to each process."""

    url: str
    key: str
    secret: str
    passphrase: str

    @classmethod
    def given(cls) -> Account:
        return cls(*(os.environ[f"DESK_{name}"] for name in ("VENUE", "KEY", "SECRET", "PASSPHRASE")))


class Call:
    """Blocking calls over kept connections."""

    def __init__(self) -> None:
        self._account = Account.given()
        self._http = httpx.Client(base_url=self._account.url, trust_env=False, timeout=TIMEOUT_S)

    def cancel(self, order_id: str) -> None:
        """One order by the single endpoint. Raises `Refused`, or httpx' errors."""
        body = _one(order_id)
        note(_codes(self._http.post(SINGLE, content=body, headers=_headers(self._account, SINGLE, body)), [order_id]))

    def cancel_all(self, order_ids: Sequence[str]) -> None:
        """Up to 50 orders by the batch endpoint. Raises `Refused`, or httpx' errors."""
        body = _many(order_ids)
        note(_codes(self._http.post(BATCH, content=body, headers=_headers(self._account, BATCH, body)), order_ids))


class AsyncCall:
    """The same for asyncio."""

    def __init__(self) -> None:
        self._account = Account.given()
        self._http = httpx.AsyncClient(base_url=self._account.url, trust_env=False, timeout=TIMEOUT_S)

    async def cancel(self, order_id: str) -> None:
        body = _one(order_id)
        headers = _headers(self._account, SINGLE, body)
        note(_codes(await self._http.post(SINGLE, content=body, headers=headers), [order_id]))

    async def cancel_all(self, order_ids: Sequence[str]) -> None:
        body = _many(order_ids)
        headers = _headers(self._account, BATCH, body)
        note(_codes(await self._http.post(BATCH, content=body, headers=headers), order_ids))


def _one(order_id: str) -> bytes:
    return json.dumps({"symbol": SYMBOL, "orderId": order_id}).encode()


def _many(order_ids: Sequence[str]) -> bytes:
    orders = [{"symbol": SYMBOL, "orderId": order_id} for order_id in order_ids]
    return json.dumps({"batchMode": "multiple", "orderList": orders}).encode()


def _headers(account: Account, path: str, body: bytes) -> dict[str, str]:
    at_ms = str(time.time_ns() // 1_000_000)
    told = f"{at_ms}POST{path}".encode() + body
    sign = base64.b64encode(hmac.new(account.secret.encode(), told, hashlib.sha256).digest()).decode()
    return {
        "ACCESS-KEY": account.key,
        "ACCESS-SIGN": sign,
        "ACCESS-TIMESTAMP": at_ms,
        "ACCESS-PASSPHRASE": account.passphrase,
        "Content-Type": "application/json",
        "locale": "en-US",
    }


def _codes(answer: httpx.Response, order_ids: Sequence[str]) -> dict[str, str]:
    """The venue's code for each order: of its own item, where the batch has one, else of the whole call."""
    read: Any = answer.json()
    if answer.status_code == 429 or read["code"] == OVER_LIMIT:
        raise Refused
    codes = dict.fromkeys(order_ids, str(read["code"]))
    data = read["data"]
    if isinstance(data, dict):
        for item in data.get("failureList") or ():
            codes[item["orderId"]] = str(item.get("errorCode") or item.get("errorMsg") or "failed")
    return codes
