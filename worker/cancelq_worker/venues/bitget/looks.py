"""Looking for an order at Bitget: where, in which order, and what a page proves.

Facts (Bitget API documentation): orderInfo answers a list, empty for an unknown order, and finds a client id
for two hours only; unfilled-orders and history-orders show TP/SL orders only with tpslType=tpsl; lists are
newest first, at most 100 a page, paged by idLessThan; plan orders have lists of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cancelq_worker.venues.port import NextLook, Reply, Route, Stage, Target, Word
from cancelq_worker.venues.reading import OTHERS, filled, safe_id, word
from cancelq_worker.venues.sweeping import kept_of_a_look

SCOPES: Final = ("order", "tpsl", "stop")
PAGE: Final = 100
MANY: Final = 40  # waiting for calls of their own, of which twenty a second are allowed
WALK_PAGES: Final = 50  # a history longer than this is not walked to its end: then nothing is proven by it

ROUTES: Final = (
    # Many orders on one page, aimed just above the largest id that waits; a lone one goes by orderInfo.
    Route("history-page", Stage.LOOK, ("any",), "history-orders", most=PAGE, least=2, downwards=True),
    # The same for many that were looked for in vain: after an outage, alone they would be told for half a minute.
    Route("history-many", Stage.LOOK, ("many", "history"), "history-orders", most=PAGE, least=MANY, downwards=True),
    # By client id nothing can be aimed: for many the newest page of their pair, from which each walks on.
    Route("history-named", Stage.LOOK, ("named",), "history-orders", most=PAGE, least=MANY),
    Route("order-info", Stage.LOOK, ("any", "many", "named", "info"), "orderInfo"),
    Route("history", Stage.LOOK, ("history",), "history-orders"),
    # After an outage many orders of which nobody knows whether the cancel arrived are still open, on few pages.
    Route("open", Stage.LOOK, ("open",), "unfilled-orders", most=PAGE, downwards=True),
    Route("walk-open", Stage.LOOK, ("walk-open",), "unfilled-orders", most=PAGE),
    Route("walk-history", Stage.LOOK, ("walk-history",), "history-orders", most=PAGE),
    Route("tpsl-history", Stage.LOOK, ("tpsl-history",), "history-orders", most=PAGE),
    Route("tpsl-open", Stage.LOOK, ("tpsl-open",), "unfilled-orders", most=PAGE),
    Route("stop-history", Stage.LOOK, ("stop-history",), "history-plan-order", most=PAGE),
    Route("stop-open", Stage.LOOK, ("stop-open",), "current-plan-order", most=PAGE),
)

#: Routes whose answer has its list under `orderList`.
_UNDER_A_NAME: Final = ("stop-history", "stop-open")
#: The place a route reads, where it is not the route's own name.
_PLACES: Final = {
    "history-page": "history",
    "history-many": "history",
    "history-named": "walk-history",
    "order-info": "info",
}

#: The venue's words for an order's state, in every list and in its stream.
STATES: Final = {
    "live": Word.OPEN,
    "new": Word.OPEN,
    "init": Word.OPEN,
    "partially_filled": Word.OPEN,
    "not_trigger": Word.OPEN,
    "executing": Word.OPEN,
    "filled": Word.FILLED,
    "cancelled": Word.CANCELLED,
    "canceled": Word.CANCELLED,
    "executed": Word.TRIGGERED,
    "triggered": Word.TRIGGERED,
    "reject": Word.CLOSED,
    "rejected": Word.CLOSED,
    "expired": Word.CLOSED,
    "failed": Word.CLOSED,
    "fail_execute": Word.CLOSED,
    "fail_trigger": Word.CLOSED,
}

#: Ids that read the same with and without percent-encoding. Which of the two Bitget signs is not documented
#: clearly, so other ids are not put into a query: they are found by walking the lists.
_PLAIN_IN_QUERY = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_ORDER_ID = re.compile(r"[0-9]{1,32}", re.ASCII)

PAGE_FAILS: Final = 3  # a history that cannot be read is left for orderInfo
#: Until so many looks failed, or so many pages showed nothing, pages serve who waits for orderInfo in a crowd.
MANY_FAILS: Final = 6
MANY_READS: Final = 3
NEAR_PAGES: Final = 5  # of a walk by client id, before orderInfo is asked
COURTESY_FAILS: Final = 3
_OTHER_SCOPES: Final = ("tpsl-open", "stop-open")

#: Where an order of a scope cannot stand: looked at last, for whoever named the wrong scope.
_ELSEWHERE: Final = {"order": _OTHER_SCOPES, "tpsl": ("info", "stop-open"), "stop": ("info", "tpsl-open")}
_KINDS: Final = {
    "info": ("order", "a normal order"),
    "tpsl-open": ("tpsl", "a TP/SL order"),
    "stop-open": ("stop", "a plan order"),
}

#: Everything to be read before an order may be called unknown; orderInfo twice, some time apart. First the lists, which
#: show many orders at once; where they cannot be read, orderInfo: they are asked for a pair, which may not exist.
_LISTS_FIRST: Final = ("history", "open", "info", *_OTHER_SCOPES, "info")
_INFO_FIRST: Final = ("info", "history", "open", *_OTHER_SCOPES, "info")


# -- where to look next --------------------------------------------------------------------------------------
# notes: `n` looks since the last cancel, `ack` it was acknowledged, `abs` {place: times found absent},
# `walk` {place: {"at": cursor, "pages": n, "end": true}}


def next_look(target: Target) -> NextLook:
    """The look that follows those already noted."""
    n = int(target.notes.get("n", 0))
    if target.scope == "order":
        return _next_for_order(target, n) if target.order_id else _next_for_client_id(target, n)
    prefix = "tpsl" if target.scope == "tpsl" else "stop"
    places = (f"{prefix}-history", f"{prefix}-open")
    if target.scope == "stop" and not target.order_id:
        return _next_walk(target, n, places, places)
    absent = target.notes.get("abs", {})
    if any(absent.get(place, 0) < 2 for place in places):
        return NextLook(places[n % 2])
    for place in _ELSEWHERE[target.scope]:
        if target.order_id and not absent.get(place, 0) and int(target.notes.get("f", 0)) < COURTESY_FAILS:
            return NextLook(place)
    return NextLook(places[n % 2], True)


def _next_for_order(target: Target, n: int) -> NextLook:
    absent, fails = dict(target.notes.get("abs", {})), int(target.notes.get("f", 0))
    shared = 4 if target.notes.get("ack") else 1  # an acknowledged order will be closed soon: pages carry many
    if n < shared and fails < PAGE_FAILS:
        return NextLook("any")
    for place in _LISTS_FIRST if fails < PAGE_FAILS else _INFO_FIRST:
        if place in _OTHER_SCOPES and fails >= COURTESY_FAILS:
            continue  # an order of this scope cannot stand there: it only helps whoever named the wrong scope
        if absent.get(place, 0) == 0:
            return NextLook("many" if place == "info" and _may_share(target) else place)
        absent[place] -= 1
    return NextLook("info", True)


def _may_share(target: Target) -> bool:
    """Whether a page may still serve an order whose turn is at orderInfo: by then the history may show it."""
    read, fails = target.notes.get("abs", {}).get("history", 0), int(target.notes.get("f", 0))
    return read < MANY_READS and fails < MANY_FAILS


def _next_for_client_id(target: Target, n: int) -> NextLook:
    absent = target.notes.get("abs", {})
    walks = ("walk-open", "walk-history")
    if not _PLAIN_IN_QUERY.fullmatch(target.client_order_id or ""):
        return _next_walk(target, n, walks, walks)
    walked = _next_walk(target, n, (_first_by_name(target), *walks), walks)
    if not walked.done or absent.get("info", 0) >= 2:
        return walked
    return NextLook("info", False)


def _first_by_name(target: Target) -> str:
    """Alone by orderInfo, in a crowd by the newest page of the pair; where a few more did not show it, alone too."""
    if target.notes.get("walk") or int(target.notes.get("f", 0)) >= PAGE_FAILS:
        return "info"
    return f"named:{target.symbol or ''}"


def _long(walks: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(not walk.get("end") and walk.get("pages", 0) >= NEAR_PAGES for walk in walks.values())


def _next_walk(target: Target, n: int, cycle: tuple[str, ...], walked: tuple[str, ...]) -> NextLook:
    """Goes through `cycle`; a place of `walked` is read page by page to its end before the next one."""
    walks = target.notes.get("walk", {})
    for place in cycle:
        if place not in walked:
            if not target.notes.get("abs", {}).get("info") and (not walks or _long(walks)):
                return NextLook(place)
            continue
        walk = walks.get(place, {})
        if not walk.get("end") and walk.get("pages", 0) < WALK_PAGES:
            return NextLook(f"{place}:{target.symbol or ''}:{walk.get('at', '')}")
    short = [p for p in walked if not walks.get(p, {}).get("end")]
    gap = f"{short[0]} is longer than {WALK_PAGES * PAGE} orders and was not read to its end" if short else ""
    place = cycle[n % len(cycle)]
    return NextLook(place if place not in walked else f"{place}:{target.symbol or ''}:", True, gap)


# -- the call ------------------------------------------------------------------------------------------------


def query(route: Route, targets: Sequence[Target]) -> tuple[str, dict[str, str]]:
    """Path and parameters of a look: its bucket is named as its endpoint. Raises ValueError for a target that is no
    order."""
    name, first = route.name, targets[0]
    if any(target.scope not in SCOPES for target in targets):
        raise ValueError("a look must name an order")
    params: dict[str, str] = {}
    if name == "order-info":
        return route.bucket, _by_id(first)
    if name.startswith("tpsl"):
        params["tpslType"] = "tpsl"
    if name in ("walk-open", "walk-history") or not all(t.order_id for t in targets):
        return route.bucket, {**params, **_walk_params(name, first)}
    ids = sorted((int(t.order_id) for t in targets if t.order_id), reverse=True)
    if len(ids) == 1 and not name.startswith("stop"):
        params["orderId"] = str(ids[0])
    else:
        params["idLessThan"] = str(ids[0] + 1)
    params["limit"] = str(PAGE)
    symbols = {t.symbol for t in targets}
    if len(symbols) == 1 and first.symbol:
        params["symbol"] = first.symbol
    return route.bucket, params


def _by_id(target: Target) -> dict[str, str]:
    if target.order_id:
        return {"orderId": target.order_id}
    if target.client_order_id:
        return {"clientOid": target.client_order_id}
    raise ValueError("a look must name an order")


def _walk_params(name: str, target: Target) -> dict[str, str]:
    params = {"limit": str(PAGE)}
    at = target.notes.get("walk", {}).get(name, {}).get("at", "")
    if at:
        params["idLessThan"] = at
    if target.symbol:
        params["symbol"] = target.symbol
    return params


# -- the answer ----------------------------------------------------------------------------------------------


def failed(route: Route, failure: Reply) -> Reply:
    """A look that brought no list. "No such order" is what an empty list says elsewhere."""
    place = _PLACES.get(route.name, route.name)
    if failure.word is Word.GONE and route.name == "order-info" and not failure.notes:
        return Reply(Word.ABSENT, failure.code, failure.text, failure.http_status, place=place)
    meant = failure.word if failure.word in kept_of_a_look(route) else Word.UNCLEAR
    notes = failure.notes if route.name == "order-info" else {}  # a list's refusal is about no order
    return replace(failure, word=meant, place=place, notes=notes)


@dataclass(frozen=True, slots=True)
class Page:
    """A list answer. `whole`: every row could be read, so what is not among them is not on the page; `spoilt`: those
    whose order id cannot be read."""

    rows: list[dict[str, Any]]
    spoilt: list[dict[str, Any]]
    ids: list[int]
    ended: bool
    whole: bool


def read_page(data: Any) -> Page | None:
    """A list answer, plain or under `orderList`; None if there is no list: that is not an empty one."""
    more = None
    if isinstance(data, dict):
        more = data.get("nextFlag")
        data = [] if data.get("orderList") is None and more is False else data.get("orderList")
    if not isinstance(data, list) or (not data and more is True):
        return None  # an empty page that says there is more is none either
    rows: list[dict[str, Any]] = []
    spoilt: list[dict[str, Any]] = []
    for row in data:
        if isinstance(row, dict):
            (rows if is_order_id(row.get("orderId")) else spoilt).append(row)
    ended = not more if isinstance(more, bool) else len(data) < PAGE
    readable = all(_may_be_client_id(row.get("clientOid")) for row in rows)
    return Page(rows, spoilt, [int(row["orderId"]) for row in rows], ended, readable and len(rows) == len(data))


def _may_be_client_id(value: Any) -> bool:
    """Whether this tells a client id, or that there is none. Anything else may stand for the one looked for."""
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def is_order_id(value: Any) -> bool:
    """Whether this can be an order's id: decimal digits, as text."""
    return isinstance(value, str) and _ORDER_ID.fullmatch(value) is not None


def read(route: Route, targets: Sequence[Target], data: Any) -> list[Reply]:
    """One reply per target from a list answer."""
    place = _PLACES.get(route.name, route.name)
    page = read_page(data) if isinstance(data, list) or route.name in _UNDER_A_NAME else None
    if page is None:
        return [Reply(Word.UNCLEAR, text="an answer without a list", place=place)] * len(targets)
    by_id = {str(row["orderId"]): row for row in page.rows}
    by_client = {} if all(t.order_id for t in targets) else {word(r, "clientOid"): r for r in page.rows}
    torn = _torn(page.rows, "orderId", by_id) | (_torn(page.rows, "clientOid", by_client) if by_client else set())
    rows = [by_id.get(t.order_id) if t.order_id else by_client.get(t.client_order_id or "") for t in targets]
    absent = _absence(route, targets, page) if None in rows else None

    def one(target: Target, row: Mapping[str, Any] | None) -> Reply:
        if row is None:
            assert absent is not None
            return absent(target, place)
        if (torn and (target.order_id or target.client_order_id) in torn) or _may_be_among(target, page.spoilt):
            return Reply(Word.UNCLEAR, text="the answer says two things about this order", place=place)
        if not target.order_id and _elsewhere(target, row):
            return Reply(Word.UNCLEAR, text="that client id stands at an order of another pair", place=place)
        if not target.may_bear(word(row, "clientOid")):
            return Reply(Word.UNCLEAR, text=OTHERS, place=place)
        seen = _sighting(target, row, place)
        if place not in _ELSEWHERE[target.scope]:
            return seen
        return _wrong_scope(place) if seen.word is Word.OPEN else Reply(Word.ABSENT, place=place)

    return [one(t, row) for t, row in zip(targets, rows, strict=True)]


def _torn(rows: Sequence[Mapping[str, Any]], name: str, known: Mapping[str, Any]) -> set[str]:
    """The ids under which more than one row stands, and they differ."""
    if len(known) == len(rows):
        return set()
    said: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        said.setdefault(word(row, name), set()).add((word(row, "orderId"), word(row, "status")))
    return {order for order, ways in said.items() if len(ways) > 1}


def _may_be_among(target: Target, spoilt: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the rows that cannot be read may be about this order as well."""
    name, wanted = ("orderId", target.order_id) if target.order_id else ("clientOid", target.client_order_id)
    return any(word(row, name) == wanted for row in spoilt)


def _elsewhere(target: Target, row: Mapping[str, Any]) -> bool:
    """Whether a row is of another pair than the intent names, or does not tell of which. Bitget's own examples spell
    pairs in small letters."""
    told = row.get("symbol") is not None
    return bool(target.symbol) and told and word(row, "symbol").upper() != target.symbol


def _wrong_scope(place: str) -> Reply:
    scope, kind = _KINDS[place]
    return Reply(Word.FAILED, text=f"scope: this id is {kind}, still open; send it with scope {scope}", place=place)


def _sighting(target: Target, row: Mapping[str, Any], place: str) -> Reply:
    state = word(row, "status", 40)
    meant = STATES.get(state.lower(), Word.UNCLEAR)
    volume = filled(word(row, "baseVolume"))
    if target.scope == "tpsl" and meant is Word.FILLED and not volume:
        meant = Word.TRIGGERED  # the trigger fired; what it placed is another order
    return Reply(
        meant,
        text="" if meant is not Word.UNCLEAR else f"unknown order state {state!r}",
        order_id=str(row["orderId"]),
        client_order_id=safe_id(word(row, "clientOid")),
        venue_state=state,
        filled=volume,
        child_order_id=safe_id(word(row, "executeOrderId")),
        place=place,
    )


def _absence(route: Route, targets: Sequence[Target], page: Page) -> Callable[[Target, str], Reply]:
    """What it means that a target is not among the rows: read to where it would stand, or not."""
    if not page.whole:
        return lambda _, place: Reply(Word.UNCLEAR, text="a row that cannot be read", place=place)
    if route.name == "order-info" or (len(targets) == 1 and targets[0].order_id and not route.name.startswith("stop")):
        # Asked for exactly this order: rows about others prove nothing.
        meant = Word.UNCLEAR if page.rows else Word.ABSENT
        return lambda _, place: Reply(meant, text="rows about other orders" if page.rows else "", place=place)
    below = _asked_below(route, targets)
    if below is not None and not page.ended and any(found >= below for found in page.ids):
        return lambda _, place: Reply(Word.UNCLEAR, text="a page that ignores its cursor", place=place)
    lowest = min(page.ids, default=None)

    def by_page(target: Target, place: str) -> Reply:
        if target.order_id and place not in ("walk-open", "walk-history"):
            read_past = page.ended or (lowest is not None and int(target.order_id) > lowest)
            return Reply(Word.ABSENT if read_past else Word.UNREAD, place=place)
        walk = dict(target.notes.get("walk", {}).get(place, {}))
        walk["pages"] = walk.get("pages", 0) + 1
        walk["at"] = str(lowest) if lowest is not None else walk.get("at", "")
        walk["end"] = page.ended or lowest is None
        notes = {"walk": {**target.notes.get("walk", {}), place: walk}}
        return Reply(Word.ABSENT if walk["end"] else Word.UNREAD, place=place, notes=notes)

    return by_page


def _asked_below(route: Route, targets: Sequence[Target]) -> int | None:
    """The id below which the page was asked for."""
    below = query(route, targets)[1].get("idLessThan")
    return int(below) if below else None
