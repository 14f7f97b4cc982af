"""The demo: everything at once on this machine, and an audit at the end that can fail.

A real server, real worker processes and real producers; only the venues are simulated, with their own limits, and
misbehave now and then. At the end the workers are drained and three things that know nothing of each other are joined,
lane by lane: what the producers sent, what the results stream says, and what the venue knows.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from cancelq.errors import CancelqError
from cancelq_worker.demo.audit import LaneReport, Report, audit
from cancelq_worker.demo.failure import DemoFailed
from cancelq_worker.demo.fleet import Fleet
from cancelq_worker.demo.producers import Sender
from cancelq_worker.demo.progress import Observer
from cancelq_worker.demo.scenario import write_script
from cancelq_worker.demo.screen import Screen
from cancelq_worker.demo.script import Part, Producer, Script
from cancelq_worker.demo.tables import Asked, Tables
from cancelq_worker.demo.venue import VenueError, Venues
from cancelq_worker.embedded import EmbeddedServer
from cancelq_worker.exits import Exit

__all__ = ["run"]

STEP_S = 0.2
STUCK_S = 60.0
# Longer than a producer that was told to stop may still wait for one reply.
SEND_S = 40.0


def run(orders: int = 5000) -> int:
    """Runs the demo with so many cancels; returns its exit code, 0 only if the audit found nothing wrong.

    Raises `CommandFailed` for a number it cannot do, `EmbeddedServerError` where no server can be started. On a
    failure the processes' logs are kept, and the screen says where.
    """
    script = write_script(orders)
    screen = Screen(script.size)
    folder = Path(tempfile.mkdtemp(prefix="cancelq-demo-"))
    keep = False
    try:
        with _Interrupts() as interrupts:
            report = _play(script, screen, folder, interrupts.pause)
        keep = not report.ok
        screen.report(report, folder if keep else None)
        return Exit.UNHEALTHY if keep else Exit.OK
    except (DemoFailed, CancelqError, VenueError, RedisError) as error:
        keep = True
        screen.failed(str(error), folder)
        return Exit.UNHEALTHY
    except KeyboardInterrupt:
        screen.interrupted()
        return Exit.INTERRUPTED
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _play(script: Script, screen: Screen, folder: Path, pause: Callable[[float], None]) -> Report:
    """Starts everything, sends, watches until all is settled, drains the workers, audits."""
    with ExitStack() as stack:
        screen.starting("an embedded Valkey server, every write on disk before it is answered")
        server = stack.enter_context(EmbeddedServer(durable=True))
        fleet = stack.enter_context(Fleet(folder, os.environ, pause))
        screen.starting("simulated venues with their limits, 5 to 25 ms each way, and some trouble")
        venues = stack.enter_context(closing(fleet.start_venues()))
        order_ids = venues.prepare(script)
        screen.starting(f"workers that serve {', '.join(map(str, script.lanes))}")
        fleet.start_workers([part.market for part in script.parts], venues, server.url)
        senders = [Sender(who, script, order_ids, server.url) for who in Producer]
        observer = stack.enter_context(closing(Observer(server.url, venues, script)))
        stack.callback(_stop, senders)
        with screen.live():
            _watch(observer, senders, fleet, screen, pause)
        _stop(senders)
        for sender in senders:
            sender.join(SEND_S)
        # Only now is the stream complete: nobody is left who could write a second outcome.
        fleet.drain_workers()
        observer.look()
        return Report([_audit(part, senders, observer, venues, server.url, folder) for part in script.parts])


def _watch(
    observer: Observer, senders: list[Sender], fleet: Fleet, screen: Screen, pause: Callable[[float], None]
) -> None:
    """Sends and looks on until every entry has its last event, or nothing has moved for too long.

    Raises `DemoFailed` when a process has ended or a producer cannot send.
    """
    for sender in senders:
        sender.start()
    while True:
        progress = observer.look()
        screen.show(progress)
        fleet.check()
        sending = [sender for sender in senders if sender.is_alive()]
        for sender in senders:
            if sender.error:
                raise DemoFailed(f"producer {sender.who} cannot send: {sender.error}") from sender.error
        if progress.complete and not sending:
            return
        if progress.still_s > STUCK_S:
            screen.stuck(progress, STUCK_S)
            return
        pause(STEP_S)


def _stop(senders: list[Sender]) -> None:
    for sender in senders:
        sender.stop()


def _audit(
    part: Part, senders: list[Sender], observer: Observer, venues: Venues, redis_url: str, folder: Path
) -> LaneReport:
    """Reads all of a lane anew and judges it. What a finding rests on goes to the logs, as the server ends with the
    demo."""
    lane, market = part.lane, part.market
    (progress,) = (one for one in observer.progress.lanes if one.lane == lane)
    asked: list[Asked] = [entry for sender in senders for entry in sender.asked[lane]]
    with Redis.from_url(redis_url, socket_timeout=5.0) as redis:
        inbox_length = int(redis.xlen(lane.inbox))
    tables = Tables(
        lane=str(lane),
        asked=asked,
        events=observer.everything(lane),
        truth=list(venues.truth(market)),
        buckets=progress.buckets,
        calls=observer.calls(market),
        inbox_length=inbox_length,
        reply_proves=market.reply_proves,
        keeps_ids=market.keeps_ids,
        locked_at=market.locked_at,
    )
    report = audit(tables)
    if report.findings:
        name = f"{lane.venue}-{lane.account}"
        events = (event.model_dump(mode="json", exclude_none=True) for event in tables.events)
        _write(folder / f"{name}-events.jsonl", events)
        _write(folder / f"{name}-asked.jsonl", map(asdict, tables.asked))
        _write(folder / f"{name}-truth.jsonl", map(asdict, tables.truth))
    return report


def _write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class _Interrupts:
    """INT, TERM and HUP end the demo, but only at its pauses: nothing is half started or half ended then."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], object] | int | None]
        self._before = {}

    def pause(self, seconds: float) -> None:
        """Waits. Raises `KeyboardInterrupt` if the demo is to end."""
        if not self._asked:
            time.sleep(seconds)
        if self._asked:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
