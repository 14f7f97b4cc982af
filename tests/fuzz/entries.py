"""Fuzz over inbox entries: whatever a producer writes becomes an intent, or one outcome that names the field.

What must hold for each: no exception, bounded time and size, and nothing of it that could break a state line, a Redis
key, a signed query or a terminal.
"""

from __future__ import annotations

import re
import time
from random import Random

import orjson

from cancelq.contract import MAX_ENTRY_BYTES, MAX_ENTRY_FIELDS, Event, Lane, Refused, Status, read_entry
from cancelq_worker.cli import showing
from cancelq_worker.intake import Intake
from cancelq_worker.records import NewIntent, NewOutcome
from cancelq_worker.state import LOCAL, State
from cancelq_worker.venues.port import Target
from tests.fuzz.answers import VENUES, Broken
from tests.fuzz.spoiling import HOSTILE_TEXTS

Flat = list[bytes]

ENTRY_ID = "1763690000000-0"
SECONDS_MOST = 1.0
DETAIL_MOST = 300
EVENT_MOST = 3 * MAX_ENTRY_BYTES  # bytes of an event: what it copies of an entry, and what it says of it
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: Every field of the contract, with values that are right where it belongs.
RIGHT: dict[str, tuple[str, ...]] = {
    "v": ("1",),
    "id": ("k:1", "desk-7", "a" * 64),
    "scope": ("order", "order", "tpsl", "stop", "symbol", "account", "revoke"),
    "kinds": ("order", "stop,order", "tpsl,stop,order"),
    "older_than_ms": ("1700000000000", "0005"),
    "client_prefix": ("mm-",),
    "target": ("k:1", "1700000000000-0"),
    "symbol": ("BTCUSDT", "BTC-USDT", "ETHUSDT"),
    "order_id": ("1", "121211212122", "1735964079647111281"),
    "client_order_id": ("mm-1", "mine_1"),
    "only_if": ("NEW", "PENDING"),
    "priority": ("normal", "urgent"),
    "not_before_ms": ("1700000000000", "0"),
    "expires_at_ms": ("1700000000000", "9999999999999"),
    "strategy": ("mm", ""),
    "reason": ("stale", "über"),
    "traceparent": (TRACE,),
    "origin": ("k:0",),
}
GOOD: tuple[dict[str, str], ...] = (
    {"symbol": "BTCUSDT", "order_id": "1"},
    {"symbol": "BTC-USDT", "order_id": "1735964079647111281"},
    {"symbol": "BTCUSDT", "client_order_id": "mine_1"},
    {"scope": "tpsl", "order_id": "1", "symbol": "BTCUSDT"},
    {"scope": "stop", "order_id": "1", "symbol": "BTC-USDT"},
    {"scope": "symbol", "symbol": "BTCUSDT"},
    {"scope": "account", "kinds": "order,stop"},
    {"scope": "revoke", "target": "k:1"},
)
NAMES = (
    *RIGHT,
    "x_a",
    "x_tag.1",
    "X_a",
    "x_",
    "Symbol",
    "orderId",
    "order_id ",
    "_",
    "",
    "\x00",
    "x_\x1b[2J",
    "\u0441ancel",
)


# ---------------------------------------------------------------------------
# Making


def entry(rng: Random) -> Flat:
    """An entry as the server holds it: names and values in turn."""
    match rng.randrange(40):
        case 0:
            return [rng.randbytes(rng.randrange(20)) for _ in range(2 * rng.randrange(1, 6))]
        case 1:
            return _many(rng)
        case 2:
            return [b"symbol", b"BTCUSDT", b"order_id", b"9" * rng.choice((65, 4_000, 4_097, 50_000)), b"x_a", b"1"]
        case _:
            return _spoilt(rng, dict(rng.choice(GOOD)))


def _many(rng: Random) -> Flat:
    number = rng.choice((MAX_ENTRY_FIELDS - 1, MAX_ENTRY_FIELDS, MAX_ENTRY_FIELDS + 1, 3_000))
    name = rng.choice((b"x_%d", b"f%d", b""))
    flat: Flat = []
    for n in range(number):
        flat += [name % n if b"%" in name else name, b""]
    return [b"symbol", b"BTCUSDT", b"order_id", b"1", *flat]


def _spoilt(rng: Random, fields: dict[str, str]) -> Flat:
    if rng.random() < 0.3:
        fields["id"] = rng.choice(RIGHT["id"])
    flat = [(name.encode(), value.encode()) for name, value in fields.items()]
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3, 5))):
        name, value = rng.choice(NAMES).encode(), _value(rng)
        match rng.randrange(6):
            case 0 if flat:
                flat.remove(rng.choice(flat))
            case 1 if flat:
                flat.append(rng.choice(flat))
            case 2 if flat:
                at = rng.randrange(len(flat))
                flat[at] = (flat[at][0], value)
            case _:
                flat.insert(rng.randrange(len(flat) + 1), (name, value))
    return [word for pair in flat for word in pair] or [b"", b""]


def _value(rng: Random) -> bytes:
    match rng.randrange(8):
        case 0:
            return rng.randbytes(rng.randrange(1, 90))
        case 1:
            return "".join(chr(rng.randrange(0x20, 0xD7FF)) for _ in range(rng.randrange(80))).encode()
        case 2 | 3 | 4:
            return rng.choice(rng.choice(list(RIGHT.values()))).encode()
        case 5:
            return str(rng.randrange(10 ** rng.randrange(1, 25))).encode()
        case _:
            return rng.choice(HOSTILE_TEXTS).encode()


# ---------------------------------------------------------------------------
# Checking


INTAKES = {name: Intake(Lane(name, "main"), dossier.venue, "w1") for name, dossier in VENUES.items()}


def check(venue: str, flat: Flat, entry_id: str = ENTRY_ID) -> str:
    """Reads an entry as admission does, for a lane of that venue: what became of it. Raises Broken."""
    began_s = time.process_time()
    read = read_entry(entry_id, flat)
    admission = INTAKES[venue].prepare("0-0", [(entry_id, flat)])
    took_s = time.process_time() - began_s
    _must(took_s < SECONDS_MOST, flat, f"it took {took_s:.2f} s")
    (item,) = admission.items
    if isinstance(read, Refused):
        _must(isinstance(item, NewOutcome), flat, "was refused and is carried all the same")
        names = {name.decode(errors="replace") for name in flat[::2]}
        plain = re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", read.field) is not None
        known = read.field in names or not plain or read.field in (*RIGHT, "entry")
        _must(read.field and known, flat, f"names a field that is not there: {read.field!r}")
    match item:
        case NewOutcome():
            _check_outcome(flat, item)
            return "rejected"
        case NewIntent():
            _check_intent(venue, flat, item)
            return "admitted"


def _check_outcome(flat: Flat, item: NewOutcome) -> None:
    told = item.event
    _must(told["status"] == "rejected" and told["final"] == "1", flat, f"is told as {told}")
    field, _, says = told["detail"].partition(": ")
    _must(field and says and len(told["detail"]) <= DETAIL_MOST, flat, f"does not name the field: {told['detail']!r}")
    check_event(flat, told)


def check_event(of: object, told: dict[str, str]) -> None:
    """An event is bounded, can be read back, and moves no terminal."""
    size = sum(len(name.encode()) + len(value.encode()) for name, value in told.items())
    _must(size <= EVENT_MOST, of, f"an event of {size} bytes")
    _must(told["detail"].isprintable(), of, f"a detail that is no plain line: {told['detail']!r}")
    event = Event.read(ENTRY_ID, {name.encode(): value.encode() for name, value in told.items()})
    _must(event.status is Status(told["status"]), of, "an event that reads back otherwise")
    for line in (showing.as_line(event, colour=False), showing.as_json(event)):
        _must(line.isprintable(), of, f"shown with what moves a terminal: {line!r}")


#: What the contract says of the values that may be acted on, read off it once more.
_PLAIN = re.compile(r"[A-Za-z0-9._:#+/=-]{1,64}")
_SHAPES = {
    "id": re.compile(r"[A-Za-z0-9._:-]{1,64}"),
    "scope": re.compile(r"order|tpsl|stop|symbol|account|revoke"),
    "symbol": re.compile(r"[A-Za-z0-9_-]{1,32}"),
    "order_id": _PLAIN,
    "client_order_id": _PLAIN,
    "client_prefix": _PLAIN,
    "priority": re.compile(r"normal|urgent"),
    **dict.fromkeys(("older_than_ms", "not_before_ms", "expires_at_ms"), re.compile(r"[0-9]{1,13}")),
    **dict.fromkeys(("strategy", "reason"), re.compile(r"[^\x00-\x1f\x7f]{0,64}")),
}


def _unfit(flat: Flat) -> str:
    """Why the contract does not let an entry be acted on, "" if it may be."""
    names = flat[::2]
    if len(flat) % 2 or len(set(names)) < len(names):
        return "a field without a value, or given more than once"
    if len(names) > MAX_ENTRY_FIELDS or sum(map(len, flat)) > MAX_ENTRY_BYTES:
        return "too large"
    try:
        fields = {name.decode(): value.decode() for name, value in zip(names, flat[1::2], strict=True)}
    except UnicodeDecodeError:
        return "not UTF-8"
    for name, value in fields.items():
        if name not in RIGHT and not name.startswith("x_"):
            return f"an unknown field {name!r}"
        if name in _SHAPES and not _SHAPES[name].fullmatch(value):
            return f"{name} is {value!r}"
    return ""


def _check_intent(venue: str, flat: Flat, item: NewIntent) -> None:
    state, record = item.state, item.record
    unfit = _unfit(flat)
    _must(not unfit, flat, f"is carried although it has {unfit}")
    line = state.pack()
    _must(State.parse(line.encode()).pack() == line, flat, f"a state line that reads back otherwise: {line!r}")
    _must(orjson.loads(orjson.dumps(record)) == record, flat, "a record that reads back otherwise")
    words = (item.id, state.queue, *state.orders)
    _must(not any(re.search(r"[\s\x00-\x20,]", word) for word in words), flat, f"a key with a blank in it: {words}")
    if state.cancel_class != LOCAL:
        _check_calls(venue, flat, item)


def _check_calls(venue: str, flat: Flat, item: NewIntent) -> None:
    """Each call that may carry it is plain ASCII, or is refused with a ValueError."""
    port, target = VENUES[venue].venue, Target(item.record, {})
    classes = {item.state.cancel_class.partition(":")[0], item.state.look_class.partition(":")[0]}
    for route in port.routes:
        if classes.isdisjoint(route.kinds):
            continue
        try:
            request = port.encode(route, [target])
        except ValueError:
            continue
        sent = f"{request.path}?{request.query}"
        _must(re.fullmatch(r"[\x21-\x7e]+", sent), flat, f"a call with {sent!r}")
        if request.body:
            named = orjson.loads(request.body)
            _must(isinstance(named, dict) and named, flat, f"a call with {request.body!r}")


def _must(so: object, of: object, why: str) -> None:
    if not so:
        raise Broken(f"{why}\n{of!r}"[:4_000])
