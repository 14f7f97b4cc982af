"""Scopes `symbol` and `account`, the same at every venue: one bulk call at most, then lists and cancels by order id.

A bulk call is made once per intent, and only where it does exactly what was asked: never for an intent that is
narrowed, never a second time. Everything else is found in the open lists and cancelled by id, if it is older than the
intent: an empty list or a missing symbol, which would cancel everything, cannot be expressed here.

A sweep's progress stands in its notes under `sweep`:
  k      index of the list being read           at     that list's cursor
  open   orders that matched in this pass       todo   [{id, symbol, kind}] to be cancelled next (kind: if no `order`)
  unsure orders of this pass of which nobody can tell whether they are meant
  close  of these, those created so close to the intent (or its bound) that the clocks leave it open which came first
  doubt  by how much: that many ms, either way
  newer  orders of this pass that are newer than the intent and else as it means
  pairs  pair → orders of this pass that matched, for the report
  bulk   the class of the bulk call that comes next
  end    every list was read in this pass
  again  the list is read only for what of `todo` is on it still; where one page holds the whole list
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cancelq_worker.venues.port import ABOUT_THE_CALL, Plan, Reply, Route, Stage, Target, Word

ORDER: Final = "order"
LIST: Final = "sweep-list"  # what the names of list routes begin with
TODO_MOST: Final = 300  # orders of one list that are cancelled before it is read again
PAIRS_MOST: Final = 100  # pairs that are told apart in a report
OTHER_PAIRS: Final = "others"


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order as an open list shows it. `kind`: order, tpsl or stop, "" for one no intent can mean; `created_ms`:
    the venue's own creation time; that and the client id are None where the row does not tell."""

    order_id: str
    client_order_id: str | None
    symbol: str
    kind: str
    created_ms: int | None


@dataclass(frozen=True, slots=True)
class OpenPage:
    """A page of an open list. `next_at`: the cursor of the page behind it, "" if this was the last; `cut`: the venue
    shows no more of a list that is longer, so that nothing is proven by absence."""

    rows: Sequence[OpenOrder]
    next_at: str = ""
    cut: bool = False


def _never(_: Target) -> str:
    return ""


def _list_of_each_kind(target: Target) -> list[str]:
    """The normal orders last: one with a trigger that fires while lists are read leaves the list of its kind, and what
    it places stands among the normal ones."""
    return sorted(kinds(target), key=lambda kind: kind == ORDER)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a venue sweeps.

    `sizes`: route → how many orders its call names; `lists`: names of the open lists that hold the kinds asked for, one
    for each kind if nothing else is said; `at_once`: the class of the bulk call that does exactly what an unnarrowed
    intent asks, "" if there is none; `if_all_meant`: the same for once the open orders were seen, each of them is meant
    and older, and they are more than one call names by id: what is placed between the list and the bulk call goes as
    well, so it has to be worth it; `one_symbol`: a call's orders must be of one pair; `counted`: a route whose call
    costs a unit for each order in it.
    """

    sizes: Mapping[str, int]
    lists: Callable[[Target], Sequence[str]] = _list_of_each_kind
    at_once: Callable[[Target], str] = _never
    if_all_meant: Callable[[Target], str] = _never
    one_symbol: bool = False
    counted: str = ""

    def plan(self, target: Target) -> Plan:
        """How a sweep starts: with the bulk call where it says exactly what was asked, else with a list."""
        bulk = "" if narrowed(target) else self.at_once(target)
        start = Stage.CANCEL if bulk else Stage.LOOK
        return Plan(bulk or f"sweep-{kinds(target)[0]}", self.look_class(target), start=start)

    def look_class(self, target: Target) -> str:
        """The queue in which the next list page is waited for."""
        names = self.lists(target)
        return f"sweep-{names[progress(target).get('k', 0) % len(names)]}"

    def cancel_class(self, target: Target) -> str:
        """The bulk call, or what was found is cancelled by id, one kind at a time."""
        now = progress(target)
        if now.get("bulk"):
            return str(now["bulk"])
        if not now.get("todo"):  # a bulk call that was not carried out
            return self.at_once(target) or f"sweep-{ORDER}"
        kind = f"sweep-{now['todo'][0].get('kind', ORDER)}"
        return f"{kind}:{len(self.due(self.counted, target))}" if self.counted else kind

    def due(self, route: str, target: Target) -> list[dict[str, str]]:
        """What the next call of a route names, no more than is paid for: its class may be the word of a worker whose
        batches have another size, and the bucket be smaller than a batch. Raises ValueError if there is nothing."""
        todo: list[dict[str, str]] = progress(target).get("todo", [])
        if not todo:
            raise ValueError("a sweep's cancel must name orders")
        first, named, most = todo[0], [], self.sizes.get(route, 1)
        if route == self.counted and target.paid is not None:
            most = min(most, target.paid)
        for row in todo[:most]:
            if row.get("kind") != first.get("kind") or (self.one_symbol and row["symbol"] != first["symbol"]):
                break
            named.append(row)
        return named

    def read(self, place: str, target: Target, page: OpenPage) -> Reply:
        """A list page: what on it is meant goes to `todo`; what it means for the sweep is in `Reply.notes`."""
        now = dict(progress(target))
        if now.pop("again", 0):
            listed = {row.order_id for row in page.rows}
            now["todo"] = [row for row in now["todo"] if page.cut or row["id"] in listed]
            return Reply(Word.LISTED, place=place, notes={"sweep": now})
        if now.get("end"):  # a pass that was over when its worker ended: this is the first page of the next
            now = {}
        first_page = not now.get("k") and not now.get("at")
        todo: list[dict[str, str]] = []
        for row in page.rows:
            age = _age(target, row)
            if not _meant(target, row):
                continue
            if age == "newer":
                now["newer"] = now.get("newer", 0) + 1
                continue
            now["open"] = now.get("open", 0) + 1
            now["pairs"] = count_pair(now.get("pairs", {}), row.symbol)
            if age == "older":
                kind = {} if row.kind == ORDER else {"kind": row.kind}
                todo.append({"id": row.order_id, "symbol": row.symbol, **kind})
            else:
                now["unsure"] = now.get("unsure", 0) + 1
            if age == "close":
                now["close"], now["doubt"] = now.get("close", 0) + 1, _doubt_ms(target)
        if page.cut and not todo:
            return Reply(Word.UNCLEAR, text="the open list is cut off, and what is asked for is not on it", place=place)
        todo.sort(key=lambda row: (row.get("kind", ""), row["symbol"]))
        whole = first_page and not page.next_at and not page.cut and len(self.lists(target)) == 1
        if page.next_at:
            now["at"] = page.next_at
        else:
            now["k"], now["at"] = now.get("k", 0) + 1, ""
        now["end"] = now.get("k", 0) >= len(self.lists(target))
        now["todo"] = todo[:TODO_MOST] if target.may_cancel else []
        now["bulk"] = ""
        many = len(todo) > max(self.sizes.values(), default=1)
        if whole and target.may_bulk and len(todo) == len(page.rows) and many and not narrowed(target):
            now["bulk"] = self.if_all_meant(target)
            if now["bulk"]:
                now["todo"] = []
        return Reply(Word.LISTED, place=place, notes={"sweep": now})


def count_pair(counts: Mapping[str, int], symbol: str) -> dict[str, int]:
    """The counts with one more of that pair."""
    counted = dict(counts)
    name = symbol if symbol in counted or len(counted) < PAIRS_MOST else OTHER_PAIRS
    counted[name] = counted.get(name, 0) + 1
    return counted


def keep_most(notes: dict[str, Any]) -> None:
    """After a whole pass over the lists: how many orders of each pair a pass has seen at most."""
    most = notes.get("most", {})
    notes["most"] = {**most, **{p: max(n, most.get(p, 0)) for p, n in notes["sweep"].get("pairs", {}).items()}}


def cancelled_by_id(notes: Mapping[str, Any], still: Mapping[str, int]) -> dict[str, int]:
    """Pair → orders that are gone of those that were named in cancels, however often; before the end of the first pass
    all that were named. `still`: those that are open."""
    most = notes.get("most", {})
    gone = {pair: max(0, seen - still.get(pair, 0)) for pair, seen in most.items()}
    return {pair: min(count, gone.get(pair, count)) for pair, count in notes.get("named", {}).items()}


def kept_of_a_look(route: Route) -> frozenset[Word]:
    """What a failed look may say as it is. A sweep's list that can never be read as asked says so."""
    about = ABOUT_THE_CALL | {Word.LATER}
    return about | {Word.FAILED} if route.name.startswith(LIST) else about


def narrowed(target: Target) -> bool:
    """Whether only some of the orders are meant."""
    return "older_than_ms" in target.fields or "client_prefix" in target.fields


def kinds(target: Target) -> list[str]:
    """Which kinds of orders the intent means."""
    return target.fields.get("kinds", ORDER).split(",")


def progress(target: Target) -> dict[str, Any]:
    """The sweep's notes."""
    found: dict[str, Any] = target.notes.get("sweep", {})
    return found


def bulk_symbol(target: Target) -> str | None:
    """The pair a bulk call names; None for a whole account. Raises ValueError rather than widen a pair to it."""
    if target.scope == "account" and not target.symbol:
        return None
    if target.scope != "symbol" or not target.symbol:
        raise ValueError("a bulk cancel must name its pair, or be meant for the whole account")
    return target.symbol


def _meant(target: Target, row: OpenOrder) -> bool:
    if target.symbol and row.symbol != target.symbol:
        return False
    if row.kind not in kinds(target):
        return False
    return row.client_order_id is None or row.client_order_id.startswith(target.fields.get("client_prefix", ""))


def _age(target: Target, row: OpenOrder) -> str:
    """older, newer, or close to where that changes, by the venue's own creation time. Unsure where nobody can tell
    whether the order is one of those meant, however well the clocks are known."""
    band_ms = _band_ms(target)
    if band_ms is None or row.created_ms is None or (row.client_order_id is None and "client_prefix" in target.fields):
        return "unsure"
    older, newer = band_ms
    if row.created_ms < older:
        return "older"
    return "newer" if row.created_ms >= newer else "close"


def _band_ms(target: Target) -> tuple[int, int] | None:
    """Before the first an order is older than the intent and its bound, from the second on it is not. None: the venue's
    time is not known."""
    if target.age_band_ms is None or "older_than_ms" not in target.fields:
        return target.age_band_ms
    older, newer = target.age_band_ms
    given_ms = int(target.fields["older_than_ms"])
    least, most = target.older_than_ms or (given_ms, given_ms)
    return min(older, least), min(newer, most)


def _doubt_ms(target: Target) -> int:
    older, newer = _band_ms(target) or (0, 0)
    return (newer - older + 1) // 2
