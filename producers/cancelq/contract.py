"""The wire contract: what a producer asks (`Intent`), what a worker makes of it (`read_entry`), what comes
back (`Event`).

One table of rules, `_RULES` with `_SCOPES`, serves both ends: `Intent` refuses what `read_entry` would
refuse. Entries are flat maps of text. Times are UTC: `…_ms` epoch milliseconds, `…_us` epoch microseconds.

Contract version 1. Field names may be added in later versions; none ever changes its meaning.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from hashlib import blake2b
from itertools import chain, permutations
from time import time_ns
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cancelq.errors import EventError, IntentError, LaneError

VERSION = "1"
VENUES = ("bitget", "bybit", "bingx")

# An entry larger than this, names and values together, is refused.
MAX_ENTRY_BYTES = 4096
# More fields than this cannot be meant; it bounds the work on an entry made of empty fields.
MAX_ENTRY_FIELDS = 128
# symbol and account intents that name no expiry end this long after they were queued.
BULK_EXPIRES_AFTER_MS = 60_000
# Thirteen digits: the year 2286, and far below 2^53, where Lua begins to round.
MAX_EPOCH_MS = 9_999_999_999_999


class Scope(StrEnum):
    """What an intent cancels; `revoke` withdraws another intent instead."""

    order = "order"
    tpsl = "tpsl"
    stop = "stop"
    symbol = "symbol"
    account = "account"
    revoke = "revoke"


class Status(StrEnum):
    """What an event states; the words are explained in the contract."""

    cancelled = "cancelled"
    filled = "filled"
    triggered = "triggered"
    closed = "closed"
    revoked = "revoked"
    not_found = "not_found"
    rejected = "rejected"
    expired = "expired"
    unresolved = "unresolved"
    accepted = "accepted"
    retrying = "retrying"
    duplicate = "duplicate"
    resolved = "resolved"
    operator = "operator"


# Every intent gets exactly one event with one of these.
FINAL = frozenset(
    {
        Status.cancelled,
        Status.filled,
        Status.triggered,
        Status.closed,
        Status.revoked,
        Status.not_found,
        Status.rejected,
        Status.expired,
        Status.unresolved,
    }
)

Kind = Literal["order", "tpsl", "stop"]
OnlyIf = Literal["NEW", "PENDING", "PARTIALLY_FILLED"]
Priority = Literal["normal", "urgent"]


# ---------------------------------------------------------------------------
# Lanes


@dataclass(frozen=True, slots=True)
class Lane:
    """One venue and one account. `LaneError` if the venue is unknown or the account is no alias.

    An account is 1 to 32 of `[a-z0-9_]`, begins with a letter and holds no `__` (settings nest with it).
    """

    venue: str
    account: str

    def __post_init__(self) -> None:
        if self.venue not in VENUES:
            raise LaneError(f"unknown venue {_show(self.venue)}{_or_rather(self.venue, VENUES)}; wants {_any(VENUES)}")
        if not _ACCOUNT(self.account) or "__" in self.account:
            raise LaneError(
                f"{_show(self.account)} is no account alias; wants 1 to 32 of a-z, 0-9 and _, a letter first, no __"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The lane written `bitget:main`."""
        venue, colon, account = text.partition(":")
        if not colon:
            raise LaneError(f"{_show(text)} is no lane; write venue:account, like bitget:main")
        return cls(venue, account)

    def __str__(self) -> str:
        return f"{self.venue}:{self.account}"

    def key(self, name: str) -> str:
        """The Redis key of that name in this lane; all keys of a lane share one cluster slot."""
        return f"cancelq:{{{self.venue}:{self.account}}}:{name}"

    @property
    def inbox(self) -> str:
        """Stream of what is asked."""
        return self.key("inbox")

    @property
    def results(self) -> str:
        """Stream of what became of it."""
        return self.key("results")

    @property
    def guard(self) -> str:
        """Key of the dead man's switch."""
        return self.key("guard")


# ---------------------------------------------------------------------------
# Reading an inbox entry


@dataclass(frozen=True, slots=True)
class Accepted:
    """An entry that can be acted on.

    id           the idempotency key: the entry's own, or the entry id
    explicit_id  whether the producer gave the id
    fields       every field but `v` and `id`, defaults filled in: `scope`, `priority`, for bulk scopes also
                 `kinds` (in the order order, tpsl, stop) and `expires_at_ms`; numbers without leading zeros
    digest       8 hex characters over what was asked: equal for equal content, whatever the id, the order of
                 the fields, or defaults written out; `traceparent` is left out, as each try of one call may
                 bring its own
    queued_us    the entry id's time
    """

    entry_id: str
    id: str
    explicit_id: bool
    fields: dict[str, str]
    digest: str
    queued_us: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that can never work as written.

    id           the producer's id if it is usable, else the entry id
    field        the field at fault; `entry` if no single one is
    detail       one line: the field, what is wrong, the remedy; holds no value of an unknown field
    fields       what events copy of the entry (labels, ids, scope, `x_…`), as far as each is valid by itself
    digest       8 hex characters over the entry but `v` and `id`
    queued_us    the entry id's time
    """

    entry_id: str
    id: str
    explicit_id: bool
    field: str
    detail: str
    fields: dict[str, str]
    digest: str
    queued_us: int


def read_entry(entry_id: str, raw: Sequence[bytes] | Mapping[bytes, bytes]) -> Accepted | Refused:
    """Judges one inbox entry, given flat (name, value, name, value, …) or as a mapping. Never raises.

    Only the flat form shows a repeated field, which a mapping has already lost; pass what the server
    answered.
    """
    flat = raw if isinstance(raw, list | tuple) else _flattened(raw)
    if len(flat) > 2 * MAX_ENTRY_FIELDS or sum(map(len, flat)) > MAX_ENTRY_BYTES:
        return _refuse_malformed(entry_id, flat)
    fields: dict[str, str] = {}
    try:
        pairs = iter(flat)
        for name, value in zip(pairs, pairs, strict=True):
            fields[name.decode()] = value.decode()
    except ValueError:  # not UTF-8, or a name without a value
        return _refuse_malformed(entry_id, flat)
    if 2 * len(fields) != len(flat):
        return _refuse_malformed(entry_id, flat)
    fault = _fault_of(fields) or _outwaited(fields, _time_ms(entry_id))
    if fault is not None:
        return _refuse(entry_id, flat, fields, fault)
    return _accept(entry_id, fields)


def _accept(entry_id: str, fields: dict[str, str]) -> Accepted:
    """Fills the defaults in; `fields` are known to be good."""
    fields.pop("v", None)
    given_id = fields.pop("id", None)
    scope = fields.setdefault("scope", "order")
    fields.setdefault("priority", "normal")
    for name in _NUMBERS & fields.keys():
        fields[name] = str(int(fields[name]))
    queued_ms = _time_ms(entry_id)
    if scope not in _BULK:
        digest = _digest(fields)
    else:
        fields["kinds"] = _KINDS[fields.get("kinds", "order")]
        # Before the default expiry, which differs from one try to the next.
        digest = _digest(fields)
        fields.setdefault("expires_at_ms", str(min(queued_ms + BULK_EXPIRES_AFTER_MS, MAX_EPOCH_MS)))
    return Accepted(entry_id, given_id or entry_id, given_id is not None, fields, digest, queued_ms * 1000)


def _refuse_malformed(entry_id: str, flat: Sequence[bytes]) -> Refused:
    """Says what is wrong with the shape of an entry, and saves what can be read of it.

    Only the head of a huge entry is looked at, and no huge field, so that no entry holds a worker up.
    """
    fault: _Fault | None = None
    fields: dict[str, str] = {}
    spoilt: set[str] = set()
    head = flat[: 2 * MAX_ENTRY_FIELDS]
    for raw_name, raw_value in zip(head[::2], head[1::2], strict=False):
        if len(raw_name) + len(raw_value) > MAX_ENTRY_BYTES:
            continue
        try:
            name = raw_name.decode()
        except UnicodeDecodeError:
            fault = fault or _Fault(_shown_name(raw_name), "its name is not UTF-8; names are plain ASCII")
            continue
        if name in fields or name in spoilt:
            fields.pop(name, None)
            spoilt.add(name)
            fault = _first(fault, _Fault(_shown_name(name), "given more than once; give it once"))
            continue
        try:
            fields[name] = raw_value.decode()
        except UnicodeDecodeError:
            spoilt.add(name)
            fault = _first(fault, _Fault(_shown_name(name), "not UTF-8; encode every value as UTF-8 text"))
    return _refuse(entry_id, head, fields, _first(_id_fault(fields), fault or _size_fault(flat)))


def _refuse(entry_id: str, flat: Sequence[bytes], fields: dict[str, str], fault: "_Fault") -> Refused:
    usable_id = fields.get("id") if fault.field != "id" else None
    return Refused(
        entry_id,
        usable_id or entry_id,
        usable_id is not None,
        fault.field,
        str(fault),
        _copied(fields),
        _raw_digest(flat),
        _time_ms(entry_id) * 1000,
    )


def _copied(fields: Mapping[str, str]) -> dict[str, str]:
    """What every event repeats of an entry, checked field by field and within the size of an entry."""
    kept: dict[str, str] = {}
    if "scope" not in fields:
        kept["scope"] = "order"
    if "priority" not in fields:
        kept["priority"] = "normal"
    kept |= {name: fields[name] for name in _COPIED if name in fields and _RULES[name].accepts(fields[name])}
    room = MAX_ENTRY_BYTES
    for name, value in fields.items():
        if _EXTRA_NAME(name):
            room -= len(name) + len(value.encode())
            if room >= 0:
                kept[name] = value
    return kept


def _size_fault(flat: Sequence[bytes]) -> "_Fault":
    if len(flat) % 2:
        return _Fault("entry", "a name without a value; fields come in pairs")
    if len(flat) > 2 * MAX_ENTRY_FIELDS:
        return _Fault("entry", f"{len(flat) // 2} fields; an entry has at most {MAX_ENTRY_FIELDS}")
    largest = max(range(1, len(flat), 2), key=lambda at: len(flat[at - 1]) + len(flat[at]))
    size = sum(map(len, flat))
    return _Fault(
        _shown_name(flat[largest - 1]),
        f"the largest field of an entry of {size} bytes, {MAX_ENTRY_BYTES} are allowed; shorten it",
    )


def _flattened(raw: Sequence[bytes] | Mapping[bytes, bytes]) -> list[bytes]:
    return list(chain.from_iterable(raw.items())) if isinstance(raw, Mapping) else list(raw)


def _time_ms(entry_id: str) -> int:
    """The milliseconds of an entry id; 0 if it is none. Producers may choose entry ids: any value occurs."""
    ms = entry_id.partition("-")[0]
    return int(ms) if ms.isascii() and ms.isdigit() and len(ms) <= 20 else 0


def _digest(fields: Mapping[str, str]) -> str:
    # Lengths keep apart what a separator inside a value would run together.
    text = "".join([f"{name}={len(fields[name])}:{fields[name]}" for name in sorted(fields) if name != "traceparent"])
    return blake2b(text.encode(), digest_size=4).hexdigest()


def _raw_digest(flat: Sequence[bytes]) -> str:
    digest = blake2b(digest_size=4)
    for name, value in sorted(zip(flat[::2], flat[1::2], strict=False)):
        if name not in (b"v", b"id", b"traceparent"):
            digest.update(b"%d:%b=" % (len(name), name[:MAX_ENTRY_BYTES]))
            digest.update(b"%d:%b" % (len(value), value[:MAX_ENTRY_BYTES]))
    return digest.hexdigest()


# ---------------------------------------------------------------------------
# Writing an intent


class Intent(BaseModel):
    """One cancel intent, as a producer means it: `Intent(symbol="BTCUSDT", order_id="121211212122")`.

    Refused with `IntentError`, which names the field, exactly when a worker would refuse the entry. Fields
    named `x_…` may be given by name or in `extras`; numbers of milliseconds are integers; ids are always
    text. None stands for a field left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    scope: Scope = Scope.order
    kinds: tuple[Kind, ...] | None = None
    older_than_ms: int | None = None
    client_prefix: str | None = None
    target: str | None = None
    symbol: str | None = None
    order_id: str | None = None
    client_order_id: str | None = None
    only_if: OnlyIf | None = None
    priority: Priority = "normal"
    not_before_ms: int | None = None
    expires_at_ms: int | None = None
    strategy: str | None = None
    reason: str | None = None
    traceparent: str | None = None
    origin: str | None = None
    extras: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _by_the_rules(cls, data: Any) -> Any:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise IntentError("entry", f"entry: wants fields by name, got {type(data).__name__}")
        return _typed(wire_fields(data))

    def to_fields(self) -> dict[str, str]:
        """The fields of the inbox entry, in the order of the contract; what has its default is left out."""
        fields: dict[str, str] = {}
        for name, value in self.__dict__.items():
            if value is None or name == "extras":
                continue
            if value.__class__ is str:
                fields[name] = value
            else:
                fields[name] = ",".join(value) if isinstance(value, tuple) else str(value)
        if fields["scope"] == "order":
            del fields["scope"]
        if fields["priority"] == "normal":
            del fields["priority"]
        if self.extras:
            fields.update(self.extras)
        return fields


def wire_fields(values: Mapping[str, object]) -> dict[str, str]:
    """The fields of the inbox entry that asks for this, checked by the rules; `IntentError` if one is broken. The one
    rule that knows the time goes by this host's clock.

    Takes what `Intent` takes, `extras` included, without the cost of building one.
    """
    try:
        fields = {name: _rendered(name, value) for name, value in _named(values) if value is not None}
        fault = _id_fault(fields) or _outgoing_fault(fields) or _fault_of(fields)
        fault = fault or _outwaited(fields, time_ns() // 1_000_000)
    except _Fault as refused:
        fault = refused
    if fault is not None:
        raise IntentError(fault.field, str(fault)) from None
    return fields


def check_size(fields: Mapping[str, str]) -> None:
    """`IntentError` if this entry is larger than a worker takes; all other rules are taken as kept."""
    fault = _outgoing_fault(fields)
    if fault is not None:
        raise IntentError(fault.field, str(fault))


def _named(values: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """The fields one by one, those inside `extras` too."""
    for name, value in values.items():
        if not isinstance(name, str):
            raise _Fault("entry", f"names of fields are text, got {type(name).__name__}")
        if name != "extras":
            yield name, value
            continue
        if not isinstance(value, Mapping):
            raise _Fault("extras", f"wants a mapping of x_… names to text, got {type(value).__name__}")
        for extra, text in value.items():
            if not isinstance(extra, str) or not _EXTRA_NAME(extra):
                raise _Fault("extras", f"{_show(extra)} is no name of an extra field; they begin with x_")
            if extra in values:
                raise _Fault(extra, "given more than once; give it once")
            yield extra, text


def _rendered(name: str, value: object) -> str:
    """The text that travels for a value."""
    if isinstance(value, str):
        return str(value)
    if name in _NUMBERS or name == "v":
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value) if abs(value) < 10**20 else "9" * 20
        raise _Fault(name, f"wants an integer, got {type(value).__name__}")
    if name == "kinds" and isinstance(value, list | tuple) and all(isinstance(kind, str) for kind in value):
        return ",".join(value)
    if name in _RULES or _EXTRA_NAME(name):
        raise _Fault(name, f"wants text, got {type(value).__name__}; put it in quotes (numbers lose long ids' digits)")
    raise _unknown(name)


def _outgoing_fault(fields: Mapping[str, str]) -> "_Fault | None":
    """Size alone; the fields without `x_…` cannot reach it."""
    if not any(name.startswith("x_") for name in fields):
        return None
    # Text that cannot be encoded is for another rule to refuse.
    flat = [text.encode(errors="surrogatepass") for text in chain.from_iterable(fields.items())]
    return _size_fault(flat) if len(fields) > MAX_ENTRY_FIELDS or sum(map(len, flat)) > MAX_ENTRY_BYTES else None


def _typed(fields: Mapping[str, str]) -> dict[str, Any]:
    """Good fields, as the attributes of `Intent`."""
    typed: dict[str, Any] = {}
    extras: dict[str, str] = {}
    for name, value in fields.items():
        if name in _NUMBERS:
            typed[name] = int(value)
        elif name == "kinds":
            typed[name] = tuple(_KINDS[value].split(","))
        elif name.startswith("x_"):
            extras[name] = value
        elif name != "v":
            typed[name] = value
    if extras:
        typed["extras"] = extras
    return typed


# ---------------------------------------------------------------------------
# Reading an event


Count = Annotated[int, Field(ge=0)]
Micros = Annotated[int, Field(ge=0)]


class Event(BaseModel):
    """One entry of a results stream. None: the field was absent, which means unknown or not applicable.

    `filled` is decimal text in base currency, `code` and all ids are text, `…_us` are UTC epoch microseconds.
    `extras` holds the producer's `x_…` fields and those a later version may have added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry_id: str
    id: str
    status: Status
    final: bool
    v: str = VERSION
    venue: str | None = None
    account: str | None = None
    scope: str | None = None
    symbol: str | None = None
    order_id: str | None = None
    client_order_id: str | None = None
    strategy: str | None = None
    reason: str | None = None
    traceparent: str | None = None
    detail: str | None = None
    code: str | None = None
    evidence: str | None = None
    priority: str | None = None
    lookups: Count | None = None
    http_status: Count | None = None
    venue_state: str | None = None
    child_order_id: str | None = None
    filled: str | None = None
    open_orders: Count | None = None
    attempt: Count | None = None
    endpoint: str | None = None
    batch_id: str | None = None
    batch_size: Count | None = None
    origin: str | None = None
    outcome: str | None = None
    act: str | None = None
    actor: str | None = None
    worker: str | None = None
    queued_us: Micros | None = None
    taken_us: Micros | None = None
    sent_us: Micros | None = None
    answered_us: Micros | None = None
    settled_us: Micros | None = None
    extras: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, entry_id: str, fields: Mapping[bytes, bytes]) -> Self:
        """The event of an entry as the server holds it; `EventError` if it is none.

        Bytes that are not UTF-8 are shown escaped rather than lost.
        """
        known: dict[str, Any] = {"entry_id": entry_id}
        extras: dict[str, str] = {}
        for raw_name, raw_value in fields.items():
            name = _EVENT_FIELDS.get(raw_name)
            if name is not None:
                known[name] = raw_value.decode(errors="backslashreplace")
            else:
                extras[raw_name.decode(errors="backslashreplace")] = raw_value.decode(errors="backslashreplace")
        try:
            return cls(extras=extras, **known)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise EventError(entry_id, f"{field}: {first['msg']}; a newer version may have written it") from None


_EVENT_FIELDS = {name.encode(): name for name in Event.model_fields if name not in ("entry_id", "extras")}


# ---------------------------------------------------------------------------
# The rules, one table for both ends


class _Fault(Exception):
    """What is wrong with a field and what to do about it; an exception, so that rendering can stop."""

    def __init__(self, field: str, says: str) -> None:
        self.field = field
        self.says = says

    def __str__(self) -> str:
        return f"{self.field}: {self.says}"


class _Rule(NamedTuple):
    accepts: Callable[[str], object | None]
    wants: str
    # For fields with a closed list of values: what to suggest from.
    choices: tuple[str, ...] = ()


def _pattern(pattern: str, wants: str) -> _Rule:
    return _Rule(re.compile(pattern).fullmatch, wants)


def _choice(*choices: str) -> _Rule:
    return _Rule(dict.fromkeys(choices, True).get, f"wants {_any(choices)}", choices)


def _any(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


_ACCOUNT = re.compile(r"[a-z][a-z0-9_]{0,31}").fullmatch

# Never refused for its name, as promised, however strange that is: whoever shows one takes care of that.
_EXTRA_NAME = re.compile(r"x_.*", re.DOTALL).fullmatch

# Every way to write a list of kinds, and the one way it is kept.
_ALL_KINDS = ("order", "tpsl", "stop")
_KINDS = {
    ",".join(some): ",".join(sorted(some, key=_ALL_KINDS.index))
    for size in (1, 2, 3)
    for some in permutations(_ALL_KINDS, size)
}

# Ten digits are the seconds of our days: as milliseconds they lie in 1970, so that a timed cancel would go
# out at once and an age limit would spare every order.
_EPOCH_MS = _pattern(r"[0-9]{1,9}|[0-9]{11,13}", "wants epoch milliseconds: plain digits, 13 of them in our time")
# Ids travel in lists whose separators are blanks and commas.
_ORDER_ID = _pattern(
    r"[A-Za-z0-9._:#+/=-]{1,64}",
    "wants 1 to 64 letters, digits or . _ : # + / = -, copied as the venue shows it",
)
# No control characters, line separators, or halves of surrogate pairs.
_LABEL = _pattern(
    "[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,64}",
    "wants at most 64 characters, no control characters",
)

_RULES: dict[str, _Rule] = {
    "v": _choice(VERSION),
    "id": _pattern(
        r"(?![0-9]+-[0-9]+\Z)[A-Za-z0-9._:-]{1,64}",
        "wants 1 to 64 letters, digits or . _ : -, and not the form digits-digits, as entry ids have it",
    ),
    "scope": _choice(*Scope),
    "kinds": _Rule(_KINDS.get, f"wants a comma list of {_any(_ALL_KINDS)}, each once, no blanks"),
    "older_than_ms": _EPOCH_MS,
    "client_prefix": _ORDER_ID,
    "target": _pattern(r"[A-Za-z0-9._:-]{1,64}", "wants the id of the intent to withdraw"),
    "symbol": _pattern(r"[A-Za-z0-9_-]{1,32}", "wants the pair as the venue spells it, like BTCUSDT or BTC-USDT"),
    "order_id": _ORDER_ID,
    "client_order_id": _ORDER_ID,
    "only_if": _choice("NEW", "PENDING", "PARTIALLY_FILLED"),
    "priority": _choice("normal", "urgent"),
    "not_before_ms": _EPOCH_MS,
    "expires_at_ms": _EPOCH_MS,
    "strategy": _LABEL,
    "reason": _LABEL,
    "traceparent": _pattern(
        r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}",
        "wants the W3C form: version-traceid-parentid-flags in lower-case hex",
    ),
    "origin": _pattern(r"[A-Za-z0-9._:-]{1,64}", "wants the id of the intent that this one stands for"),
}
_NUMBERS = frozenset({"older_than_ms", "not_before_ms", "expires_at_ms"})
_COPIED = (
    "scope", "priority", "symbol", "order_id", "client_order_id", "strategy", "reason", "traceparent", "origin",
)  # fmt: skip
_BULK = frozenset({"symbol", "account"})


class _ScopeRule(NamedTuple):
    # The fields that mean something in this scope, with their tests. Others are refused, not ignored: an
    # order_id that is overlooked on scope symbol would cancel a whole book.
    accepts: dict[str, Callable[[str], object | None]]
    needs: tuple[str, ...]
    needs_order: bool


def _scope(needs: Sequence[str], may: Sequence[str] = (), *, needs_order: bool = False) -> _ScopeRule:
    always = ("v", "id", "scope", "priority", "strategy", "reason", "traceparent", "origin")
    ids = ("order_id", "client_order_id") if needs_order else ()
    return _ScopeRule({name: _RULES[name].accepts for name in (*always, *needs, *may, *ids)}, tuple(needs), needs_order)


_TIMES = ("not_before_ms", "expires_at_ms")
_SELECTION = ("kinds", "older_than_ms", "client_prefix", *_TIMES)
_SCOPES: dict[str, _ScopeRule] = {
    "order": _scope(["symbol"], ["only_if", *_TIMES], needs_order=True),
    "tpsl": _scope([], ["symbol", *_TIMES], needs_order=True),
    "stop": _scope([], ["symbol", *_TIMES], needs_order=True),
    "symbol": _scope(["symbol"], _SELECTION),
    "account": _scope([], _SELECTION),
    "revoke": _scope(["target"]),
}


_MAY_CONTRADICT = frozenset({"expires_at_ms", "target", "origin"})


def _fault_of(fields: Mapping[str, str]) -> _Fault | None:
    """The first thing wrong with an entry's content; the id before all, as the answer goes under it."""
    fault = _id_fault(fields)
    if fault is not None:
        return fault
    scope = _SCOPES.get(fields.get("scope", "order"))
    if scope is None:
        return _bad_value("scope", fields["scope"])
    for name, value in fields.items():
        accepts = scope.accepts.get(name)
        if accepts is None:
            if not _EXTRA_NAME(name):
                return _misplaced(name, fields) if name in _RULES else _unknown(name)
            if not (name.isascii() and value.isascii()) and _SURROGATE(name + value):
                return _Fault(_shown_name(name), "holds half a surrogate pair; wants text that can be encoded as UTF-8")
        elif accepts(value) is None:
            return _bad_value(name, value)
    for name in scope.needs:
        if name not in fields:
            return _missing(name, fields)
    if scope.needs_order and "order_id" not in fields and "client_order_id" not in fields:
        return _missing("order_id", fields)
    return _contradiction(fields) if not _MAY_CONTRADICT.isdisjoint(fields) else None


def _id_fault(fields: Mapping[str, str]) -> _Fault | None:
    given = fields.get("id")
    return _bad_value("id", given) if given is not None and not _RULES["id"].accepts(given) else None


def _contradiction(fields: Mapping[str, str]) -> _Fault | None:
    if "target" in fields and fields["target"] == fields.get("id"):
        return _Fault("target", "names this intent itself; give the revoke an id of its own, or none")
    if "origin" in fields and fields["origin"] == fields.get("id"):
        return _Fault("origin", "names this intent itself; an intent that stands for another has an id of its own")
    if fields.keys() >= {*_TIMES} and int(fields["expires_at_ms"]) <= int(fields["not_before_ms"]):
        return _Fault("expires_at_ms", "not after not_before_ms, so it could never be sent; set it later")
    return None


def _outwaited(fields: Mapping[str, str], queued_ms: int) -> _Fault | None:
    """Whether a sweep that is to wait would have expired by then, for want of an `expires_at_ms` of its own."""
    if "not_before_ms" not in fields or "expires_at_ms" in fields or fields.get("scope") not in _BULK:
        return None
    if int(fields["not_before_ms"]) < queued_ms + BULK_EXPIRES_AFTER_MS:
        return None
    lives_s = BULK_EXPIRES_AFTER_MS // 1000
    return _Fault(
        "expires_at_ms",
        f"missing; without it this expires {lives_s} s after it was queued, before its not_before_ms: set it later",
    )


def _first(one: _Fault | None, other: _Fault) -> _Fault:
    """The fault to name: the one about the id, else the earlier."""
    return one if one is not None and other.field != "id" else other


def _missing(name: str, fields: Mapping[str, str]) -> _Fault:
    scope = fields.get("scope", "order")
    also = " (or client_order_id)" if name == "order_id" else ""
    return _Fault(name, f"missing; scope {scope} needs it{also}: {_RULES[name].wants.removeprefix('wants ')}")


def _misplaced(name: str, fields: Mapping[str, str]) -> _Fault:
    scope = fields.get("scope", "order")
    where = [other for other, rule in _SCOPES.items() if name in rule.accepts]
    return _Fault(name, f"has no meaning in scope {scope}, only in {_any(where)}; leave it out or change the scope")


def _unknown(name: str) -> _Fault:
    nearest = _or_rather(name, tuple(_RULES))
    return _Fault(_shown_name(name), f"unknown field{nearest}; fields of your own begin with x_")


def _bad_value(name: str, value: str) -> _Fault:
    rule = _RULES[name]
    if not value:
        return _Fault(name, f"empty; {rule.wants}, or leave it out")
    if rule.choices:
        return _Fault(name, f"{_show(value)} is not known{_or_rather(value, rule.choices)}; {rule.wants}")
    if rule is _EPOCH_MS and value.isascii() and value.isdigit():
        unit = "seconds" if len(value) == 10 else "micro- or nanoseconds"
        return _Fault(name, f"{len(value)} digits look like {unit}; {rule.wants}")
    if len(value) > 64:
        return _Fault(name, f"{len(value)} characters are too many; {rule.wants}")
    odd = next((mark for mark in value if not rule.accepts(mark)), None) if rule in (_ORDER_ID, _LABEL) else None
    return _Fault(name, f"{f'{odd!a} is not allowed' if odd else 'not understood'}; {rule.wants}")


def _or_rather(word: str, choices: Sequence[str]) -> str:
    """A suggestion, if one of the choices comes close; camelCase and upper case count as close."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word[:64]).lower()
    folded = {choice.lower(): choice for choice in choices}
    near = get_close_matches(plain, folded, n=1, cutoff=0.6)
    return f', did you mean "{folded[near[0]]}"?' if near else ""


def _show(value: object) -> str:
    """A value in a message: short, on one line, plain ASCII."""
    text = ascii(value[:40] if isinstance(value, str) else value)
    return text if len(text) <= 64 else text[:60] + "..." + text[0]


def _shown_name(name: str | bytes) -> str:
    """A field's name as a message may hold it: itself if it is a plain word, else escaped and cut."""
    text = name if isinstance(name, str) else _decoded(name)
    if _PLAIN(text):
        return text
    if not text.strip(" "):
        return "(blank name)" if text else "(empty name)"
    return ascii(text[:40])[1:-1] + ("..." if len(text) > 40 else "")


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch
_SURROGATE = re.compile("[\ud800-\udfff]").search
