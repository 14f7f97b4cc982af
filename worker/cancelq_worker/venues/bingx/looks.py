"""Looking for an order at BingX: where, in which order, and what a list proves.

Facts (BingX API documentation): `query` finds one order, by its client id for two hours only; `openOrders` shows all
of a pair, at most 2000; `historyOrders` shows ended orders, 100 a page up to the 10000th, with `orderId` those from
that id upwards. Which end comes first is not told, and the tables of the lists lack the client id. Equal errors lock
`query` like any endpoint, so whatever it is asked can be found in the lists as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from cancelq_worker.venues.bingx.rows import client_id_of, is_about, is_pair, order_id_of, said_of, state_of
from cancelq_worker.venues.bingx.signing import is_safe
from cancelq_worker.venues.port import ABOUT_THE_CALL, NextLook, Reply, Route, Stage, Target, Word
from cancelq_worker.venues.reading import word

PAGE: Final = 100
PAGES_MOST: Final = 100  # pageIndex * pageSize <= 10000
OPEN_MOST: Final = 2000
ERRORS: Final = 8  # of the twenty equal errors that lock an endpoint; the rest is for orders known to be open

QUERY, OPEN, HISTORY = "query", "open", "history"

# Classes have the pair behind the colon. `any`, `one`, `open`, `history` and `walk` go by order id, the others by
# client id: `named`, `mute` where the lists do not tell client ids, `pages` with its page behind the pair.
ROUTES: Final = (
    Route("query", Stage.LOOK, ("any", "one", "named", "mute"), "query", errors=ERRORS),
    # From the smallest id upwards, for several orders at once.
    Route("history-page", Stage.LOOK, ("any", "history"), "historyOrders", most=PAGE, least=2),
    # From the order's own id upwards, page by page.
    Route("history-one", Stage.LOOK, ("one", "history", "walk"), "historyOrders"),
    Route("history-walk", Stage.LOOK, ("pages",), "historyOrders", most=PAGE),
    Route("open", Stage.LOOK, ("open",), "openOrders", most=PAGE),
    Route("open-named", Stage.LOOK, ("named",), "openOrders", most=PAGE, least=2),
    Route("open-mute", Stage.LOOK, ("mute",), "openOrders"),
    # Last of the routes of these classes: what equal errors have closed is looked for before it is sent.
    Route("open-first", Stage.LOOK, ("id", "cid", "only", "trigger"), "openOrders", most=PAGE, first_look=True),
)

_PLACES: Final = {
    "query": QUERY,
    "history-page": HISTORY,
    "history-one": HISTORY,
    "history-walk": HISTORY,
    "open": OPEN,
    "open-named": OPEN,
    "open-mute": OPEN,
    "open-first": OPEN,
}

_TOO_LONG: Final = f"the pair's history is longer than the {PAGES_MOST * PAGE} orders BingX shows of it"
_CUT: Final = f"the pair's open list is longer than the {OPEN_MOST} orders BingX shows of it"
_MUTE: Final = "BingX' lists do not tell client ids, and a query finds one for two hours only"


# -- where to look next --------------------------------------------------------------------------------------
# notes: `n` looks that found nothing, `f` looks that failed, `abs` {place: times found absent}, `walk` {"by": "i" or
# "c", "at": next page}, `paged` a shared page did not reach it, `cut` the open list is too long, `mute` no client ids


def next_look(target: Target) -> NextLook:
    """The look that follows those already noted."""
    by, pair = ("i" if target.order_id else "c"), target.symbol or ""
    page, turn = _page_of(target, by), int(target.notes.get("n", 0)) + int(target.notes.get("f", 0))
    if by == "c" and target.notes.get("mute"):
        return NextLook(f"mute:{pair}", _absent(target, QUERY) >= 2, _MUTE)
    walk = f"walk:{pair}" if by == "i" else f"pages:{pair}:{min(page, PAGES_MOST)}"
    if page > PAGES_MOST:
        return NextLook(walk, True, _TOO_LONG)
    if page > 1:
        return NextLook(walk)
    read = {OPEN: _absent(target, OPEN) >= 2, HISTORY: _absent(target, HISTORY) >= 2}
    gap = _CUT if target.notes.get("cut") and not read[OPEN] else ""
    done = read[HISTORY] and (read[OPEN] or bool(gap))
    return NextLook(_turns_of(target, by, pair)[turn % 3], done, gap)


def _turns_of(target: Target, by: str, pair: str) -> tuple[str, str, str]:
    """The fast way, the open list, the history; then from the first again."""
    if by == "c":
        return f"named:{pair}", f"open:{pair}", f"pages:{pair}:1"
    if target.notes.get("paged"):
        return f"one:{pair}", f"open:{pair}", f"walk:{pair}"
    return f"one:{pair}" if target.notes.get("n") else f"any:{pair}", f"open:{pair}", f"history:{pair}"


def _absent(target: Target, place: str) -> int:
    return int(target.notes.get("abs", {}).get(place, 0))


def _page_of(target: Target, by: str) -> int:
    """The history page that comes next, from 1. A walk by the other kind of id was through another list."""
    walk = target.notes.get("walk", {})
    return int(walk.get("at", 1)) if walk.get("by") == by else 1


# -- the call ------------------------------------------------------------------------------------------------


def query(route: Route, targets: Sequence[Target]) -> dict[str, str]:
    """Parameters of a look. Raises ValueError for a pair or an id that cannot be sent."""
    first = targets[0]
    params = {"symbol": one_pair(targets)}
    match route.name:
        case "query":
            return params | order_ref(first)
        case "history-page":
            return params | {"orderId": str(min(_ids(targets))), "pageSize": str(PAGE)}
        case "history-one":
            page = _page_of(first, "i")
            return params | {"orderId": str(_ids([first])[0]), "pageSize": str(PAGE)} | _index(page)
        case "history-walk":
            pages = {_page_of(target, "c") for target in targets}
            if len(pages) > 1:
                raise ValueError("a walk's call must name one page")
            return params | {"pageSize": str(PAGE)} | _index(pages.pop())
        case _:
            return params


def one_pair(targets: Sequence[Target]) -> str:
    """The pair all of them are of. Raises ValueError if there is none: BingX would read it as every pair."""
    pairs = {target.symbol or "" for target in targets}
    pair = pairs.pop() if len(pairs) == 1 else ""
    if not is_pair(pair):
        raise ValueError("a call must name the one pair of its orders")
    return pair


def order_ref(target: Target) -> dict[str, str]:
    """Exactly one id: which of two BingX would prefer is not documented. Raises ValueError for one that cannot be
    signed safely, or none."""
    name, value = ("orderId", target.order_id) if target.order_id else ("clientOrderID", target.client_order_id)
    if not value or not is_safe(value):
        raise ValueError("a call must name an order")
    return {name: value}


def _ids(targets: Sequence[Target]) -> list[int]:
    refs = [order_ref(target).get("orderId", "") for target in targets]
    if not all(ref.isascii() and ref.isdecimal() for ref in refs):
        raise ValueError("this list is asked by order id")
    return [int(ref) for ref in refs]


def _index(page: int) -> dict[str, str]:
    return {"pageIndex": str(page)} if page > 1 else {}


# -- the answer ----------------------------------------------------------------------------------------------


def failed(route: Route, failure: Reply) -> Reply:
    """A look that brought nothing to read. "No such order" is what `query` says of one it does not know."""
    place = _PLACES.get(route.name, route.name)
    if failure.word is Word.GONE and route.name == "query":
        return replace(failure, word=Word.ABSENT, place=place)
    kept = failure.word in ABOUT_THE_CALL or failure.word is Word.LATER
    return replace(failure, word=failure.word if kept else Word.UNCLEAR, place=place)


@dataclass(frozen=True, slots=True)
class Page:
    """A list answer. `whole`: every row could be read and is of the pair that was asked for, so what is not among
    them is not on the page; `full`: it holds as many as the venue shows at once."""

    rows: list[dict[str, Any]]
    ids: list[int]
    whole: bool
    full: bool

    @property
    def sorted(self) -> bool:
        up = all(a < b for a, b in pairwise(self.ids))
        return up or all(a > b for a, b in pairwise(self.ids))


def read_page(data: Any, pair: str | None, most: int) -> Page | None:
    """A list answer; None if there is no list: that is not an empty one. `pair` None: of all pairs."""
    listed = data.get("orders") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        return None
    rows = [row for row in listed if isinstance(row, dict) and order_id_of(row) and _is_of(row, pair)]
    return Page(rows, [int(order_id_of(row)) for row in rows], len(rows) == len(listed), len(listed) >= most)


def _is_of(row: Mapping[str, Any], pair: str | None) -> bool:
    named = word(row, "symbol")
    return is_pair(named) if pair is None else named == pair


def read(route: Route, targets: Sequence[Target], data: Any) -> list[Reply]:
    """One reply per target from the answer to a look."""
    place = _PLACES[route.name]
    if place == QUERY:
        return [_queried(target, data) for target in targets]
    page = read_page(data, targets[0].symbol, OPEN_MOST if place == OPEN else PAGE)
    if page is None:
        return [Reply(Word.UNCLEAR, text="an answer without a list", place=place)] * len(targets)
    by_id: dict[str, list[dict[str, Any]]] = {}
    by_client: dict[str, list[dict[str, Any]]] = {}
    for row in page.rows:
        by_id.setdefault(order_id_of(row), []).append(row)
        by_client.setdefault(client_id_of(row) or "", []).append(row)
    asked = min(_ids(targets)) if route.name in ("history-page", "history-one") else 0

    def one(target: Target) -> Reply:
        of_id = by_id.get(target.order_id) if target.order_id else None
        found = of_id if target.order_id else by_client.get(target.client_order_id or "")
        if found:
            return _sighting(target, found, place)
        return _absence(route, target, page, asked)

    return [one(target) for target in targets]


def _queried(target: Target, data: Any) -> Reply:
    if not isinstance(data, dict) or not is_about(target, data):
        return Reply(Word.UNCLEAR, text="an answer that does not speak of this order", place=QUERY)
    return _sighting(target, [data], QUERY)


def _sighting(target: Target, rows: Sequence[Mapping[str, Any]], place: str) -> Reply:
    """What the rows of one order say; rows that differ say nothing."""
    states = {state_of(row) for row in rows}
    if len(states) > 1 or len({order_id_of(row) for row in rows}) > 1 or not is_about(target, rows[0]):
        return Reply(Word.UNCLEAR, text="the answer says two things about this order", place=place)
    state = states.pop()
    text = "" if state is not Word.UNCLEAR else f"unknown order state {word(rows[0], 'status', 40)!r}"
    return said_of(rows[0], state, text=text, place=place)


def _absence(route: Route, target: Target, page: Page, asked: int) -> Reply:
    """What it means that an order is not among the rows: the list was read to where it would stand, or not."""
    place = _PLACES[route.name]
    if not page.whole:
        return Reply(Word.UNCLEAR, text="a row that cannot be read", place=place)
    if not target.order_id and any(client_id_of(row) is None for row in page.rows):
        return Reply(Word.UNCLEAR, text="the list does not tell client ids", place=place, notes={"mute": 1})
    if any(found < asked for found in page.ids):
        return Reply(Word.UNCLEAR, text="a page that ignores where it was asked to begin", place=place)
    if place == OPEN:
        if page.full:
            return Reply(Word.UNCLEAR, text=_CUT, place=place, notes={"cut": 1})
        return Reply(Word.ABSENT, place=place)
    if route.name == "history-page":
        between = page.sorted and bool(page.ids) and min(page.ids) < int(target.order_id or 0) < max(page.ids)
        if between or not page.full:
            return Reply(Word.ABSENT, place=place)
        return Reply(Word.UNREAD, place=place, notes={"paged": 1})
    by = "i" if target.order_id else "c"
    at = _page_of(target, by) + 1 if page.full else 1
    return Reply(Word.UNREAD if page.full else Word.ABSENT, place=place, notes={"walk": {"by": by, "at": at}})
