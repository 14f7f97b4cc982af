"""Installed in a worker process by the launcher, before the worker starts: what goes wrong, and at which step.

The worker's own code runs; only public functions of its parts are wrapped, and nothing of this is in the product. A
step is named `FLOW.STEP`. Flows are what a call is about (`flow_of`); their steps, in the order they are reached:

    take-sent      the server has granted the batch, the worker has not read it
    take-answered  the worker has read it
    connect        before a connection is had
    send           it is had, nothing is written yet
    written        the request is written
    answer         the venue's answer is here
    judge          before what it means is decided
    settle         before the settlement is sent
    settle-sent    the server has settled, the worker has not read it
    settle-answered

`admit.sent`, `admit.answered`, `push.claim-sent`, `push.claim-answered` stand for their scripts alike. Of all the
workers of a cell one suffers the fault: whoever reaches the step first takes the token.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio as aioredis

from cancelq_worker import ledger
from cancelq_worker.carrier import Carrier
from cancelq_worker.http import FIRST_BYTE, Door, Exchange, Trace
from cancelq_worker.lane_parts import Call, Outcome
from cancelq_worker.ledger import RedisLedger, read_taken
from cancelq_worker.records import Admitted, Round, RoundRequest, Settled, Settlement, Taken
from cancelq_worker.scripts import SCRIPTS, Scripts
from cancelq_worker.state import Work
from cancelq_worker.venues.port import SWEEPS, Stage
from cancelq_worker.verdict import Judge

LATE_S = 0.6  # longer than a call may wait for its send
#: Steps of which the worker waits for a reply that can get lost.
REPLIES = ("sent", "take-sent", "written", "settle-sent", "claim-sent")


class CrashPointError(Exception):
    """What is raised at a step."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes wrong. `fault`: kill, stop, raise or lost; `folder` holds the token, and what is told of the fault."""

    point: str
    fault: str
    folder: str

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Plan:
        return cls(**json.loads(text))

    @property
    def token(self) -> Path:
        return Path(self.folder) / "token"

    @property
    def fired(self) -> Path:
        """Made when the fault happens: pid, and UTC in µs."""
        return Path(self.folder) / "fired"

    @property
    def armed(self) -> Path:
        """Made just before a command whose reply shall be lost; the link looks for it."""
        return Path(self.folder) / "armed"


_flow: ContextVar[str] = ContextVar("flow", default="")
_settling: ContextVar[tuple[str, ...]] = ContextVar("settling", default=())
_flows: dict[str, str] = {}  # batch id → flow
_claimed: set[str] = set()
_names = {sha.encode(): name for name, sha in SCRIPTS.sha.items()} | {sha: n for n, sha in SCRIPTS.sha.items()}


def install(plan: Plan) -> None:
    """Wraps the steps of this process' worker."""
    step = _Step(plan)
    _wrap_trips(step)
    _wrap_ledger(step)
    _wrap_calls(step)


def flow_of(stage: Stage, work: Work) -> str:
    """What a call is about: cancel, look, or of a pair or account: bulk, list, sweep-cancel."""
    if work.record.get("scope") not in SWEEPS:
        return "cancel" if stage is Stage.CANCEL else "look"
    if stage is Stage.LOOK:
        return "list"
    sweep = work.before.notes.get("sweep", {})
    return "sweep-cancel" if sweep.get("todo") and not sweep.get("bulk") else "bulk"


class _Step:
    """The fault, waiting for its step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def reached(self, point: str) -> None:
        """The fault happens here, if this is the step and it has not happened yet."""
        if point != self.plan.point or self.plan.fault == "lost" or not self._mine():
            return
        if self.plan.fault == "raise":
            raise CrashPointError(point)
        os.kill(os.getpid(), signal.SIGKILL if self.plan.fault == "kill" else signal.SIGSTOP)

    def leaves(self, point: str) -> None:
        """A command of this step leaves now: its reply may be the one to be lost."""
        if point == self.plan.point and self.plan.fault == "lost" and self._mine():
            self.plan.armed.touch()

    def late(self, flow: str) -> bool:
        """Whether this call shall be too late to be sent."""
        return flow == "cancel" and self.plan.point.startswith("give-back.") and self.plan.token.exists()

    def _mine(self) -> bool:
        try:
            self.plan.token.unlink()
        except FileNotFoundError:
            return False
        told = {"pid": os.getpid(), "at_us": time.time_ns() // 1000}
        unfinished = self.plan.fired.with_suffix(".part")
        unfinished.write_text(json.dumps(told))
        unfinished.rename(self.plan.fired)
        return True


# -- Redis: what has left, and what has come back -------------------------------------------------------------------


def _wrap_trips(step: _Step) -> None:
    trip, run = ledger.round_trip, Scripts.run  # type: ignore[attr-defined]

    async def round_trip(
        client: aioredis.Redis,
        commands: Sequence[tuple[Any, ...]],
        then: Callable[[list[Any]], tuple[Any, ...] | None] = lambda _: None,
    ) -> list[Any]:
        settling, replies, rest = _settling.get(), list[Any](), list(commands)
        for n, words in enumerate(commands):
            name = _names.get(words[1], "") if words[0] == "EVALSHA" else ""
            point = f"{settling[n]}.settle-sent" if name == "settle" and n < len(settling) else f"{name}.sent"
            step.leaves(point)
            if point == step.plan.point:
                # A trip torn after this command: the server has done it, and nothing of what follows.
                upto = n + 1 - len(replies)
                replies += await trip(client, rest[:upto])
                rest = rest[upto:]
                if name != "admit" or (replies[-1][0] == 1 and replies[-1][2]):
                    step.reached(point)
        replies += await trip(client, rest, then)
        for words, reply in zip(commands, replies, strict=False):  # a last one may be a WAIT
            if words[0] == "EVALSHA" and _names.get(words[1]) == "take" and isinstance(reply, list) and reply[4]:
                step.reached(f"{_taken_flow(read_taken(reply, ''))}.take-sent")
        return replies

    async def run_script(self: Scripts, client: aioredis.Redis, name: str, keys: Sequence[str], args: Any) -> Any:
        if name == "claim":
            step.leaves("push.claim-sent")
        reply = await run(self, client, name, keys, args)
        if name == "claim" and reply[0]:
            step.reached("push.claim-sent")
        return reply

    ledger.round_trip = round_trip  # type: ignore[attr-defined]
    Scripts.run = run_script  # type: ignore[method-assign]


def _taken_flow(taken: Taken) -> str:
    return flow_of(taken.batch.stage, taken.batch.works[0]) if taken.batch else ""


def _wrap_ledger(step: _Step) -> None:
    serve_round, claim = RedisLedger.round, RedisLedger.claim

    async def round_(self: RedisLedger, wanted: RoundRequest) -> Round:
        flows = tuple(_settled_flow(settlement) for settlement in wanted.settlements)
        for flow in flows:
            step.reached(f"{flow}.settle")
        _settling.set(flows)
        reply = await serve_round(self, wanted)
        for flow, settled in zip(flows, reply.settled, strict=True):
            if isinstance(settled, Settled) and settled.applied:
                step.reached(f"{flow}.settle-answered")
        if isinstance(reply.admitted, Admitted) and reply.admitted.admitted:
            step.reached("admit.answered")
        for taken in reply.taken:
            if isinstance(taken, Taken) and taken.batch:
                step.reached(f"{_taken_flow(taken)}.take-answered")
        return reply

    async def claim_(self: RedisLedger, orders: Sequence[str]) -> tuple[list[Work], int]:
        works, left_alone = await claim(self, orders)
        _claimed.update(work.id for work in works)
        if works:
            step.reached("push.claim-answered")
        return works, left_alone

    RedisLedger.round = round_  # type: ignore[method-assign]
    RedisLedger.claim = claim_  # type: ignore[method-assign]


def _settled_flow(settlement: Settlement) -> str:
    if settlement.permit:
        return _flows.get(settlement.permit.member, "")
    return "push" if any(work.work.id in _claimed for work in settlement.works) else "local"


# -- a call and its judgement ---------------------------------------------------------------------------------------


def _wrap_calls(step: _Step) -> None:
    carry, call_door, handle = Carrier.carry, Door.call, httpx.AsyncHTTPTransport.handle_async_request

    async def carry_(self: Carrier, call: Call) -> Outcome:
        flow = flow_of(call.batch.stage, call.batch.works[0])
        if step.late(flow):
            flow = "give-back"
            time.sleep(LATE_S)  # noqa: ASYNC251 -- a process that stands still for a moment
        _flows[call.batch.id] = flow
        _flow.set(flow)
        return await carry(self, call)

    async def door_call(self: Door, *args: Any, **kwargs: Any) -> Exchange:
        exchange = await call_door(self, *args, **kwargs)
        step.reached(f"{_flow.get()}.answer")
        return exchange

    async def handle_(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        flow = _flow.get()
        if flow:
            step.reached(f"{flow}.connect")
            request.extensions["trace"] = _trace(step, flow, request.extensions["trace"])
        return await handle(self, request)

    Carrier.carry = carry_  # type: ignore[method-assign]
    Door.call = door_call  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = handle_  # type: ignore[method-assign]
    _wrap_judge(step)


def _trace(step: _Step, flow: str, own: Trace) -> Trace:
    """What happens at a call's moments, before the worker's own code hears of them."""

    async def trace(event: str, about: object) -> None:
        if event == FIRST_BYTE:
            step.leaves(f"{flow}.written")
            step.reached(f"{flow}.send")
        elif event == "http11.send_request_body.complete":
            step.reached(f"{flow}.written")
        await own(event, about)

    return trace


def _wrap_judge(step: _Step) -> None:
    def wrapped(name: str) -> None:
        judge = getattr(Judge, name)

        def judged(self: Judge, *args: Any) -> Any:
            step.reached(f"{_flow.get()}.judge")
            return judge(self, *args)

        setattr(Judge, name, judged)

    wrapped("cancel")
    wrapped("look")
