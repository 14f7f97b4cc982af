"""Scopes `symbol` and `account` at Bitget: one bulk call at most, then lists and cancels by order id.

Only cancel-symbol-order is used in bulk, once per intent, and only where nothing narrows what was asked.
Everything else is found in the open lists and cancelled by id, if it is older than the intent: an empty list
or a missing symbol, which would cancel everything, cannot be expressed here.

A sweep's progress stands in its notes under `sweep`:
  k      index of the kind being listed          at     the list's cursor
  open   orders that matched in this pass        todo   [{id, symbol}] to be cancelled next
  unsure orders of this pass whose age nobody can tell
  of     index of the kind `todo` belongs to   end    every list was read in this pass
"""

from __future__ import annotations

import re
from typing import Any, Final

from cancelq_worker.venues.bitget.looks import PAGE, read_page
from cancelq_worker.venues.port import Plan, Reply, Route, Stage, Target, Word

BATCH: Final = 50

ROUTES: Final = (
    Route("sweep-list-order", Stage.LOOK, ("sweep-order",), "unfilled-orders"),
    Route("sweep-list-tpsl", Stage.LOOK, ("sweep-tpsl",), "unfilled-orders"),
    Route("sweep-list-stop", Stage.LOOK, ("sweep-stop",), "current-plan-order"),
)
NAMES: Final = frozenset(r.name for r in ROUTES)


def kinds(target: Target) -> list[str]:
    """Which orders the intent means."""
    return target.fields.get("kinds", "order").split(",")


def plan(target: Target) -> Plan:
    """How a sweep starts: with the bulk call where it says exactly what was asked, else with a list."""
    narrowed = "older_than_ms" in target.fields or "client_prefix" in target.fields
    bulk = target.scope == "symbol" and kinds(target) == ["order"] and not narrowed
    start = Stage.CANCEL if bulk else Stage.LOOK
    cancel = "symbol" if bulk else cancel_class(target)
    return Plan(cancel, look_class(target), start=start)


def look_class(target: Target) -> str:
    names = kinds(target)
    return f"sweep-{names[progress(target).get('k', 0) % len(names)]}"


def cancel_class(target: Target) -> str:
    """What was found is cancelled by id, one kind at a time."""
    return f"sweep-{kinds(target)[progress(target).get('of', 0)]}"


def size(cancel_class: str) -> int:
    """How many of `todo` one call names."""
    return BATCH if cancel_class == "sweep-order" else 1


def progress(target: Target) -> dict[str, Any]:
    found: dict[str, Any] = target.notes.get("sweep", {})
    return found


def due(target: Target, most: int) -> list[dict[str, str]]:
    """What the next cancel call shall name. Raises ValueError if there is nothing."""
    todo: list[dict[str, str]] = progress(target).get("todo", [])[:most]
    if not todo:
        raise ValueError("a sweep's cancel must name orders")
    return todo


def query(route: Route, target: Target) -> tuple[str, dict[str, str]]:
    """Path and parameters of the next list page."""
    params = {"limit": str(PAGE)}
    if target.symbol:
        params["symbol"] = target.symbol
    at = progress(target).get("at", "")
    if at:
        params["idLessThan"] = at
    if route.name == "sweep-list-stop":
        return "current-plan-order", params
    if route.name == "sweep-list-tpsl":
        params["tpslType"] = "tpsl"
    return "unfilled-orders", params


def read(route: Route, target: Target, data: Any) -> Reply:
    """A list page: what on it is meant goes to `todo`; what it means for the sweep is in `Reply.notes`."""
    page = read_page(data) if isinstance(data, list) or route.name == "sweep-list-stop" else None
    if page is None:
        return Reply(Word.UNCLEAR, text="an answer without a list", place=route.name)
    now = dict(progress(target))
    if now.get("end"):  # a pass that was over when its worker ended: this is the first page of the next
        now = {}
    if not page.whole or not all(_readable(row) for row in page.rows):
        return Reply(Word.UNCLEAR, text="a row that cannot be read", place=route.name)
    if now.get("at") and any(found >= int(now["at"]) for found in page.ids):
        return Reply(Word.UNCLEAR, text="a page that ignores its cursor", place=route.name)
    now["of"] = now.get("k", 0)
    todo: list[dict[str, str]] = []
    for row in page.rows:
        symbol = row["symbol"].upper()
        age = _age(target, row)
        if not _meant(target, row, symbol) or age == "newer":
            continue
        now["open"] = now.get("open", 0) + 1
        if age == "older":
            todo.append({"id": row["orderId"], "symbol": symbol})
        else:
            now["unsure"] = now.get("unsure", 0) + 1
    if page.ended or not page.ids:
        now["k"], now["at"] = now.get("k", 0) + 1, ""
    else:
        now["at"] = str(min(page.ids))
    now["todo"] = todo if target.may_cancel else []
    now["end"] = now.get("k", 0) >= len(kinds(target))
    return Reply(Word.LISTED, place=route.name, notes={"sweep": now})


def _readable(row: dict[str, Any]) -> bool:
    """An open order nobody can name must neither be skipped nor cancelled."""
    symbol = row.get("symbol")
    return isinstance(symbol, str) and re.fullmatch(r"[A-Za-z0-9]{2,32}", symbol) is not None


def _meant(target: Target, row: dict[str, Any], symbol: str) -> bool:
    if target.symbol and symbol != target.symbol.upper():
        return False
    prefix = target.fields.get("client_prefix")
    return not prefix or str(row.get("clientOid") or "").startswith(prefix)


def _age(target: Target, row: dict[str, Any]) -> str:
    """older, newer or unsure, by the venue's own creation time."""
    text = str(row.get("cTime") or "")
    if not re.fullmatch(r"[0-9]{1,16}", text):
        return "unsure"
    created_ms = int(text) * 1000 if len(text) <= 10 else int(text)
    bound = target.fields.get("older_than_ms")
    if bound is not None and created_ms >= int(bound):
        return "newer"
    older, newer = target.age_band_ms
    if created_ms < older:
        return "older"
    return "newer" if created_ms >= newer else "unsure"
