"""The seam between a lane and a venue: what a venue must tell, in types a lane can rely on.

A venue is data (routes, buckets, timings) and four functions: `admit`, `encode`, `sign`, `decode`.
The lane never sees a venue's code or path, a venue never sees a queue or Redis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any, Final, Protocol


class Stage(StrEnum):
    """What a call is for. Each stage has its own queue, routes and buckets."""

    CANCEL = "c"
    LOOK = "l"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit of the venue: at most `units` cost units in any window of `window_us` microseconds. `fixed`: the
    account's settings say so, and a larger size that the venue tells is not used. `rare`: of an address, and for calls
    so seldom that nobody keeps a stock of them; without a window (0) it is not calls that count, but connections that
    are open. `shared`: four fifths of what is documented: the desk's own programs open connections, too."""

    name: str
    units: int
    window_us: int
    fixed: bool = False
    rare: bool = False
    shared: bool = False


def sized(buckets: Sequence[Bucket], limits: Mapping[str, int] | None) -> tuple[Bucket, ...]:
    """The buckets, with the units that an account's settings give some of them."""
    limits = limits or {}
    return tuple(replace(b, units=limits[b.name], fixed=True) if b.name in limits else b for b in buckets)


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint as the lane may use it.

    `kinds`: the classes of intents it serves (the part of a class before `:`); `most`: orders one call may
    carry; `least`: from how many it is worth its call; a call costs `per_call` units of `bucket`, plus
    `per_order` for each order in it; with `by_class` it costs what stands behind the colon of the class instead
    (a sweep's call, which carries one intent and names many orders).

    `downwards`: it reads a page of orders from an id downwards, so the intents with neighbouring order ids are
    taken together. `address`: the per-address buckets a call takes a unit of. `errors`: from how many equal errors
    of its bucket on it is closed (0: never). `first_look`: it looks at intents of the cancel queue before they are
    sent, and is used for a class only while another route of that class is closed by errors; list it last.

    `walk`: its classes end in the page of a list that is walked through from there; those behind the first page are of
    this kind. Listed last of the routes of a class, it begins a walk only while none is under way from the same place,
    so that all who came meanwhile go together.
    """

    name: str
    stage: Stage
    kinds: tuple[str, ...]
    bucket: str
    most: int = 1
    least: int = 1
    per_call: int = 1
    per_order: int = 0
    by_class: bool = False
    downwards: bool = False
    address: tuple[str, ...] = ()
    errors: int = 0
    first_look: bool = False
    walk: str = ""

    @property
    def queue(self) -> Stage:
        """The stage whose queue it serves."""
        return Stage.CANCEL if self.first_look else self.stage


@dataclass(frozen=True, slots=True)
class Timing:
    """A venue's waits, in microseconds. `gap_us`: between two cancels of one order; `look_after_us`: from an
    acknowledgement to the first look, and `look_after_push_us` where the order stream is alive and will most
    likely tell sooner; `patience_us`: how long an acknowledged order may still be shown open before it is cancelled
    again; `look_before_again`: a second attempt is never made before a look."""

    gap_us: int
    look_after_us: int
    patience_us: int
    look_after_push_us: int = 1_500_000
    look_before_again: bool = False


@dataclass(slots=True)
class Target:
    """One order (or one sweep) inside a call: the intent's own fields and what was learnt on the way.

    `notes` is the venue's scratch pad for this intent (JSON values only); what `decode` puts into
    `Reply.notes` is merged into it and comes back on the next call.
    """

    fields: Mapping[str, str]
    notes: dict[str, Any]
    #: For sweeps, on the venue's clock: an order created before the first (epoch ms) is older than the intent,
    #: from the second on it is newer; in between nobody can tell. None: of no order, the venue's time is not known.
    age_band_ms: tuple[int, int] | None = (0, 0)
    #: For sweeps: whether what is found may be cancelled now, or only counted.
    may_cancel: bool = True
    #: For sweeps: whether nothing was sent for it yet, so that its one bulk call is still to be had.
    may_bulk: bool = True
    #: For sweeps: the same of the intent's `older_than_ms`; None: exactly as it was given.
    older_than_ms: tuple[int, int] | None = None
    #: For sweeps: how many orders the permit of a call pays for that costs a unit for each; None: it is no matter.
    paid: int | None = None

    @property
    def scope(self) -> str:
        return self.fields["scope"]

    @property
    def symbol(self) -> str | None:
        return self.fields.get("symbol")

    @property
    def order_id(self) -> str | None:
        return self.fields.get("order_id") or self.notes.get("oid")

    @property
    def client_order_id(self) -> str | None:
        return self.fields.get("client_order_id")

    @property
    def named_as(self) -> str:
        """By what a call names its order: `i:` and the order id, else `c:` and the client id."""
        return f"i:{self.order_id}" if self.order_id else f"c:{self.client_order_id}"

    @property
    def only_client_id(self) -> str:
        """The client id of an intent that names its order by nothing else, else "". Only then is it part of what the
        order is known by: beside an order id it is a label, which other orders may bear as well."""
        return "" if self.fields.get("order_id") else self.fields.get("client_order_id", "")

    def may_bear(self, client_order_id: str) -> bool:
        """Whether its order may have this client id, as a row tells it ("": the row tells none). Where the intent names
        its order by a client id, an order id was only learnt: a row with another client id is another order's."""
        return not self.only_client_id or client_order_id in ("", self.only_client_id)

    def is_named(self, order_id: str, client_order_id: str) -> bool:
        """Whether a row with these ids ("": the row tells none) is about this very order."""
        if self.order_id:
            return order_id == self.order_id and self.may_bear(client_order_id)
        return client_order_id == self.client_order_id

    def may_be(self, told: Reply) -> bool:
        """Whether what was told of an order, which is known by a key of this one's, is about this one: no id that is
        known of both differs."""
        if self.order_id and told.order_id not in ("", self.order_id):
            return False
        return self.may_bear(told.client_order_id)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP call. `query` and `body` are the exact bytes that are signed and sent."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True, repr=False)
class Signed:
    """A request as it is sent: some venues sign in headers, some in the query itself. It does not show them when it is
    printed: a signature is as good as a cancel for a few seconds, a passphrase for longer."""

    request: Request
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"Signed({self.request.method} {self.request.path})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole: an HTTP status, headers (lower-case names) and the body. `quotes`: it repeats what the
    call was signed with, so none of its words may be told."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    quotes: bool = False


class Word(Enum):
    """What an answer says about one order, in the lane's words. Anything not listed in a venue's table is
    `UNCLEAR`, never a success."""

    # The answer to a cancel
    ACKNOWLEDGED = "acknowledged"  # the venue took the request
    GONE = "gone"  # not working any more, or not known: ask which
    FAILED = "failed"  # can never work as written
    AGAIN = "again"  # was not executed and may be repeated
    DOUBTED = "doubted"  # as AGAIN at first; if it stays so, as FAILED
    LATER = "later"  # not executed; the venue is down for minutes
    UNCLEAR = "unclear"  # may or may not have been executed: look
    SPLIT = "split"  # the whole call was refused, perhaps because of one entry: send it in halves
    # About the call or the account
    REFUSED = "refused"  # over the limit: costs no attempt
    ACCOUNT = "account"  # key, signature, permission or account: hold the lane
    CLOCK = "clock"  # our time stamp was off: correct the clock, once
    # The answer to a look
    OPEN = "open"
    CANCELLED = "cancelled"
    FILLED = "filled"
    TRIGGERED = "triggered"
    CLOSED = "closed"  # another end: rejected, expired, failed
    ABSENT = "absent"  # this place was read to its end and holds no such order
    UNREAD = "unread"  # this place was not read far enough to tell
    UNSEEABLE = "unseeable"  # to a look ahead of a cancel: no list tells this order by the id that is known
    LISTED = "listed"  # a sweep's page; `notes["sweep"]` tells `todo` (rows to cancel next, by id), `open`
    # (orders that matched in this pass), `unsure` (of an age nobody can tell), `close` (of these, the ones that only
    # the clocks' doubt keeps so), `end` (every list was read)


#: Scopes that mean many orders: all of a pair, all of an account.
SWEEPS: Final = ("symbol", "account")

#: The words that state an order's end.
ENDED = frozenset({Word.CANCELLED, Word.FILLED, Word.TRIGGERED, Word.CLOSED})


#: The words about the call, the account or the limit: the order was not touched, and nothing was learnt of it.
ABOUT_THE_CALL = frozenset({Word.REFUSED, Word.ACCOUNT, Word.CLOCK})


@dataclass(slots=True)
class Reply:
    """What one call said about one target.

    `filled` is decimal text in base currency; `retry_us` an offset from now until when the venue wants no call, or
    `retry_at_ms` the same as epoch ms of the venue's clock; `whole_address`: a refusal of everything from this address;
    `error`: the code of an answer that the venue counts towards locking the endpoint; `ours`: `text` are our words, not
    the venue's; `place` names the list or look-up that was read; `notes` are merged into the target's notes;
    `over_limit`: what was said of orders that the call named for this target too, and that went over the limit.
    """

    word: Word
    code: str = ""
    text: str = ""
    http_status: int = 0
    order_id: str = ""
    client_order_id: str = ""
    venue_state: str = ""
    filled: str = ""
    child_order_id: str = ""
    place: str = ""
    retry_us: int = 0
    retry_at_ms: int = 0
    whole_address: bool = False
    error: str = ""
    ours: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    over_limit: Reply | None = None


@dataclass(slots=True)
class Plan:
    """How the lane shall carry an admitted intent.

    `cancel_class` / `look_class`: which queue it waits in (what one call may carry together);
    `orders`: keys of the orders it names, so that a definite state settles every intent that names them;
    `start`: the stage it begins in.
    """

    cancel_class: str
    look_class: str
    orders: tuple[str, ...] = ()
    start: Stage = Stage.CANCEL
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why an intent can never work at this venue: the field and a line for a person, remedy included."""

    field: str
    detail: str


@dataclass(slots=True)
class NextLook:
    """Where to look next: the class of the look queue, or that every place was read (`done`)."""

    look_class: str
    done: bool = False
    gap: str = ""  # why `done` still proves nothing, e.g. a history too long to walk


@dataclass(frozen=True, slots=True)
class Push:
    """What the private order stream said of one order. `keys`: its keys in the lane's index."""

    keys: tuple[str, ...]
    reply: Reply


@dataclass(slots=True)
class Frame:
    """What one frame of the private order stream comes to: texts to `send` back, whether the subscription is
    `live` from now on, why the venue `refused` it, or what it `pushes`."""

    send: list[str] = field(default_factory=list)
    live: bool = False
    refused: str = ""
    pushes: list[Push] = field(default_factory=list)


class OrderStream(Protocol):
    """A venue's private order stream, as pure steps. Whoever holds the connection does the I/O."""

    #: How often `ping` is sent, how long the venue may be silent, and how often the key is renewed (0: never).
    ping_every_s: float
    silent_most_s: float
    renew_every_s: float
    #: What the venue counts per address (`rare`): connections that are opened, and those that are open; "": it is not
    #: known to count them.
    connects: str
    sockets: str

    def key_request(self) -> Request | None:
        """The call that gives a key for the address, where the venue wants one. It is signed by `Venue.sign`."""
        ...

    def read_key(self, answer: Answer) -> str:
        """The key. Raises ValueError with what the venue said instead, never with the answer itself."""
        ...

    def renew_request(self, key: str) -> Request | None:
        """The call that keeps the key alive."""
        ...

    def address(self, ws_url: str, key: str) -> str:
        """Where to connect to. It may hold the key: it is never logged."""
        ...

    def hello(self, now_ms: int) -> list[str]:
        """What is sent first, at the venue's time `now_ms`."""
        ...

    def ping(self, now_ms: int) -> str:
        """What keeps the connection alive, "" if the venue does the asking."""
        ...

    def read(self, frame: str | bytes) -> Frame:
        """What a frame says. Never raises: what cannot be read says nothing."""
        ...


class VenueTimer(Protocol):
    """A venue's own dead man's switch: unless it is set anew in time, the venue cancels every open order of the
    account. Its requests are signed by `Venue.sign`, and count for the address as calls of no route do."""

    @property
    def shortest_s(self) -> float: ...
    @property
    def longest_s(self) -> float: ...

    def set_request(self, seconds: int) -> Request:
        """Sets the timer anew, to so many seconds from now."""
        ...

    def close_request(self) -> Request:
        """Ends the timer."""
        ...

    def refusal(self, answer: Answer) -> str:
        """What the venue said instead of doing it, "" if it did. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class KeyRights:
    """What a venue says a key may do; None where it does not say. `trade`: spot orders, to cancel them among it;
    `addresses`: those it works from, () for any; `expires_ms`: epoch ms of its end; `names`: its rights in the venue's
    words; `account`: whose limits it counts in, "" where that is not told."""

    trade: bool | None
    withdraw: bool | None
    addresses: tuple[str, ...] | None = None
    expires_ms: int | None = None
    names: tuple[str, ...] = ()
    account: str = ""


class Venue(Protocol):
    """One venue with one account's credentials. Every method is pure apart from `sign`, which reads the secret."""

    name: str
    routes: tuple[Route, ...]
    buckets: tuple[Bucket, ...]
    #: What the venue counts per address, and which of it a call of no route takes (time, probe, stream key).
    address_buckets: tuple[Bucket, ...]
    other_address: tuple[str, ...]
    #: The route whose limits `probe_request` counts in.
    probe_route: str
    #: What the venue counts per address for its time calls alone (`rare`).
    time_address: tuple[str, ...]
    #: Public calls that tell the venue's time; the next one is made if one does not tell.
    time_requests: tuple[Request, ...]
    #: How long the venue remembers equal errors of an endpoint; 0: it locks none.
    errors_us: int
    timing: Timing
    stream: OrderStream | None

    def admit(self, fields: Mapping[str, str]) -> Plan | Unfit:
        """Fits an intent to the venue, or tells which field makes that impossible."""
        ...

    def encode(self, route: Route, targets: Sequence[Target]) -> Request:
        """The call that carries these targets. Raises ValueError rather than send one that names no order."""
        ...

    def sign(self, request: Request, now_ms: int) -> Signed:
        """This request, signed at the venue's time `now_ms`."""
        ...

    def decode(self, route: Route, targets: Sequence[Target], answer: Answer) -> list[Reply]:
        """One reply per target, in their order. Never raises: what cannot be read is `UNCLEAR`."""
        ...

    def told_limit(self, answer: Answer) -> int | None:
        """The size of the called route's bucket, as the answer tells it: the account may have been granted another
        one than the documented. None if it does not tell."""
        ...

    def cancel_class(self, target: Target) -> str:
        """The cancel queue for a repeated cancel, now that more may be known (an order id was learnt)."""
        ...

    def sweep_named(self, route: str, target: Target) -> int:
        """How many of a sweep's `todo` the call of that route names, from the first on."""
        ...

    def endpoint(self, route: str) -> str:
        """The path a route calls, as events name it."""
        ...

    def next_look(self, target: Target) -> NextLook:
        """Where a target is to be looked for next."""
        ...

    def order_keys(self, target: Target) -> tuple[str, ...]:
        """Keys of the order in the lane's index, by each id that is known."""
        ...

    def read_time(self, answer: Answer) -> int | None:
        """The venue's time in epoch milliseconds, or None if the answer does not tell."""
        ...

    def probe_request(self) -> Request:
        """A harmless signed read, to find out whether the key works again."""
        ...

    def read_probe(self, answer: Answer) -> Reply:
        """`OPEN` if the key works; else what stands against it."""
        ...

    def rights_request(self) -> Request | None:
        """A harmless signed read that tells what the key may do. It counts in no bucket of a route. None: the venue has
        no such call."""
        ...

    def read_rights(self, answer: Answer) -> KeyRights | Reply:
        """What that answer tells, or what stands against the call."""
        ...
