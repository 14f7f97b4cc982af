"""One intent on its way through encode, decode and judge, alone in every call, on a clock of its own.

What a lane does around these pure parts is told here in its smallest form: take raises the fence, a call takes
`rtt_us`, a move waits its delay, and `wait_us` more where permits are scarce.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from cancelq_worker.rulings import Finish, Moment, Policy, Silence, Verdict
from cancelq_worker.state import State, Work
from cancelq_worker.venues.port import Answer, Plan, Reply, Request, Route, Stage, Target, Venue, Word
from cancelq_worker.verdict import Judge
from tests.unit.bitget_account import BITGET, target

UTC_US = 1_700_000_000_000_000
POLICY = Policy()
#: Words that return an intent as it was; they may come as often as the venue likes.
RETURNED = frozenset({Word.REFUSED, Word.ACCOUNT, Word.CLOCK})


@dataclass(frozen=True, slots=True)
class Call:
    """One call and what followed. `sent` and `back`: the lane's steady clock before and after it, in µs."""

    route: Route
    before: State
    sent_us: int
    back_us: int
    said: Reply | Silence
    verdict: Verdict

    @property
    def counted(self) -> bool:
        """Whether the call may have been executed."""
        if isinstance(self.said, Silence):
            return self.said is Silence.NO_ANSWER
        return self.said.word not in RETURNED


Say = Callable[[Route, Target], Reply | Silence]


class Journey:
    """Carries one intent from its admission until `end` is there."""

    def __init__(
        self,
        intent: Target,
        *,
        venue: Venue = BITGET,
        policy: Policy = POLICY,
        seed: int = 0,
        rtt_us: int = 20_000,
        wait_us: int = 0,
    ) -> None:
        plan = venue.admit(intent.fields)
        assert isinstance(plan, Plan)
        self.fields = {**intent.fields, "queued_us": str(UTC_US)}
        self.state = State(
            stage=plan.start,
            cancel_class=plan.cancel_class,
            look_class=plan.look_class,
            orders=plan.orders,
            notes=plan.notes,
        )
        self.venue = venue
        self.judge = Judge(venue, policy, random.Random(seed))
        self.rtt_us = rtt_us
        self.wait_us = wait_us
        self.now_us = 1_000_000_000
        self.size = 1
        self.calls: list[Call] = []
        self.end: Finish | None = None

    def step(self, say: Say) -> Verdict:
        """One call, answered by `say`."""
        self.now_us += self.wait_us
        before = self.state
        as_it_was = before.pack()
        route = lone_route(before, self.venue)
        work = Work("i1", self.fields, before, before.fence + 1)
        units = before.cancel_class.rpartition(":")[2]  # as a take grants them
        taken = work.taken(
            stage=before.stage,
            batch_id=f"b{work.fence:x}",
            route=route.name,
            size=int(units) if route.by_class and units.isdigit() else self.size,
            taken_us=UTC_US + self.now_us,
        )
        sent_us = self.now_us
        said = say(route, self._target(work))
        self.now_us += self.rtt_us
        verdict = self._judged(before, taken, said, sent_us)
        assert before.pack() == as_it_was, "a verdict leaves what was before alone: a stale settle must change nothing"
        assert verdict.state.fence == before.fence + 1
        self.calls.append(Call(route, before, sent_us, self.now_us, said, verdict))
        self.state = State.parse(verdict.state.pack().encode())
        if isinstance(verdict, Finish):
            self.end = verdict
        else:
            self.now_us += 1_000 if verdict.delay_us is None else verdict.delay_us
        return verdict

    def run(self, say: Say, *, most: int) -> Finish:
        """Calls until the intent ends; an error after `most` of them."""
        while self.end is None:
            assert len(self.calls) < most, f"no end after {most} calls: {self.state.pack()}"
            self.step(say)
        return self.end

    def cancels(self) -> list[Call]:
        """The cancel calls that may have been executed."""
        return [c for c in self.calls if c.route.stage is Stage.CANCEL and c.counted]

    def looks(self) -> list[Call]:
        return [c for c in self.calls if c.route.stage is Stage.LOOK and c.counted]

    def _judged(self, before: State, taken: State, said: Reply | Silence, sent_us: int) -> Verdict:
        at = Moment(self.now_us, UTC_US + sent_us, None if isinstance(said, Silence) else UTC_US + self.now_us)
        if isinstance(said, Silence):
            return self.judge.silent(before, taken, self.fields, before.stage, said, at)
        decide = self.judge.cancel if before.stage is Stage.CANCEL else self.judge.look
        return decide(before, taken, self.fields, said, at)

    def _target(self, work: Work) -> Target:
        """As a lane gives it: an age band around the intent's own time, and no cancel within the gap."""
        made = work.target
        asked_ms = int(self.fields["queued_us"]) // 1000
        made.age_band_ms = (asked_ms - 5, asked_ms + 6)
        made.may_cancel = bool(work.before.notes.get("may", 1))
        made.may_bulk = work.before.attempts == 0
        return made


def lone_route(state: State, venue: Venue = BITGET) -> Route:
    """The route a single intent travels by."""
    waits = state.cancel_class if state.stage is Stage.CANCEL else state.look_class
    kind = waits.partition(":")[0]
    return next(r for r in venue.routes if r.stage is state.stage and kind in r.kinds and r.least == 1)


def by_venue(venue: Callable[[Request], Answer], adapter: Venue = BITGET) -> Say:
    """Says what a venue answers to the encoded call."""

    def say(route: Route, one: Target) -> Reply:
        (reply,) = adapter.decode(route, [one], venue(adapter.encode(route, [one])))
        return reply

    return say


def by_words(cancel: Word, look: Word) -> Say:
    """Says the same to every cancel, and the same to every look, of whatever place was read."""

    def say(route: Route, one: Target) -> Reply:
        if route.stage is Stage.CANCEL:
            return Reply(cancel, "1", "said so", 200)
        return Reply(look, "1", "said so", 200, place=place_of(route))

    return say


def place_of(route: Route) -> str:
    """The place a look reads, as its replies name it."""
    (reply,) = BITGET.decode(route, [target("1")], Answer(200, {}, b'{"code":"00000","data":[]}'))
    return reply.place
