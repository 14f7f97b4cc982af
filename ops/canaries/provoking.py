"""What is done to make a secret slip: refused keys, bad settings, crashes, signals, commands that show all they can."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from cancelq_worker.embedded import free_port
from cancelq_worker.exits import Exit
from ops.canaries.echo import CLOSING, Echo
from ops.canaries.left_behind import Running
from ops.canaries.secrets_made import Canary
from ops.canaries.workers import ROOT, CanarySlot, write_secrets
from ops.chaos.workers import CANCELQ, outside_env
from ops.chaos.world import World

KEY_FILE = "cancelq_accounts__bitget__main__api_key"
PATIENCE_S = 60.0
TRIES = 5
#: What a short run does of the starts that fail and of the commands that show something.
SHORT = frozenset({"wrong password", "broken url", "exposed file", "status", "archive"})


class Provoker:
    """`done` counts what was done. Files that hold secrets on purpose lie below `keys`, what was said below `left`."""

    def __init__(
        self, world: World, canaries: Mapping[str, Canary], echo: Echo, url: str, folder: Path, *, thorough: bool
    ) -> None:
        self.echo = echo
        self.done: Counter[str] = Counter()
        self._world = world
        self._secrets = canaries
        self._thorough = thorough
        self._url = url
        self._left, self._keys = folder / "left", folder / "keys"
        self._jobs: subprocess.Popen[bytes] | None = None
        self._asked: dict[int, str] = {}

    def processes(self) -> Iterator[Running]:
        """Every process that runs now and was given a secret, or could show one."""
        for slot in self._slots():
            if slot.alive and slot.process:
                yield Running(slot.process.pid, f"worker {slot.number}", not slot.by_files, slot.http_port)
        if self._jobs and self._jobs.poll() is None:
            yield Running(self._jobs.pid, "jobs", True)
        for pid, name in list(self._asked.items()):
            yield Running(pid, name, True)
        yield Running(self._world.server.pid, "server", False)

    def start_jobs(self) -> None:
        """`cancelq jobs`, and jobs for it: good ones, one that fails, one that nobody may run."""
        lanes = {f"CANCELQ_ACCOUNTS__{d.lane.venue.upper()}__MAIN__DEMO": "false" for d in self._world.desks}
        with (self._left / "jobs.log").open("wb") as log:
            self._jobs = subprocess.Popen(
                (*CANCELQ, "jobs"), env=outside_env() | lanes | {"CANCELQ_REDIS_URL": self._url}, cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
            )  # fmt: skip
        self.done["jobs enqueued"] += self._enqueue()

    def _enqueue(self) -> int:
        jobs = [
            ("cancelq.rq.submit", ["bitget:main", {"symbol": "BTCUSDT", "order_id": "77"}]),
            ("cancelq.rq.submit", ["bitget:nobody", {"symbol": "BTCUSDT", "order_id": "78"}]),
            ("cancelq.rq.submit", ["bitget:main", {"symbol": "BTCUSDT", "order_idd": "79"}]),
            ("os.system", ["true"]),
        ]
        with Redis.from_url(self._url) as redis:
            queue = Queue("cancelq", connection=redis, serializer=JSONSerializer)
            for function, arguments in jobs:
                queue.enqueue(function, args=arguments, result_ttl=3600, failure_ttl=3600)
        return len(jobs)

    async def beside(self) -> None:
        """While everything fails: settings that cannot be used, signals, starts that end at once."""
        by_files = next(slot for slot in self._slots() if slot.by_files)
        await self._hup(by_files, KEY_FILE, "two " + self._secrets["a broken passphrase"].value)
        await self._start_badly()
        await self._hup(by_files, KEY_FILE, self._secrets["bitget api_key"].value)
        for slot in self._slots():
            if slot.loud and slot.alive and slot.serving:
                slot.signal(signal.SIGUSR1)
                self.done["where all threads are"] += 1
            elif slot.alive and slot.serving and not slot.by_files:
                slot.doomed = True
                slot.signal(signal.SIGQUIT)
                self.done["QUIT"] += 1

    async def _start_badly(self) -> None:
        """Commands that cannot start, each for another reason, with the reason in its settings."""
        secret = self._secrets["a broken passphrase"].value
        password = quote(self._secrets["a wrong password"].value, safe="")
        wrong = f"redis://desk:{password}@127.0.0.1:{self._world.server.port}/0"
        account = "CANCELQ_ACCOUNTS__BITGET__MAIN__"
        keys = {f"{account}API_KEY": secret, f"{account}API_SECRET": secret, f"{account}PASSPHRASE": secret}
        broken = self._keys / "broken.toml"
        broken.write_text(f"[accounts.bitget.main]\napi_secret = {secret}\npassphrase = '{secret}\n")
        broken.chmod(0o600)
        exposed = self._keys / "exposed"
        write_secrets(exposed, {KEY_FILE: secret})
        (exposed / KEY_FILE).chmod(0o644)
        starts: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
            "wrong password": ({"CANCELQ_REDIS_URL": wrong, **keys}, ("--traceback", "worker")),
            "broken url": ({"CANCELQ_REDIS_URL": f"redis://:{secret}@127.0.0.1:{secret}/0"}, ("--traceback", "status")),
            "broken file": ({"CANCELQ_CONFIG": str(broken)}, ("--traceback", "worker")),
            "exposed file": ({"CANCELQ_SECRETS_DIR": str(exposed)}, ("--traceback", "worker")),
            "broken table": ({"CANCELQ_ACCOUNTS": '{"bitget": {"main": "' + secret + '"}}'}, ("--traceback", "worker")),
            "broken key": ({**keys, f"{account}API_KEY": f"{secret} {secret}"}, ("--traceback", "worker")),
            "nobody there": (
                {"CANCELQ_REDIS_URL": self._url.replace(str(self._world.server.port), str(free_port())), **keys},
                ("--traceback", "worker"),
            ),
        }
        for name, (env, words) in starts.items():
            if self._thorough or name in SHORT:
                await self._command(f"start: {name}", words, env)
        refused = "start: wrong password"
        for _ in range(TRIES):
            if self.done[f"{refused}: exit {Exit.CONFIGURATION}"]:
                break  # met a server: chaos may have ended it just before
            env, words = starts["wrong password"]
            await self._command(refused, words, env)

    async def _hup(self, slot: CanarySlot, file: str, value: str) -> None:
        write_secrets(slot.keys, {file: value})
        if slot.alive and slot.serving:
            slot.signal(signal.SIGHUP)
            self.done["HUP"] += 1
            await asyncio.sleep(0.5)  # nothing tells that a signal was heard while the process is stopped

    async def close_lanes(self) -> None:
        """The venues refuse everything, and repeat what they were asked; one worker gets a key that nobody knows; an
        operator tries to open the lanes again."""
        self.echo.how, self.echo.share = tuple(CLOSING), 1.0
        by_files = next(slot for slot in self._slots() if slot.by_files)
        with Redis.from_url(self._url, protocol=2) as redis:
            for round_ in range(2 if self._thorough else 1):
                for desk in self._world.desks:
                    fields = {"symbol": desk.place.spelt("BTC"), "order_id": desk.new_order()}
                    redis.xadd(desk.lane.inbox, dict(fields), nomkstream=True)
                await self._held(redis)
                for desk in self._world.desks if self._thorough else self._world.desks[:1]:
                    await self._command(f"resume {desk.lane.venue} {round_}", ("resume", str(desk.lane)))
                await self._hup(by_files, KEY_FILE, self._secrets["a second key"].value)

    async def _held(self, redis: Redis) -> None:
        """Until every lane is held for something, or it takes too long."""
        end_s = time.monotonic() + 8
        while time.monotonic() < end_s:
            if all(redis.hlen(desk.lane.key("hold")) for desk in self._world.desks):
                self.done["every lane held"] += 1
                return
            await asyncio.sleep(0.1)

    async def ask_everything(self) -> None:
        """Each command that shows something."""
        archive = self._left / "archive"
        asked: dict[str, tuple[str, ...]] = {
            "status": ("status", "--json"),
            "status as a table": ("status",),
            "top": ("top", "--once", "--json"),
            "results": ("results", "--json"),
            "trace": ("trace", "c-3", "--json"),
            "archive": ("archive", "--to", str(archive), "--leave", "0s", "--no-trim", "--json"),
            "audit": (
                "audit", "--json", "--report", str(self._left / "audit.html"), "--export", str(self._left / "all.csv"),
            ),
            "doctor": ("doctor", "--json"),
            "redrive": ("redrive", "--yes", "--json"),
        }  # fmt: skip
        for name, words in asked.items():
            if self._thorough or name in SHORT:
                await self._command(name, words)
        # The venues still repeat what they are asked, with the key in it.
        by_env = next(slot for slot in self._slots() if not slot.by_files)
        await self._run("doctor with keys", (*CANCELQ, "doctor", "--json"), by_env.environment())
        if self._thorough:
            await self._run("rq info", (sys.executable, "-m", "rq.cli", "info", "-u", self._world.server.url), {})

    async def _command(self, name: str, words: tuple[str, ...], env: Mapping[str, str] | None = None) -> None:
        lanes = {f"CANCELQ_ACCOUNTS__{d.lane.venue.upper()}__MAIN__DEMO": "false" for d in self._world.desks}
        given = {"CANCELQ_REDIS_URL": self._url, **lanes} if env is None else env
        await self._run(name, (*CANCELQ, *words), given)

    async def _run(self, name: str, command: tuple[str, ...], env: Mapping[str, str]) -> None:
        file = self._left / f"{name.replace(' ', '-').replace(':', '')}.out"
        with file.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *command, env={**outside_env(), **env}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
            self._asked[process.pid] = name
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await process.wait()
            finally:
                del self._asked[process.pid]
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        self.done[f"{name}: exit {process.returncode}"] += 1

    def _slots(self) -> Iterator[CanarySlot]:
        yield from (slot for slot in self._world.slots if isinstance(slot, CanarySlot))

    async def end(self) -> None:
        """Ends the jobs process."""
        if self._jobs and self._jobs.poll() is None:
            os.kill(self._jobs.pid, signal.SIGTERM)
            try:
                await asyncio.to_thread(self._jobs.wait, 10)
            except subprocess.TimeoutExpired:
                self._jobs.kill()
                self._jobs.wait()
