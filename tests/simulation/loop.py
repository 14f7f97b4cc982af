"""Virtual time: an asyncio loop without sockets that jumps to the next timer, for several processes at once.

Every callback belongs to a process (by its context). Callbacks of one process run in the order asyncio promises; which
process runs next is drawn from the seed. So a process can be paused, killed or given clocks of its own, and a run
depends on nothing but its seed.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from cancelq_worker import clocks

START_S = 1_000.0
EPOCH_US = 1_767_225_600_000_000  # the wall clock at second 0 of the loop: 2026-01-01
STEP_S = 2e-6  # what a callback takes

_PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class Process:
    """One process: its callbacks that are due, its clocks, whether it lives.

    `wall_us` and `steady_us` are how far its clocks are ahead; `per_million` by how much they are fast.
    """

    __slots__ = ("alive", "context", "due", "held", "name", "per_million", "steady_us", "tasks", "wall_us")

    def __init__(self, name: str) -> None:
        self.name = name
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)
        self.due: deque[asyncio.Handle] = deque()
        self.alive = True
        self.held = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.wall_us = 0
        self.steady_us = 0
        self.per_million = 0.0

    def __repr__(self) -> str:
        return f"<process {self.name}>"


_Timer = tuple[float, int, asyncio.TimerHandle, Process]


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of one run. What is started outside of `spawn` belongs to the process `world`."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._stopping = False
        self._rng = rng
        self._now = START_S
        self._timers: list[_Timer] = []
        self._numbered = 0
        self._runnable: list[Process] = []
        self.world = self.current = Process("world")
        self.ran = 0
        self.troubles: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.troubles.append(context))

    # -- what asyncio asks for ----------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]  # typeshed types the arguments one by one
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS, self.world)
        handle = asyncio.Handle(callback, args, self, context)
        if process.alive:
            self._ready_for(process, handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS, self.world)
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if process.alive:
            self._numbered += 1
            heapq.heappush(self._timers, (when, self._numbered, timer, process))
        return timer

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        process = self.current if context is None else context.get(_PROCESS, self.world)
        process.tasks.append(task)
        if len(process.tasks) > 2_000:
            process.tasks = [task for task in process.tasks if not task.done()]
        return task

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is left where it is, and skipped

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        pass  # of a process that was killed: nothing of it runs any more

    def _ready_for(self, process: Process, handle: asyncio.Handle) -> None:
        process.due.append(handle)
        if len(process.due) == 1 and not process.held:
            self._runnable.append(process)

    def _run_once(self) -> None:
        """Runs until somebody stops the loop."""
        runnable, timers, draw = self._runnable, self._timers, self._rng.random
        while not self._stopping:
            while timers and timers[0][0] <= self._now:
                _, _, timer, process = heapq.heappop(timers)
                if not timer._cancelled and process.alive:
                    self._ready_for(process, timer)
            if not runnable:
                if not timers:
                    raise RuntimeError("nothing is left to happen, and the run waits for something")
                self._now = max(self._now, timers[0][0])
                continue
            at = int(draw() * len(runnable)) if len(runnable) > 1 else 0
            process = runnable[at]
            handle = process.due.popleft()
            if not process.due:
                runnable[at] = runnable[-1]
                runnable.pop()
            if handle._cancelled:
                continue
            self._now += STEP_S
            self.ran += 1
            self.current = process
            handle._run()
            self.current = self.world

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self, process: Process, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs it in that process, with all it starts."""
        return self.create_task(coro, context=process.context.copy())

    def at(self, process: Process, when_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Calls it at that time in another process: what is on its way arrives whatever becomes of the sender."""
        self.call_at(when_s, callback, *args, context=process.context)

    def kill(self, process: Process) -> None:
        """Nothing of it runs any more, no clean-up either."""
        process.alive = False
        process.due.clear()
        if process in self._runnable:
            self._runnable.remove(process)

    def hold(self, process: Process) -> None:
        """It runs nothing until `release`; what is due meanwhile comes late."""
        if not process.held:
            process.held = True
            if process in self._runnable:
                self._runnable.remove(process)

    def holds(self, process: Process) -> bool:
        """Whether it is held now."""
        return process.held

    def release(self, process: Process) -> None:
        if process.held:
            process.held = False
            if process.due and process.alive:
                self._runnable.append(process)

    def steady_ns(self) -> int:
        """The monotonic clock of the process that runs."""
        process = self.current
        return int(self._now * 1e9 * (1 + process.per_million / 1e6)) + process.steady_us * 1_000

    def wall_us(self) -> int:
        """UTC, as it truly is."""
        return EPOCH_US + int(self._now * 1e6)

    def wall_ns(self) -> int:
        """The wall clock of the process that runs."""
        return (self.wall_us() + self.current.wall_us) * 1_000

    def end(self, processes: list[Process]) -> None:
        """Closes the loop and what was left in the middle; whatever that raises belongs to nobody."""
        for process in (*processes, self.world):
            self.kill(process)
        for process in (*processes, self.world):
            for task in process.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    _close(task)
        self.close()


def _close(task: asyncio.Task[Any]) -> None:
    coro: Any = task.get_coro()
    for _ in range(5):  # a clean-up may wait for something once more
        try:
            coro.close()
        except BaseException:
            continue
        return


class virtual_time:
    """Within the block a process' clocks are the loop's."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._before = clocks.Machine()

    def __enter__(self) -> None:
        machine = clocks.MACHINE
        self._before = clocks.Machine(machine.monotonic_ns, machine.wall_ns)
        machine.monotonic_ns, machine.wall_ns = self._loop.steady_ns, self._loop.wall_ns

    def __exit__(self, *_: object) -> None:
        clocks.MACHINE.monotonic_ns, clocks.MACHINE.wall_ns = self._before.monotonic_ns, self._before.wall_ns
