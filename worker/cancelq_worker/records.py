"""What goes into a lane's ledger and what comes out: the words of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.state import State, Work
from cancelq_worker.trips import RawEntry
from cancelq_worker.venues.port import Bucket, Route, Stage

#: What a worker does with the lane's order stream; `live`: it is subscribed and tells of every order.
StreamStep = Literal["hold", "live", "leave"]

#: Equal errors at one endpoint that are never passed, calls under way included, where a venue locks it after some.
ERRORS_MOST = 15


@dataclass(slots=True)
class NewIntent:
    """One admitted entry that a call shall carry, or a revocation. `named_by`: the entry, where its producer chose the
    id, else ""."""

    id: str
    named_by: str
    digest: str
    record: dict[str, str]
    state: State
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class NewOutcome:
    """One entry whose outcome is known at admission: its final event. `named_by` as in `NewIntent`."""

    id: str
    named_by: str
    digest: str
    event: dict[str, str]


@dataclass(frozen=True, slots=True)
class Admission:
    """Entries read after `cursor`, from `first` to `last`. `overtaken`: those up to the last that are not among the
    items, as they were admitted ahead."""

    cursor: str
    first: str
    last: str
    items: Sequence[NewIntent | NewOutcome]
    overtaken: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Overtaking:
    """Entries that are admitted ahead of the cursor, and the ids they have in the inbox."""

    entries: Sequence[str]
    items: Sequence[NewIntent | NewOutcome]


@dataclass(frozen=True, slots=True)
class Admitted:
    """`applied` is false if another worker had moved the cursor first: read again after `cursor`; or if what was left
    out is not what was admitted ahead: then that is `overtaken`, and nothing else is. `rejected`: entries
    whose outcome was known at once, and told."""

    applied: bool
    cursor: str
    admitted: int = 0
    duplicates: int = 0
    rejected: int = 0
    overtaken: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scanned:
    """The inbox was looked through up to the entry `last`; what is urgent there."""

    last: str
    urgent: list[RawEntry]


@dataclass(frozen=True, slots=True)
class PermitUse:
    """What became of a permit: `how` is 'a' answered, 'n' no answer, 'r' refused by the venue, 'u' unused; `error`:
    the code by which it counts towards a lock of its endpoint, "" if by none, None where nothing is locked."""

    bucket: Bucket
    units: int
    member: str
    how: str
    ago_us: int = 0
    rtt_us: int = 0
    error: str | None = None
    told: int = 0  # the bucket's size as the answer told it, 0 if it did not


@dataclass(frozen=True, slots=True)
class Hold:
    """Closes a bucket (or the lane, scope `*`) for a reason. `for_us` -1: until an operator resumes; 0 after a refusal
    of which the venue did not say for how long: longer with every one that follows."""

    scope: str
    reason: str
    for_us: int
    detail: str


@dataclass(slots=True)
class End:
    """An intent's end: its one final event. `known`: whether the end of its order is known now; `orders`: its keys."""

    work: Work
    event: dict[str, str]
    sent: bool
    known: bool
    orders: tuple[str, ...]


@dataclass(slots=True)
class Move:
    """An intent goes on: to `state`'s queue, after `delay_us` (None: at its old place), perhaps with an event."""

    work: Work
    state: State
    delay_us: int | None
    event: dict[str, str] | None = None
    new_orders: tuple[str, ...] = ()
    sort: str = ""  # the order id by which pages of the look queue reach it, digits


@dataclass(slots=True)
class Settlement:
    """What one call came to. `order_keys` were on their way: sent (closed for `gap_us` more) or not sent."""

    permit: PermitUse | None
    works: list[End | Move]
    order_keys: tuple[str, ...] = ()
    sent: bool = True
    gap_us: int = 0
    holds: list[Hold] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Settled:
    applied: int
    others: int  # open intents that still name an order whose end is now known
    stale: frozenset[int] = frozenset()  # works that were another's by then, by their place


@dataclass(frozen=True, slots=True)
class LocalStep:
    """An intent leased for a step without a call; `why` as in take.lua."""

    why: str
    work: Work
    target: Work | None = None


class KeyWord(Enum):
    """What came of trying a key that was refused."""

    WORKS = "works"
    REFUSED = "refused"
    UNTRIED = "untried"


@dataclass(frozen=True, slots=True)
class KeyTried:
    """`why`: in the venue's words or ours, "" if it works."""

    what: KeyWord
    why: str = ""

    def packed(self, asked: bytes) -> bytes:
        """As it is told to whoever asked."""
        return b"%s %s %s" % (asked, self.what.value.encode(), self.why.encode())

    @classmethod
    def unpacked(cls, told: bytes, asked: str) -> KeyTried | None:
        """What was told; None if it was to another."""
        words = told.decode(errors="replace").split(" ", 2)
        return cls(KeyWord(words[1]), words[2]) if words[0] == asked else None


KEY_WORKS = KeyTried(KeyWord.WORKS)


@dataclass(frozen=True, slots=True)
class Batch:
    """A permit and what its call shall carry. `unconfirmed`: why it must not be sent, as too few replicas have it;
    `opens_us`: the steady time at which what is only looked at may be sent again, 0 if that is not known; `units`: what
    the permit takes of its bucket."""

    id: str
    route: str
    stage: Stage
    works: list[Work]
    taken_us: int
    steady_us: int
    fastest_us: int
    unconfirmed: str = ""
    opens_us: int = 0
    units: int = 1

    @property
    def suspect(self) -> bool:
        """Whether it carries an intent that its process may carry one of at a time."""
        return any(work.before.suspect(self.stage) for work in self.works)


@dataclass(frozen=True, slots=True)
class Taken:
    steady_us: int
    wall_us: int
    wait_us: int
    steps: list[LocalStep]
    batch: Batch | None
    stopped: bool = False  # held until an operator resumes the lane
    streamed: bool = False  # the lane's order stream is alive
    suspects: bool = False  # one that two workers ended with was left, as the request had it
    starved: bool = False  # one was left for lack of the address' share, as the request had it
    urgent: bool = False  # and that is urgent
    more: int = 0  # calls that what is left could fill, if another one can be made at once
    given_up: Sequence[str] = ()  # intents told as unresolved by the script itself


@dataclass(frozen=True, slots=True)
class TakeRequest:
    """`closed`: routes for which the caller's address has no share now; `kept`: for which it has one that only urgent
    intents may take; `suspects`: whether an intent may be taken that two workers ended with; `reaches`: whether the
    venue answered this process last; `granted`: whether it may have calls of this lane out, or had lately."""

    stages: str
    batch_id: str
    suspended: bool = False
    closed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    suspects: bool = True
    reaches: bool = False
    granted: bool = False


@dataclass(slots=True)
class Round:
    """The replies of one round trip; an entry is an exception where Redis refused just that part."""

    settled: list[Settled | RedisError] = field(default_factory=list)
    admitted: Admitted | RedisError | None = None
    taken: list[Taken | RedisError] = field(default_factory=list)
    entries: list[RawEntry] = field(default_factory=list)
    more: bool = False  # there may be more behind these entries
    overtook: Admitted | RedisError | None = None
    scanned: Scanned | RedisError | None = None
    cursor: str | None = None


@dataclass(slots=True)
class RoundRequest:
    """What a lane wants done in one round trip. `read_after`, `scan_after`: entry ids of the inbox; `among`: how many
    lanes hold what they have read at the same time; `standing`: whether it is to be told where the admission stands."""

    settlements: Sequence[Settlement] = ()
    admission: Admission | None = None
    overtaking: Overtaking | None = None
    takes: Sequence[TakeRequest] = ()
    read_after: str | None = None
    among: int = 1
    scan_after: str | None = None
    standing: bool = False


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What take needs to know of a lane: its routes, its limits and its waits."""

    lane: Lane
    routes: tuple[Route, ...]
    buckets: tuple[Bucket, ...]
    lease_us: int
    gap_us: int
    urgent_reserve: int
    poll_us: int = 2_000_000
    errors_us: int = 0

    @property
    def window_us(self) -> int:
        """The longest window of a limit."""
        return max(bucket.window_us for bucket in self.buckets)

    def text(self) -> str:
        """The plan as `lua/take.lua` reads it."""
        times = f"{self.lease_us} {self.gap_us} {self.poll_us} {self.window_us} {self.errors_us} {ERRORS_MOST}"
        lines = [f"{self.lane.venue} {self.lane.account} {times}"]
        lines += [f"B {b.name} {b.units} {b.window_us} {self.urgent_reserve} {int(b.fixed)}" for b in self.buckets]
        for r in self.routes:
            costs = f"{r.most} {r.least} {r.bucket} {r.per_call} {r.per_order}"
            how = f"{int(r.downwards)} {int(r.by_class)} {r.errors} {r.stage.value} {r.walk or '-'}"
            lines += [f"R {r.queue.value}:{kind} {r.name} {costs} {how}" for kind in r.kinds]
        return "\n".join(lines) + "\n"
