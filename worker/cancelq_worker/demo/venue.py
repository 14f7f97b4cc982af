"""The simulated venue from the outside: its book is filled, its latency set and its truth read here.

Plain HTTP to the control API; the standard library does, as nothing here has to be fast or to survive trouble.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cancelq_worker.demo.audit import BucketUse, Naming, OrderTruth, VenueCall
from cancelq_worker.demo.script import Script
from cancelq_worker.embedded import LOOPBACK

# Each way, drawn evenly. Bitget's own limits are left as they are.
LATENCY_MS = (5, 25)
TIMEOUT_S = 30.0


class VenueError(Exception):
    """The simulated venue does not answer its control API as it should."""


class Venue:
    """The control API of the simulator on a local port; one connection, one thread."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_S)
        self._calls_seen = 0

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def answers(self) -> bool:
        """Whether it is up yet."""
        try:
            self._ask("GET", "settings")
        except VenueError:
            return False
        return True

    def prepare(self, script: Script) -> list[str]:
        """Enters the script's orders, oldest first; returns their ids by position."""
        now_ms = time.time_ns() // 1_000_000
        entered = [_entry(script, position, now_ms) for position in script.made]
        told = self._ask("POST", "orders", {"orders": entered})["orders"]
        ids = [""] * len(script.orders)
        for position, row in zip(script.made, told, strict=True):
            ids[position] = row["order_id"]
        racing = [ids[position] for position, order in enumerate(script.orders) if order.fills_first]
        self._ask(
            "POST",
            "settings",
            {"latency_before_ms": LATENCY_MS, "latency_after_ms": LATENCY_MS, "race_fill_ids": racing},
        )
        return ids

    def buckets(self) -> list[BucketUse]:
        """What was counted against each limit so far."""
        return [
            BucketUse(
                row["bucket"].partition("/")[2],
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
            calls += [VenueCall(row["endpoint"], row["method"] == "POST", len(row["ids"])) for row in page["calls"]]

    def truth(self) -> Iterator[OrderTruth]:
        """Every order there is, the children of triggers too."""
        after = 0
        while True:
            page = self._ask("GET", f"truth?after={after}")
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


def _entry(script: Script, position: int, now_ms: int) -> dict[str, object]:
    order = script.orders[position]
    entry: dict[str, object] = {
        "symbol": order.symbol,
        "kind": order.kind,
        "state": order.state,
        "client_id": order.client_id,
    }
    if order.age_ms:
        entry["created_ms"] = now_ms - order.age_ms
    return entry


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
