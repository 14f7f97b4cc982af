"""Fuzz over what venues answer: a recorded answer with something wrong in it, through the real adapter and the judge.

What must hold for each: no exception, bounded time and size, and no word that settles an intent unless the oracle says
that this answer states it for this very order.
"""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from cancelq.contract import Lane, Status
from cancelq_worker import events
from cancelq_worker.rulings import Finish, Go, Moment, Policy
from cancelq_worker.state import State
from cancelq_worker.venues.bingx.timer import BingxTimer
from cancelq_worker.venues.port import Answer, KeyRights, Reply, Route, Stage, Target, Word
from cancelq_worker.verdict import Judge
from tests.conformance.dossiers import DOSSIERS
from tests.conformance.suite import written
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.papers import Look, fill
from tests.fuzz.oracles import ORACLES
from tests.fuzz.question import Named, Question, question_of
from tests.fuzz.spoiling import HOSTILE_TEXTS, STATUSES, spoil
from tests.fuzz.spoiling import written as as_bytes

VENUES = {dossier.name: dossier for dossier in DOSSIERS if dossier.name in ORACLES}
SECONDS_MOST = 1.0  # of the processor, for one answer
NOTES_MOST = 40_000  # bytes of an intent's notes
FIELD_MOST = 5_000  # of an event: `pairs` is the longest
ASKED_MS = 1_763_690_000_000
#: What a lone word comes to in the end: the words of the port in those of the oracle.
SETTLES = {
    Word.CANCELLED: "cancelled",
    Word.FILLED: "filled",
    Word.TRIGGERED: "triggered",
    Word.CLOSED: "closed",
    Word.ABSENT: "absent",
    Word.FAILED: "failed",
    Word.DOUBTED: "failed",
}
STATUS_OF = {
    Status.cancelled: "cancelled",
    Status.filled: "filled",
    Status.triggered: "triggered",
    Status.closed: "closed",
    Status.not_found: "absent",
    Status.rejected: "failed",
}
POLICY = Policy()
JUDGED = 4  # one in so many replies that settle nothing is carried on to the judge and to an event


@dataclass(frozen=True, slots=True)
class Case:
    """One answer, and the call it came to."""

    dossier: Dossier
    route: Route
    targets: list[Target]
    answer: Answer

    def __repr__(self) -> str:
        fields = [(dict(target.fields), target.notes) for target in self.targets]
        return f"{self.dossier.name} {self.route.name} {fields} HTTP {self.answer.status} {self.answer.body[:2000]!r}"


class Broken(AssertionError):
    """An answer that was read as it must not be; the message holds the answer."""


# ---------------------------------------------------------------------------
# Making


def case(rng: Random, dossier: Dossier) -> Case:
    """Some call of this venue, and an answer that may have something wrong in it."""
    route, targets, body = rng.choices((_cancel, _refusal, _look, _page), (3, 2, 6, 4))[0](rng, dossier)
    long = rng.random() < 0.05 and route.stage is Stage.LOOK
    body = _long(rng, body) if long else spoil(rng, body, _words(dossier))
    headers = {"x-bapi-limit": rng.choice(HOSTILE_TEXTS), "x-bapi-limit-reset-timestamp": rng.choice(HOSTILE_TEXTS)}
    return Case(dossier, route, targets, Answer(rng.choice(STATUSES), headers, as_bytes(rng, body)))


Made = tuple[Route, list[Target], Any]


def _cancel(rng: Random, dossier: Dossier) -> Made:
    of = rng.choice(dossier.papers.cancels)
    body = _template(dossier, ("cancel", of.name), lambda: fill(of.body, **written.places(dossier)))
    return _route(dossier, of.route), written.targets(dossier, of), body


def _refusal(rng: Random, dossier: Dossier) -> Made:
    of = rng.choice(dossier.papers.refusals)
    code = rng.choice(dossier.papers.items if of.item else dossier.papers.codes)
    for _ in range(3):  # most codes end nothing: those that do are wanted more often
        if code.word not in SETTLES:
            code = rng.choice(dossier.papers.items if of.item else dossier.papers.codes)
    body = _template(dossier, (of.name, code), lambda: written.refusal_body(dossier, of, code))
    return _route(dossier, of.route), written.targets(dossier, of), body


def _look(rng: Random, dossier: Dossier) -> Made:
    look = rng.choice(dossier.papers.looks)
    route, target = _route(dossier, look.route), written.look_target(dossier, look)
    if rng.random() < 0.2:
        target.notes["call"] = {"code": rng.choice(sorted(ORACLES[dossier.name].refused) or ["0"])}
    targets = [target]
    if route.most > 1 and rng.random() < 0.3:
        targets.append(written.other_look_target(dossier, look))
    rows = [_row(rng, dossier, look) for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3)))]
    return route, targets, written.body(dossier, look, rows, more=bool(rows) and rng.random() < 0.2)


def _row(rng: Random, dossier: Dossier, look: Look) -> dict[str, Any]:
    """A row of the order itself, of a neighbour, or of any."""
    own = int(dossier.order_id)
    number = rng.choice((None, None, None, int(dossier.other_id), own + 1, own - 1, 1, 5 * 10**17, 10**18 + 7))
    state = rng.choice(list(dossier.papers.states[look.states]) if look.states else _states(dossier))
    symbol = dossier.other_symbol if rng.random() < 0.1 else ""
    key = (look.name, number, state, symbol)
    made: dict[str, Any] = _template(
        dossier, key, lambda: written.row(dossier, look, state, number=number, symbol=symbol)
    )
    return made


def _page(rng: Random, dossier: Dossier) -> Made:
    listing = rng.choice(dossier.papers.lists)
    target = written.look_target(dossier, listing)
    narrowed: dict[str, str] = {}
    if rng.random() < 0.2:
        narrowed["client_prefix"] = rng.choice(("mine", "c_", "zz"))
    if rng.random() < 0.2:
        narrowed["older_than_ms"] = str(ASKED_MS - 500)
    fields = {**target.fields, **narrowed}
    if rng.random() < 0.2:
        fields = {name: value for name, value in fields.items() if name != "symbol"} | {"scope": "account"}
    may, bulk = rng.random() < 0.9, rng.random() < 0.7
    target = Target(fields, target.notes, (ASKED_MS - 5, ASKED_MS + 6), may_cancel=may, may_bulk=bulk)
    rows = []
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        row = _row(rng, dossier, listing)
        row[listing.made] = str(ASKED_MS + rng.choice((-9_000, -600, -1, 0, 1, 9_000)))
        rows.append(row)
    return _route(dossier, listing.route), [target], written.body(dossier, listing, rows, more=rng.random() < 0.1)


def _template(dossier: Dossier, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """What `make` gives, made once and read anew each time: filling a template takes longer than all the rest."""
    place = (dossier.name, *key)
    if place not in _TEMPLATES:
        _TEMPLATES[place] = orjson.dumps(make())
    return orjson.loads(_TEMPLATES[place])


_TEMPLATES: dict[tuple[Any, ...], bytes] = {}


def _route(dossier: Dossier, name: str) -> Route:
    """As the dossier finds it, which looks through all of them."""
    place = (dossier.name, name)
    if place not in _ROUTES:
        _ROUTES[place] = dossier.route(name)
    return _ROUTES[place]


_ROUTES: dict[tuple[str, str], Route] = {}


def _long(rng: Random, body: Any) -> Any:
    """The same with its first list so long that it is a full page, or more; the rows have ids of their own."""
    lists = [body]
    while lists:
        value = lists.pop()
        if isinstance(value, list) and value and isinstance(value[0], dict):
            first, number = value[0], rng.randrange(10**16, 10**18)
            count = rng.choice((49, 50, 99, 100, 101, 2_000, 2_000))
            if rng.random() < 0.7:
                value.clear()  # the order itself stands on no such page
            value += [{**first, "orderId": _like(first.get("orderId"), number - n)} for n in range(count - len(value))]
            return body
        lists += list(value.values()) if isinstance(value, dict) else []
    return body


def _like(value: Any, number: int) -> Any:
    return number if isinstance(value, int) else str(max(number, 1))


def _words(dossier: Dossier) -> tuple[Any, ...]:
    """What this venue itself may write somewhere."""
    if dossier.name not in _KNOWN:
        codes = [code.code for code in (*dossier.papers.codes, *dossier.papers.items)]
        numbers = [int(code) for code in codes if code.lstrip("-").isdigit()]
        texts = [code.text for code in (*dossier.papers.codes, *dossier.papers.items) if code.text]
        ids = [dossier.order_id, dossier.other_id, dossier.client_id, dossier.other_client_id]
        pairs = [dossier.symbol, dossier.other_symbol, *dossier.foreign_symbols]
        plain = [int(dossier.order_id), int(dossier.other_id), float(dossier.order_id), "00000", 0, "0", [], None, True]
        _KNOWN[dossier.name] = (*codes, *numbers, *texts, *ids * 4, *pairs, *plain, *_states(dossier) * 3)
    return _KNOWN[dossier.name]


_KNOWN: dict[str, tuple[Any, ...]] = {}


def _states(dossier: Dossier) -> list[str]:
    return sorted({state for states in dossier.papers.states.values() for state in states})


# ---------------------------------------------------------------------------
# Checking


def check(of: Case) -> list[Word]:
    """Reads the answer as a lane does; the words it came to. Raises Broken."""
    venue, oracle = of.dossier.venue, ORACLES[of.dossier.name]
    question = question_of(venue.encode(of.route, of.targets), of.targets, oracle.refused)
    began_s = time.process_time()
    replies = venue.decode(of.route, of.targets, of.answer)
    venue.told_limit(of.answer)
    took_s = time.process_time() - began_s
    _must(took_s < SECONDS_MOST, of, f"it took {took_s:.1f} s")
    _must(len(replies) == len(of.targets), of, f"{len(replies)} replies for {len(of.targets)} intents")
    if question.swept:
        _check_sweep(of, question, replies[0])
    else:
        for reply, stated in zip(replies, oracle.stated(question, of.answer), strict=True):
            said = SETTLES.get(reply.word) or ("failed" if reply.word is Word.SPLIT and len(replies) == 1 else "")
            _must(not said or said in stated, of, f"{reply}, but it states {set(stated) or 'nothing'}")
            if said or len(of.answer.body) % JUDGED == 0:
                _judge(of, of.targets[replies.index(reply)], reply, stated, len(replies))
    for reply in replies:
        _check_size(of, reply)
    return [reply.word for reply in replies]


def _check_sweep(of: Case, question: Question, reply: Reply) -> None:
    if reply.word in SETTLES or reply.word is Word.SPLIT:
        alone = Question("POST", "cancel", {}, (Named("order", "-", "1", ""),))
        (stated,) = ORACLES[of.dossier.name].stated(alone, of.answer)
        said = SETTLES.get(reply.word, "failed")
        _must(said == "failed" and said in stated, of, f"{reply.word} of a sweep, but it states {set(stated)}")
    if reply.word is not Word.LISTED:
        return
    sweep, told = reply.notes["sweep"], ORACLES[of.dossier.name].listed(question, of.answer)
    named = {row["id"] for row in sweep["todo"]}
    _must(named <= told.sure, of, f"would cancel {named - told.sure}, which are not surely meant")
    if sweep.get("bulk"):
        _must(told.whole and told.open_ <= told.sure, of, f"a bulk call would hit {told.open_ - told.sure} as well")
    elif sweep["end"] and not named and not sweep.get("open"):
        _must(told.whole, of, "called empty although it was not read whole")
        _must(not told.possible, of, f"called empty although {set(told.possible)} may be open")


def _judge(of: Case, target: Target, reply: Reply, stated: frozenset[str], size: int) -> None:
    """What follows from this reply for an intent at its start, and for one whose every place was read before."""
    judge = Judge(of.dossier.venue, POLICY, Random(0))
    record = {**target.fields, "queued_us": "1", "venue": of.dossier.name, "account": "main"}
    at = Moment(20_000_000_000, 1, 2)
    nearly = dict.fromkeys(_PLACES[of.dossier.name], 2)
    for notes in ({}, {"abs": nearly, "t0": 1}):
        before = State(fence=1, stage=of.route.stage, notes={**target.notes, **notes})
        taken = before.at_rest(2)
        taken.attempts, taken.size, taken.batch_id, taken.route = 1, size, "b-1", of.route.name
        verdict = (judge.cancel if of.route.stage is Stage.CANCEL else judge.look)(before, taken, record, reply, at)
        if isinstance(verdict, Finish) and verdict.status is not Status.unresolved:
            word = STATUS_OF[verdict.status]
            _must(word in stated, of, f"ends as {verdict.status}, but it states {set(stated) or 'nothing'}")
        _check_kept(of, verdict)
        _check_event(of, verdict, record)


def _check_kept(of: Case, verdict: Finish | Go) -> None:
    """The state line that Redis keeps reads back as it was written."""
    state = verdict.state
    state.orders = of.dossier.venue.order_keys(Target(of.targets[0].fields, state.notes))
    line = state.pack()
    _must(State.parse(line.encode()) == state, of, f"a state line that reads back otherwise: {line[:300]}")
    _must(len(line) <= NOTES_MOST, of, f"a state line of {len(line)} bytes")


def _check_event(of: Case, verdict: Finish | Go, record: dict[str, str]) -> None:
    status = verdict.status if isinstance(verdict, Finish) else verdict.tell or Status.retrying
    told = events.event(
        Lane(of.dossier.name, "main"), "i-1", record, verdict.state, status, "reply", verdict.detail,
        worker="w", endpoint="/e", reply=verdict.reply,
    )  # fmt: skip
    for name, value in told.items():
        _must(len(value) <= FIELD_MOST and value.isprintable(), of, f"event field {name}: {value[:80]!r}")


def _check_size(of: Case, reply: Reply) -> None:
    _must(len(reply.text) <= 400 and len(reply.code) <= 16, of, f"a text of {len(reply.text)} characters")
    _must(len(orjson.dumps(reply.notes)) <= NOTES_MOST, of, "notes without bound")
    ids = (reply.order_id, reply.client_order_id, reply.child_order_id)
    _must(all(len(id_) <= 64 and not set(id_) & set(" ,\r\n\x00") for id_ in ids), of, f"ids {ids}")


def _must(so: object, of: Case | str, why: str) -> None:
    if not so:
        raise Broken(f"{why}\n{of!r}")


_PLACES = {
    "bitget": ("info", "history", "open", "tpsl-open", "stop-open", "tpsl-history", "stop-history"),
    "bybit": ("realtime", "history"),
    "bingx": ("query", "open", "history", "abroad", "mute"),
}


# ---------------------------------------------------------------------------
# Calls beside the orders: time, rights of the key, key of the stream, the venue's own timer

ASIDE: dict[str, tuple[Any, ...]] = {
    "bitget": (
        {"code": "00000", "data": {"serverTime": "1763690000000"}},
        {"code": "00000", "data": {"userId": "1", "authorities": ["trade", "readonly"], "ips": "127.0.0.1,10.0.0.1"}},
    ),
    "bybit": (
        {"retCode": 0, "result": {"timeSecond": "1763690000", "timeNano": "1763690000000000000"}},
        {
            "retCode": 0,
            "result": {
                "readOnly": 0,
                "permissions": {"Spot": ["SpotTrade"], "Wallet": ["AccountTransfer"]},
                "ips": ["*"],
                "expiredAt": "2026-12-01T00:00:00Z",
            },
        },
    ),
    "bingx": (
        {"code": 0, "data": {"serverTime": 1763690000000}},
        {"code": 0, "data": {"permissions": [1, 2], "ipAddresses": ["127.0.0.1"]}},
        {"code": 0, "data": {"enableSpotAndMarginTrading": True, "enableWithdrawals": False, "ipRestrict": True}},
        {"listenKey": "a8ea75681542e66f1a50a1616dd06ed77dab61baa0c296bca03a9b13ee5f2dd7"},
        {"code": 0, "msg": "", "data": {"triggerTime": 1763690000000, "status": "ACTIVATED"}},
    ),
}
WITHDRAWAL = re.compile(rb"withdraw|wwow|5", re.IGNORECASE)


def aside(rng: Random, dossier: Dossier) -> Answer:
    """An answer to such a call that may have something wrong in it."""
    number = rng.randrange(len(ASIDE[dossier.name]))
    body = _template(dossier, ("aside", number), lambda: ASIDE[dossier.name][number])
    words = (
        *_words(dossier),
        "withdraw",
        "wwow",
        "trade",
        5,
        "5",
        "Withdraw",
        "2026-13-45",
        "0001-01-01",
        {"a": ["b"]},
    )
    return Answer(rng.choice(STATUSES), {}, as_bytes(rng, spoil(rng, body, words)))


def check_aside(dossier: Dossier, said: Answer) -> None:
    """Reads such an answer in every way it may be read. Raises Broken."""
    venue, where = dossier.venue, f"{dossier.name} aside HTTP {said.status} {said.body[:2000]!r}"
    began_s = time.process_time()
    at_ms, _, rights = venue.read_time(said), venue.read_probe(said), venue.read_rights(said)
    _must(at_ms is None or 0 < at_ms < 10**14, where, f"a time of {at_ms}")
    if isinstance(rights, KeyRights):
        told = (*rights.names, *(rights.addresses or ()))
        _must(all(len(name) <= 64 for name in told), where, "a right without bound")
        _must(rights.withdraw is not True or WITHDRAWAL.search(said.body), where, "may withdraw, which nothing says")
        _must(said.status == 200, where, f"rights under HTTP {said.status}")
    if dossier.name == "bingx":
        refused = BingxTimer().refusal(said)
        _must(len(refused) < 400 and (refused or (said.status == 200 and said.body)), where, f"timer: {refused!r}")
        assert venue.stream is not None
        with suppress(ValueError):
            _must(len(venue.stream.read_key(said)) <= 256, where, "a key without bound")
    _must(time.process_time() - began_s < SECONDS_MOST, where, "it took too long")


# ---------------------------------------------------------------------------
# Pushes


def frame(rng: Random, dossier: Dossier) -> bytes | str:
    """A push of the venue's order stream that may have something wrong in it."""
    of = rng.choice(dossier.papers.pushes)
    state = rng.choice(_states(dossier))

    def fresh() -> Any:
        values = written.places(dossier) | {"state": state}
        return fill(of.frame, row=fill(dict(of.row), **values), **values)

    whole = as_bytes(rng, spoil(rng, _template(dossier, (of.name, state), fresh), _words(dossier)))
    if of.zipped and rng.random() < 0.9:
        whole = gzip.compress(whole)
        return whole if rng.random() < 0.9 else whole[: rng.randrange(len(whole))]
    try:
        return whole.decode() if rng.random() < 0.8 else whole
    except UnicodeDecodeError:
        return whole


def check_frame(dossier: Dossier, said: bytes | str) -> int:
    """Reads a frame as a lane does; how many ends it stated. Raises Broken."""
    stream, oracle = dossier.venue.stream, ORACLES[dossier.name]
    assert stream is not None
    where = f"{dossier.name} stream {said[:2000]!r}"
    began_s = time.process_time()
    read = stream.read(said)
    _must(time.process_time() - began_s < SECONDS_MOST, where, "it took too long")
    _must(all(len(text) < 100_000 for text in read.send) and len(read.refused) < 400, where, "an answer without bound")
    ends = [push for push in read.pushes if push.reply.word in SETTLES]
    if not ends:
        return 0
    stated = oracle.pushed(_object(said))
    for push in ends:
        reply = push.reply
        word = SETTLES[reply.word]
        _must(word in stated.get(reply.order_id, ()), where, f"{word} of {reply.order_id!r}, but it states {stated}")
        own = tuple(f":{id_}" for id_ in (reply.order_id, reply.client_order_id) if id_)
        _must(all(f":{key}".endswith(own) for key in push.keys), where, f"it would end intents of {push.keys}")
    return len(ends)


def _object(said: bytes | str) -> dict[str, Any]:
    if isinstance(said, bytes) and said[:2] == b"\x1f\x8b":
        said = gzip.decompress(said)
    found = orjson.loads(said)
    return found if isinstance(found, dict) else {}
