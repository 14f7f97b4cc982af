"""The simulated venues from the outside: accounts, books and troubles are set up and the truth is read here.

Plain HTTP to the control API; the standard library does, as nothing here has to be fast or to survive trouble.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cancelq_worker.demo.markets import Market
from cancelq_worker.demo.script import Part, Script
from cancelq_worker.demo.tables import BucketUse, Naming, OrderTruth, VenueCall
from cancelq_worker.embedded import LOOPBACK

# The way of a call, drawn evenly, and the same back.
LATENCY_MS = (5, 25)
# Limits are left as the venues have them. Bitget and Bybit acknowledge a cancel and execute it later.
MOOD = {
    "latency_before_ms": LATENCY_MS,
    "latency_after_ms": LATENCY_MS,
    "cancel_delay_of_ms": {"bitget": 40, "bybit": 40},
    "stream_loss": 0.02,
    "stream_repeat": 0.02,
}
TIMEOUT_S = 30.0


class VenueError(Exception):
    """The simulator does not answer its control API as it should."""


class Venues:
    """The control API of the simulator on a local port; one connection, one thread."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_S)
        self._calls_seen = 0

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def stream_url(self, market: Market) -> str:
        """Where the private order stream of that market's venue is."""
        return f"ws://{LOOPBACK}:{self.port}{market.stream_path}"

    def answers(self) -> bool:
        """Whether it is up yet."""
        try:
            self._ask("GET", "settings")
        except VenueError:
            return False
        return True

    def prepare(self, script: Script) -> list[list[str]]:
        """Sets up accounts, orders (oldest first) and troubles; returns the orders' ids by part and position."""
        ids = [self._enter(part) for part in script.parts]
        racing = [
            order_id
            for part, of_part in zip(script.parts, ids, strict=True)
            for order, order_id in zip(part.orders, of_part, strict=True)
            if order.fills_first
        ]
        self._ask("POST", "settings", {**MOOD, "race_fill_ids": racing})
        for trouble in script.troubles:
            fault = {"kind": trouble.kind, "endpoint": trouble.endpoint, "count": trouble.count}
            self._ask("POST", "faults", fault)
        return ids

    def _enter(self, part: Part) -> list[str]:
        market, now_ms = part.market, time.time_ns() // 1_000_000
        account = {"key": market.key, "secret": market.secret, "passphrase": market.passphrase}
        whose = {"venue": market.lane.venue, "uid": market.uid}
        self._ask("POST", "accounts", {**whose, **account})
        entered = [_entry(part, position, now_ms) for position in part.made]
        told = self._ask("POST", "orders", {**whose, "orders": entered})["orders"]
        ids = [""] * len(part.orders)
        for position, row in zip(part.made, told, strict=True):
            ids[position] = row["order_id"]
        return ids

    def buckets(self) -> list[BucketUse]:
        """What was counted against each limit so far."""
        return [
            BucketUse(
                row["bucket"].partition("/")[0],
                row["bucket"].partition("/")[2],
                row["owner"],
                row["limit"],
                row["window_ms"],
                row["admitted"],
                row["refused"],
                row["worst_admitted"],
            )
            for row in self._ask("GET", "rates")["rates"]
        ]

    def new_calls(self) -> list[VenueCall]:
        """Calls in the venue's log that an earlier reading has not brought."""
        calls: list[VenueCall] = []
        while True:
            page = self._ask("GET", f"calls?after={self._calls_seen}")
            self._calls_seen = page["next"]
            if not page["calls"]:
                return calls
            calls += map(_call, page["calls"])

    def truth(self, market: Market) -> Iterator[OrderTruth]:
        """Every order of the market's account, the children of triggers too."""
        after = 0
        while True:
            page = self._ask("GET", f"truth?venue={market.lane.venue}&uid={market.uid}&after={after}")
            if not page["orders"]:
                return
            after = page["next"]
            yield from map(_truth, page["orders"])

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, what: str, body: object = None) -> Any:
        sent = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, f"/sim/{what}", sent)
            answer = self._connection.getresponse()
            data = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise VenueError(f"{method} /sim/{what}: {error}") from error
        if answer.status != 200:
            raise VenueError(f"{method} /sim/{what}: {data.get('error', answer.status)}")
        return data


def _entry(part: Part, position: int, now_ms: int) -> dict[str, object]:
    order = part.orders[position]
    entry: dict[str, object] = {
        "symbol": order.symbol,
        "kind": order.kind,
        "state": order.state,
        "client_id": order.client_id,
    }
    if order.age_ms:
        entry["created_ms"] = now_ms - order.age_ms
    return entry


def _call(row: Mapping[str, Any]) -> VenueCall:
    return VenueCall(
        row["venue"],
        row["uid"],
        row["endpoint"],
        row["method"] == "POST",
        len(row["ids"]),
        row["code"],
        row["refused"],
        row["fault"],
    )


def _truth(row: Mapping[str, Any]) -> OrderTruth:
    return OrderTruth(
        order_id=row["order_id"],
        state=row["state"],
        open=row["open"],
        filled=row["filled"],
        client_id=row["client_id"],
        child_id=row["child_id"],
        closed_by="" if row["open"] else row["history"][-1]["by"],
        namings=tuple(Naming(naming["at_us"], naming["verdict"]) for naming in row["cancels"]),
    )
