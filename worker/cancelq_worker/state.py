"""An intent's state: the one line that every step of its life reads and writes.

The record (what was asked) never changes; this does. Lua reads the same line (`lua/prelude.lua`), so the two
must agree word by word: `tests/unit/test_state.py` holds them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from cancelq_worker.venues.port import Stage, Target

NONE = "-"
_STAGES = {stage.value: stage for stage in Stage}  # calling an enum costs ten times as much
SUSPECT_STRIKES = 2  # after so many ends of workers an intent travels alone (suspects.py)
ALONE = 1  # its `cap` then
TRUSTED_TIMES = 3  # how often looks that passed let its next ones go in company again
LOCAL = "local"  # the class of intents no call carries (revocations)
LOOKS_BACK = "looks_back"  # the field of a record that names the `unresolved` intent whose order is only looked for


@dataclass(slots=True)
class State:
    """Counters and places of one open intent.

    `fence` rises at every take; `attempts` counts cancels that may have reached the venue, `lookups` looks;
    `strikes` leases that ended without a settle; `cap` the largest call it may travel in (0: any);
    `place` its steady time in the queue in µs. `route`, `batch_id`, `size`, `taken_us` tell the cancel call
    that carried the last attempt. `notes` are JSON: times of that call, what was learnt, what was looked at.
    """

    fence: int = 0
    taken: int = 0
    stage: Stage = Stage.CANCEL
    attempts: int = 0
    lookups: int = 0
    strikes: int = 0
    cap: int = 0
    urgent: bool = False
    place: int = 0
    expires_ms: int = 0
    cancel_class: str = NONE
    look_class: str = NONE
    digest: str = NONE
    orders: tuple[str, ...] = ()
    route: str = NONE
    batch_id: str = NONE
    size: int = 0
    taken_us: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, line: bytes) -> State:
        """Reads a line as Lua wrote it. Raises ValueError if it has not its 19 words."""
        w = line.decode().split(" ", 18)
        if len(w) != 19:
            raise ValueError(f"a state line has 19 words, not {len(w)}: {line[:80]!r}")
        stage = _STAGES.get(w[2]) or Stage(w[2])
        orders = () if w[13] == NONE else tuple(w[13].split(","))
        return cls(
            int(w[0]), int(w[1]), stage, int(w[3]), int(w[4]), int(w[5]), int(w[6]), w[7] == "u", int(w[8]),
            int(w[9]), w[10], w[11], w[12], orders, w[14], w[15], int(w[16]), int(w[17]), orjson.loads(w[18]),
        )  # fmt: skip

    def pack(self) -> str:
        """The line Lua reads."""
        head, tail = self.around_place()
        return f"{head}{self.place}{tail}"

    def around_place(self) -> tuple[str, str]:
        """The line without its place: admission writes that one by Redis' clock."""
        head = (
            f"{self.fence} {self.taken} {self.stage.value} {self.attempts} {self.lookups} {self.strikes} {self.cap} "
            f"{self.priority} "
        )
        tail = (
            f" {self.expires_ms} {self.cancel_class} {self.look_class} {self.digest} "
            f"{','.join(self.orders) or NONE} {self.route} {self.batch_id} {self.size} {self.taken_us} "
            f"{orjson.dumps(self.notes).decode()}"
        )
        return head, tail

    def suspect(self, stage: Stage) -> bool:
        """Whether a process may carry it in a call of that stage only as the one such intent (`lua/take.lua`)."""
        return self.strikes >= SUSPECT_STRIKES and (stage is Stage.CANCEL or self.cap == ALONE)

    def passed(self, stage: Stage) -> None:
        """This worker lives: what ended others was not this intent, as far as that call goes.

        An answered look says so of looks alone, and for now only: what ends a worker may stand on another page. So the
        next looks go in company, an end among them parks nothing but makes it travel alone again (`end_lease` in
        `lua/take_local.lua`), and all that happens a few times at most.
        """
        if not self.strikes:
            return
        if stage is Stage.CANCEL:
            self.strikes, self.cap = 0, 0
            self.notes.pop("trust", None)
        elif self.suspect(stage) and (trust := int(self.notes.get("trust", TRUSTED_TIMES))) > 0:
            self.cap, self.notes["trust"] = 0, trust - 1

    @property
    def priority(self) -> str:
        return "u" if self.urgent else "n"

    @property
    def queue(self) -> str:
        """The queue this state waits in: stage, priority, class."""
        if self.cancel_class == LOCAL:
            return LOCAL
        return (
            f"{self.stage.value}:{self.priority}:{self.cancel_class if self.stage is Stage.CANCEL else self.look_class}"
        )

    def at_rest(self, fence: int) -> State:
        """The same with another fence, in nobody's hands; the notes are a copy."""
        return State(
            fence, 0, self.stage, self.attempts, self.lookups, self.strikes, self.cap, self.urgent, self.place,
            self.expires_ms, self.cancel_class, self.look_class, self.digest, self.orders, self.route, self.batch_id,
            self.size, self.taken_us, dict(self.notes),
        )  # fmt: skip


@dataclass(slots=True)
class Work:
    """One intent in a worker's hands: what was asked, its state before the take, and the fence it was taken with."""

    id: str
    record: dict[str, str]
    before: State
    fence: int

    @classmethod
    def read(cls, id_: bytes, line: bytes, record: bytes) -> Work:
        before = State.parse(line)
        return cls(id_.decode(), orjson.loads(record), before, before.fence + 1)

    @property
    def target(self) -> Target:
        return Target(self.record, self.before.notes)

    def taken(self, *, stage: Stage, batch_id: str, route: str, size: int, taken_us: int) -> State:
        """The state as the take left it, at rest again: what a verdict starts from."""
        state = self.before.at_rest(self.fence)
        if stage is Stage.CANCEL:
            state.passed(stage)
            state.attempts += 1
            state.route, state.batch_id, state.size, state.taken_us = route, batch_id, size, taken_us
        else:
            state.lookups += 1
        return state
