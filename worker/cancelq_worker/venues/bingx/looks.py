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

from cancelq_worker.venues.bingx.codes import ABOUT_THE_PAIR, had_an_end
from cancelq_worker.venues.bingx.rows import client_id_of, is_about, is_pair, order_id_of, said_of, state_of
from cancelq_worker.venues.bingx.signing import is_safe
from cancelq_worker.venues.port import NextLook, Reply, Route, Stage, Target, Word
from cancelq_worker.venues.reading import OTHERS, word
from cancelq_worker.venues.sweeping import kept_of_a_look

PAGE: Final = 100
PAGES_MOST: Final = 100  # pageIndex * pageSize <= 10000
OPEN_MOST: Final = 2000
ERRORS: Final = 8  # of the twenty equal errors that lock an endpoint; the rest is for orders the venue knows
ERRORS_KNOWN: Final = 15
#: The grid of order ids that walks begin at, so that orders placed within some nine minutes share their pages. A walk
#: may begin at any id that is not above the order's own; it is only longer.
GRID: Final = 1 << 41

COURTESY_FAILS: Final = 6
QUERIES_WHERE_MUTE: Final = 5  # some seconds: an order that was just placed may not be visible yet

QUERY, OPEN, HISTORY, ABROAD = "query", "open", "history", "abroad"
MUTE = "mute"  # stands for a query that could not be made, where no list tells a client id

# Classes have the pair behind the colon. `any`, `seek`, `sure` (which the venue has known), `history` and `stride` go
# by order id; behind the pair of `seek`, `sure` and `stride` stands where a walk begins, and its page. `named`, `mute`
# (where the lists do not tell client ids) and `pages` (its page stands behind the pair) go by client id, `open` by
# both. `abroad` is the open list of all pairs: an order cannot stand there, it only helps whoever named the wrong pair.
# `one` and `walk` are of versions before 0.2, which had each order walk by itself.
ROUTES: Final = (
    Route("query", Stage.LOOK, ("any", "seek", "one", "named", "mute"), "query", errors=ERRORS),
    Route("query-known", Stage.LOOK, ("sure",), "query", errors=ERRORS_KNOWN),
    # From the smallest id upwards, for several orders at once.
    Route("history-page", Stage.LOOK, ("any", "history"), "historyOrders", most=PAGE, least=2),
    # From the order's own id upwards: the first page.
    Route("history-one", Stage.LOOK, ("history", "one", "walk"), "historyOrders"),
    # The pages of a walk, and its first one, serve all orders that share its beginning.
    Route("history-begin", Stage.LOOK, ("seek", "sure"), "historyOrders", most=PAGE, least=20, walk="stride"),
    Route("history-on", Stage.LOOK, ("stride",), "historyOrders", most=PAGE, walk="stride"),
    Route("history-walk", Stage.LOOK, ("pages",), "historyOrders", most=PAGE, walk="pages"),
    Route("open", Stage.LOOK, ("open",), "openOrders", most=PAGE),
    Route("open-abroad", Stage.LOOK, ("abroad",), "openOrders", most=PAGE),
    Route("open-named", Stage.LOOK, ("named",), "openOrders", most=PAGE, least=2),
    Route("open-mute", Stage.LOOK, ("mute",), "openOrders"),
    # Last of the routes of these classes: what equal errors have closed is looked for before it is sent.
    Route("open-first", Stage.LOOK, ("id", "cid", "only", "trigger"), "openOrders", most=PAGE, first_look=True),
    # What was seen open and waits for minutes, as its endpoint is closed, may have ended by the time it is sent.
    Route(
        "open-again",
        Stage.LOOK,
        ("seen", "seen-cid", "seen-only", "seen-trigger"),
        "openOrders",
        most=PAGE,
        first_look=True,
    ),
)

_PLACES: Final = {
    "query": QUERY,
    "query-known": QUERY,
    "history-page": HISTORY,
    "history-one": HISTORY,
    "history-begin": HISTORY,
    "history-on": HISTORY,
    "history-walk": HISTORY,
    "open": OPEN,
    "open-abroad": ABROAD,
    "open-named": OPEN,
    "open-mute": OPEN,
    "open-first": OPEN,
    "open-again": OPEN,
}

_TOO_LONG: Final = f"the pair's history is longer than the {PAGES_MOST * PAGE} orders BingX shows of it"
_CUT: Final = f"the open list is longer than the {OPEN_MOST} orders BingX shows"
_MUTE: Final = "BingX' lists do not tell client ids, and a query finds one for two hours only"


# -- where to look next --------------------------------------------------------------------------------------
# notes: `f` looks that failed, `abs` and `bad` {place: times found absent, times not to be read}, `walk` {"by": "i" or
# "c", "at": next page}, empty after its end, `paged` a page did not reach it, `cut` the pair has too many open, `wide`
# that of all pairs is, `mute` the lists tell no client ids, `lent` looks by list in the place of a query


def next_look(target: Target) -> NextLook:
    """The look that follows those already noted."""
    by, pair = ("i" if target.order_id else "c"), target.symbol or ""
    if by == "c" and target.notes.get("mute"):
        asked = _absent(target, QUERY) + _absent(target, MUTE)
        return NextLook(f"mute:{pair}", asked >= QUERIES_WHERE_MUTE, _MUTE)
    if page := _page_of(target, by):
        return NextLook(_page_class(target, by, page), page > PAGES_MOST, _TOO_LONG if page > PAGES_MOST else "")
    open_read, history_read = _absent(target, OPEN) >= 2, _absent(target, HISTORY) >= 2
    gap = _CUT if target.notes.get("cut") and not open_read else ""
    done = history_read and (open_read or bool(gap))
    if done and not gap and _may_stand_abroad(target):
        return NextLook("abroad")
    return NextLook(_turn(target, by, pair), done, gap)


def _turn(target: Target, by: str, pair: str) -> str:
    """The fast way, the open list or the history: whichever was read least; after a failure the next of them."""
    lent = int(target.notes.get("lent", 0))
    fast = max(_tried(target, QUERY) + lent, _tried(target, HISTORY))
    tried = (fast, _tried(target, OPEN), _tried(target, HISTORY))
    fails = int(target.notes.get("f", 0))
    turn = min(range(3), key=lambda nth: (tried[nth], (nth - fails) % 3))
    if by == "c":
        return (f"named:{pair}", f"open:{pair}", _page_class(target, by, 1))[turn]
    one = f"{'sure' if target.notes.get('known') else 'seek'}:{pair}:{_begin(target)}:1"
    if target.notes.get("paged"):
        return (one, f"open:{pair}", _page_class(target, by, 1))[turn]
    return (one if fast else f"any:{pair}", f"open:{pair}", f"history:{pair}")[turn]


def _page_class(target: Target, by: str, page: int) -> str:
    """The class of a walk's page; all of it travel in one call."""
    at = min(page, PAGES_MOST)
    return f"stride:{target.symbol}:{_begin(target)}:{at}" if by == "i" else f"pages:{target.symbol}:{at}"


def _begin(target: Target) -> int:
    """Where the walk of an order begins: at its own id, or below."""
    own = _ids([target])[0]
    return max(1, own - own % GRID)


def _tried(target: Target, place: str) -> int:
    return _absent(target, place) + int(target.notes.get("bad", {}).get(place, 0))


def _may_stand_abroad(target: Target) -> bool:
    notes = target.notes
    return not (_absent(target, ABROAD) or notes.get("wide") or int(notes.get("f", 0)) >= COURTESY_FAILS)


def _absent(target: Target, place: str) -> int:
    return int(target.notes.get("abs", {}).get(place, 0))


def _page_of(target: Target, by: str) -> int:
    """The page of a walk that comes next, 0 without one. A walk by the other kind of id was through another list."""
    walk = target.notes.get("walk", {})
    return int(walk.get("at", 0)) if walk.get("by") == by else 0


# -- the call ------------------------------------------------------------------------------------------------


def query(route: Route, targets: Sequence[Target]) -> dict[str, str]:
    """Parameters of a look. Raises ValueError for a pair or an id that cannot be sent."""
    first = targets[0]
    if route.name == "open-abroad":
        return {}
    params = {"symbol": one_pair(targets)}
    match route.name:
        case "query" | "query-known":
            return params | order_ref(first)
        case "history-page":
            return params | {"orderId": str(min(_ids(targets))), "pageSize": str(PAGE)}
        case "history-one":
            return params | {"orderId": str(_ids([first])[0]), "pageSize": str(PAGE)}
        case "history-on" | "history-begin":
            begins = {_begin(target) for target in targets}
            if len(begins) > 1:
                raise ValueError("a walk's call must name one beginning")
            return params | {"orderId": str(begins.pop()), "pageSize": str(PAGE)} | _index(_one_page(targets, "i"))
        case "history-walk":
            return params | {"pageSize": str(PAGE)} | _index(_one_page(targets, "c"))
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


def _one_page(targets: Sequence[Target], by: str) -> int:
    pages = {_page_of(target, by) or 1 for target in targets}
    if len(pages) > 1:
        raise ValueError("a walk's call must name one page")
    return pages.pop()


def _index(page: int) -> dict[str, str]:
    return {"pageIndex": str(page)} if page > 1 else {}


# -- the answer ----------------------------------------------------------------------------------------------


def failed(route: Route, targets: Sequence[Target], failure: Reply) -> list[Reply]:
    """A look that brought nothing to read. "No such order" is what `query` says of one it does not know; no look finds
    an order of a pair that is not there, unless the venue has known that order before."""
    place = _PLACES.get(route.name, route.name)
    if failure.word is Word.GONE and place == QUERY and had_an_end(failure.code, failure.text) is False:
        return [replace(failure, word=Word.ABSENT, place=place)] * len(targets)
    kept = failure.word in kept_of_a_look(route)
    notes = failure.notes if place == QUERY else {}  # a list's refusal is about no order
    reply = replace(failure, word=failure.word if kept else Word.UNCLEAR, place=place, notes=notes)
    no_pair = failure.word is Word.FAILED and failure.code in ABOUT_THE_PAIR
    wrong = replace(failure, text=f"symbol: refused by the venue: {failure.text}", place=place)
    return [wrong if no_pair and not target.notes.get("known") else _noted(target, reply) for target in targets]


def _noted(target: Target, reply: Reply) -> Reply:
    """The reply, with a note of a place that could not be read, so that another one is asked next."""
    if reply.word not in (Word.UNCLEAR, Word.LATER):
        return reply
    bad = dict(target.notes.get("bad", {}))
    bad[reply.place] = int(bad.get(reply.place, 0)) + 1
    return replace(reply, notes={**reply.notes, "bad": bad})


@dataclass(frozen=True, slots=True)
class Page:
    """A list answer. `whole`: every row could be read and is of the pair that was asked for, so what is not among
    them is not on the page; `spoilt`: the other ones; `full`: it holds as many as the venue shows at once."""

    rows: list[dict[str, Any]]
    spoilt: list[dict[str, Any]]
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
    rows: list[dict[str, Any]] = []
    spoilt: list[dict[str, Any]] = []
    for row in listed:
        if isinstance(row, dict):
            (rows if order_id_of(row) and _is_of(row, pair) else spoilt).append(row)
    return Page(rows, spoilt, [int(order_id_of(row)) for row in rows], len(rows) == len(listed), len(listed) >= most)


def _is_of(row: Mapping[str, Any], pair: str | None) -> bool:
    named = word(row, "symbol")
    return is_pair(named) if pair is None else named == pair


def read(route: Route, targets: Sequence[Target], data: Any) -> list[Reply]:
    """One reply per target from the answer to a look."""
    place = _PLACES[route.name]
    if place == QUERY:
        return [_noted(target, _queried(target, data)) for target in targets]
    pair = None if place == ABROAD else targets[0].symbol
    page = read_page(data, pair, PAGE if place == HISTORY else OPEN_MOST)
    if page is None:
        nothing = Reply(Word.UNCLEAR, text="an answer without a list", place=place)
        return [_noted(target, nothing) for target in targets]
    replies = _listed(route, targets, page)
    if route.name == "open-named":
        for target, reply in zip(targets, replies, strict=True):
            reply.notes["lent"] = int(target.notes.get("lent", 0)) + 1
    return [_noted(target, reply) for target, reply in zip(targets, replies, strict=True)]


def _listed(route: Route, targets: Sequence[Target], page: Page) -> list[Reply]:
    place = _PLACES[route.name]
    by_id: dict[str, list[dict[str, Any]]] = {}
    by_client: dict[str, list[dict[str, Any]]] = {}
    for row in page.rows:
        by_id.setdefault(order_id_of(row), []).append(row)
        by_client.setdefault(client_id_of(row) or "", []).append(row)
    asked = 0
    if route.name in ("history-page", "history-one"):
        asked = min(_ids(targets))
    elif route.name in ("history-on", "history-begin"):
        asked = _begin(targets[0])

    def one(target: Target) -> Reply:
        found = by_id.get(target.order_id) if target.order_id else by_client.get(target.client_order_id or "")
        if found and any(_may_be_about(target, row) for row in page.spoilt):
            return Reply(Word.UNCLEAR, text="the answer says two things about this order", place=place)
        if found and not all(target.may_bear(client_id_of(row) or "") for row in found):
            return Reply(Word.UNCLEAR, text=OTHERS, place=place)
        if found and place == ABROAD:
            return _abroad(target, found)
        return _sighting(target, found, place) if found else _absence(route, target, page, asked)

    return [one(target) for target in targets]


def _may_be_about(target: Target, row: Mapping[str, Any]) -> bool:
    """Whether a row that cannot be read may be about this order as well."""
    if target.order_id:
        return word(row, "orderId") == target.order_id
    return client_id_of(row) == target.client_order_id


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


def _abroad(target: Target, rows: Sequence[Mapping[str, Any]]) -> Reply:
    """An order in the open list of all pairs: of the pair that was named, or of another one."""
    here = [row for row in rows if word(row, "symbol") == target.symbol]
    if here:
        return _sighting(target, here, ABROAD)
    pairs = {word(row, "symbol") for row in rows}
    if len(pairs) > 1 or {state_of(row) for row in rows} != {Word.OPEN}:
        return Reply(Word.UNCLEAR, text="the answer says two things about this order", place=ABROAD)
    pair = pairs.pop()
    text = f"symbol: this id is an order of {pair}, still open; send it with symbol {pair}"
    return Reply(Word.FAILED, text=text, place=ABROAD)


def _absence(route: Route, target: Target, page: Page, asked: int) -> Reply:
    """What it means that an order is not among the rows: the list was read to where it would stand, or not."""
    place = _PLACES[route.name]
    if not page.whole:
        return Reply(Word.UNCLEAR, text="a row that cannot be read", place=place)
    if route.name == "open-mute":
        return Reply(Word.ABSENT, place=MUTE)
    if not target.order_id and any(client_id_of(row) is None for row in page.rows):
        word_ = Word.UNSEEABLE if route.first_look else Word.UNCLEAR
        return Reply(word_, text="the list does not tell client ids", place=place, notes={"mute": 1})
    if any(found < asked for found in page.ids):
        return Reply(Word.UNCLEAR, text="a page that ignores where it was asked to begin", place=place)
    if place in (OPEN, ABROAD):
        if page.full:
            note = "cut" if place == OPEN else "wide"
            return Reply(Word.UNCLEAR, text=_CUT, place=place, notes={note: 1})
        return Reply(Word.ABSENT, place=place)
    if route.name == "history-page":
        between = page.sorted and bool(page.ids) and min(page.ids) < int(target.order_id or 0) < max(page.ids)
        if between or not page.full:
            return Reply(Word.ABSENT, place=place)
        return Reply(Word.UNREAD, place=place, notes={"paged": 1})
    # A walk is read to its end: it does not rest on the order of the list.
    by = "i" if target.order_id else "c"
    read = 0 if route.name == "history-one" else _page_of(target, by) or 1
    if page.full:
        return Reply(Word.UNREAD, place=place, notes={"walk": {"by": by, "at": read + 1}})
    return Reply(Word.ABSENT, place=place, notes={"walk": {}})
