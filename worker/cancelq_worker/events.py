"""What is written to `results`: the fields of one event, from an intent, its state and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from cancelq.contract import FINAL, Lane, Status
from cancelq_worker.state import NONE, State
from cancelq_worker.venues.port import ABOUT_THE_CALL, SWEEPS, Reply
from cancelq_worker.venues.sweeping import cancelled_by_id

VERSION = "1"
_LABELS = frozenset(
    ("scope", "symbol", "order_id", "client_order_id", "strategy", "reason", "traceparent", "priority", "origin")
)
_ORDER_ENDS = frozenset((Status.cancelled, Status.filled, Status.triggered, Status.closed))
#: A status' word and whether it is final; asking the enum for its value takes longer.
_WORDS = {status: (status.value, "1" if status in FINAL else "0") for status in Status}


def labels(record: Mapping[str, str]) -> dict[str, str]:
    """The intent's own fields that every event of it repeats."""
    return {k: v for k, v in record.items() if k in _LABELS or k.startswith("x_")}


def head(lane: Lane, id_: str, status: Status, evidence: str, detail: str) -> dict[str, str]:
    """The fields every event begins with."""
    word, final = _WORDS[status]
    return {
        "v": VERSION,
        "id": id_,
        "venue": lane.venue,
        "account": lane.account,
        "status": word,
        "final": final,
        "evidence": evidence,
        "detail": _one_line(detail),
    }


@lru_cache(256)  # most details are among a dozen
def _one_line(text: str) -> str:
    """A line that a terminal shows as it is: it may hold a venue's text."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:300].strip()


def event(
    lane: Lane,
    id_: str,
    record: Mapping[str, str],
    state: State,
    status: Status,
    evidence: str,
    detail: str,
    *,
    worker: str,
    endpoint: str,
    reply: Reply | None = None,
    open_orders: int | None = None,
) -> dict[str, str]:
    """One event of an intent that was admitted. `settled_us` is added by the ledger."""
    out = head(lane, id_, status, evidence, detail)
    out.update(labels(record))
    out["attempt"] = str(state.attempts)
    out["queued_us"] = record["queued_us"]
    out["worker"] = worker
    if state.lookups:
        out["lookups"] = str(state.lookups)
    _add_ids(out, state)
    if state.attempts:
        _add_call(out, state, endpoint)
    if reply:
        if reply.venue_state:
            out["venue_state"] = _one_line(reply.venue_state)
        if reply.filled:
            out["filled"] = reply.filled
        if reply.child_order_id:
            out["child_order_id"] = reply.child_order_id
        if reply.code and "code" not in out:
            out["code"] = _one_line(reply.code)
        if reply.http_status:
            out["http_status"] = str(reply.http_status)
        if reply.word in ABOUT_THE_CALL:
            out.update(refused="1", code=_one_line(reply.code))
    if open_orders is not None:
        out["open_orders"] = str(open_orders)
    if record["scope"] in SWEEPS:
        _add_pairs(out, state)
    return out


def looked_back(told: dict[str, str], at: str) -> dict[str, str]:
    """What an event of a look back tells of the `unresolved` intent `at`: the order's end, in the venue's own words, as
    `resolved`; nothing (no fields) as long as the venue does not state one."""
    if told["status"] not in _ORDER_ENDS:
        return {}
    truth = {name: value for name, value in told.items() if name != "attempt"}
    return {**truth, "id": at, "status": Status.resolved.value, "final": "0", "outcome": told["status"]}


def _add_ids(out: dict[str, str], state: State) -> None:
    for name, key in (("order_id", "oid"), ("client_order_id", "cid")):
        value = state.notes.get(key)
        if value and name not in out:
            out[name] = value


def _add_pairs(out: dict[str, str], state: State) -> None:
    """What a sweep did and saw: `pairs` is a comma list of PAIR=cancelled by id/still open, `newer_orders` how many
    were newer than the intent at the last look."""
    sweep = state.notes.get("sweep", {})
    still = sweep.get("pairs", {})
    gone = cancelled_by_id(state.notes, still)
    told = [f"{pair}={gone.get(pair, 0)}/{still.get(pair, 0)}" for pair in sorted({*gone, *still})]
    if told:
        out["pairs"] = ",".join(told)
    if sweep.get("newer"):
        out["newer_orders"] = str(sweep["newer"])


def _add_call(out: dict[str, str], state: State, endpoint: str) -> None:
    """The cancel call that carried the last attempt."""
    if state.batch_id != NONE:
        out.update(endpoint=endpoint, batch_id=state.batch_id, batch_size=str(state.size), taken_us=str(state.taken_us))
    call = state.notes.get("call", {})
    if call.get("b") != state.batch_id:
        return  # whoever sent the last attempt did not live to tell its times
    if "s" in call:
        out["sent_us"] = str(call["s"])
    if "a" in call:
        out["answered_us"] = str(call["a"])
    if call.get("code"):
        out["code"] = _one_line(str(call["code"]))
    if call.get("http"):
        out["http_status"] = str(call["http"])
