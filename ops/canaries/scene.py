"""One run: chaos with canaries for secrets, provocations, and everything left behind brought together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from cancelq_worker.embedded import EmbeddedServer, free_port
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.orders import Account
from cancelq_worker.simulator.simulator import DEMO_UID, Simulator
from ops.canaries.echo import Echo
from ops.canaries.left_behind import Watch, left_in_archives, left_in_redis, left_in_server_files
from ops.canaries.provoking import Provoker
from ops.canaries.searching import Artefact, Find, files_below, search
from ops.canaries.secrets_made import Canary, make_canaries
from ops.canaries.workers import CanarySlot
from ops.chaos.asking import produce
from ops.chaos.faults import heal, torment
from ops.chaos.links import Link
from ops.chaos.places import PLACES
from ops.chaos.workers import end_workers, supervise
from ops.chaos.world import Desk, World, client, until
from ops.checks import read_streams

USER = "desk"
NAMES = (
    *(f"{venue} {part}" for venue in PLACES for part in ("api_key", "api_secret")),
    "bitget passphrase",
    "redis password",
    "a second key",
    "a wrong password",
    "a broken passphrase",
)
WORKERS = 3  # one with keys in its environment, one with keys in files, one that says all it can
PER_S = 8.0  # intents a second and venue
FAULTS_PER_S = 3.0
ECHO_SHARE = 0.08
GIVE_UP_S = 60.0


@dataclass
class Outcome:
    """What one run left behind, what of it was found, and what was done, by name."""

    finds: list[Find]
    artefacts: list[Artefact] = field(repr=False)
    canaries: list[Canary]
    signatures: set[str] = field(repr=False)
    done: dict[str, int]
    intents: int
    settled: bool

    def sizes(self) -> dict[str, tuple[int, int]]:
        """How many artefacts there are of each kind, and their bytes."""
        sizes: dict[str, tuple[int, int]] = {}
        for artefact in self.artefacts:
            count, size = sizes.get(artefact.kind, (0, 0))
            sizes[artefact.kind] = count + 1, size + len(artefact.content)
        return sizes


async def run(seed: int, seconds: float, folder: Path, *, thorough: bool = True) -> Outcome:
    """Torments and provokes for `seconds`, lets everything settle, provokes what closes lanes, ends all it started, and
    searches. `folder` is empty; below it lie `left`, `keys` and `server`. Not `thorough`: with fewer commands, which
    take longest."""
    rng = random.Random(seed)
    canaries = make_canaries(random.Random(seed + 2), NAMES)
    simulator = _simulator(seed, canaries)
    (folder / "left").mkdir()
    async with contextlib.AsyncExitStack() as stack:
        server = await _server(stack, folder, canaries["redis password"])
        served = await stack.enter_async_context(serve_simulator(simulator))
        echo = Echo(int(served.base_url.rsplit(":", 1)[1]), random.Random(seed + 3))
        await echo.open()
        stack.push_async_callback(echo.close)
        login = f"{USER}:{quote(canaries['redis password'].value, safe='')}"
        desks = [Desk(place, simulator) for place in PLACES.values()]
        world = World(rng, folder, server, simulator, server.url, desks, producers_link=await _link(stack, server.port))
        for number in range(WORKERS):
            links = await _link(stack, server.port), await _link(stack, echo.port)
            world.slots.append(
                CanarySlot(
                    number, *links, folder / "left", list(PLACES.values()), streams=True,
                    secrets=canaries, redis_login=login, keys=folder / "keys" / str(number),
                    by_files=number % 3 == 1, loud=number % 3 == 2,
                )
            )  # fmt: skip
        provoker = Provoker(
            world, canaries, echo, f"redis://{login}@127.0.0.1:{server.port}/0", folder, thorough=thorough
        )
        watch = Watch(server, provoker.processes)
        stack.push_async_callback(end_workers, world.slots, world.tell)
        stack.push_async_callback(provoker.end)
        settled = await _play(world, provoker, watch, seconds)
        artefacts = [*watch.artefacts, *await left_in_redis(server)]
    artefacts += [*left_in_server_files(folder / "server"), *files_below(folder / "left", "logs and outputs")]
    artefacts += left_in_archives(folder / "left")
    done = {**world.faults, **provoker.done, **{f"echo: {how}": times for how, times in echo.echoed.items()}}
    finds = await asyncio.to_thread(search, artefacts, list(canaries.values()), echo.signatures)
    intents = sum(len(desk.acknowledged) for desk in desks)
    return Outcome(finds, artefacts, list(canaries.values()), echo.signatures, done, intents, settled)


def _simulator(seed: int, canaries: dict[str, Canary]) -> Simulator:
    simulator = Simulator(rng=random.Random(seed + 1))
    pairs = [*simulator.core.settings.pairs, *(f"S{n}-USDT" for n in range(1, 400))]
    simulator.configure({"pairs": pairs})
    for venue in PLACES:
        passphrase = canaries["bitget passphrase"].value if venue == "bitget" else ""
        key, secret = canaries[f"{venue} api_key"].value, canaries[f"{venue} api_secret"].value
        simulator.add_account(Account(venue, key, secret, passphrase, DEMO_UID))
    return simulator


async def _server(stack: contextlib.AsyncExitStack, folder: Path, password: Canary) -> EmbeddedServer:
    """Durable, with a user whose password it knows as a digest only; files are written so that they can be searched."""
    digest = hashlib.sha256(password.value.encode()).hexdigest()
    users = folder / "users.acl"
    users.write_text(f"user default on nopass ~* &* +@all\nuser {USER} on #{digest} ~* &* +@all\n")
    (folder / "server").mkdir()
    plain = {"aclfile": str(users), "rdbcompression": "no", "list-compress-depth": "0"}
    server = EmbeddedServer(durable=True, port=free_port(), data_dir=folder / "server", config=plain | _DURABLE)
    await asyncio.to_thread(server.start)
    stack.callback(server.stop)
    return server


_DURABLE = {"appendonly": "yes", "appendfsync": "always"}


async def _link(stack: contextlib.AsyncExitStack, upstream: int) -> Link:
    made = Link(upstream)
    await made.open()
    stack.push_async_callback(made.close)
    return made


async def _play(world: World, provoker: Provoker, watch: Watch, seconds: float) -> bool:
    """The run itself; whether everything asked was settled before the lanes were closed on purpose."""
    for slot in world.slots:
        slot.start()
    watching = asyncio.ensure_future(watch.look())
    supervisor = asyncio.ensure_future(supervise(world.slots, world.tell))
    stop = asyncio.Event()
    try:
        await until(lambda: _lanes_open(world), 30)
        provoker.start_jobs()
        url = f"redis://127.0.0.1:{world.producers_link.port}/0"
        producers = [asyncio.ensure_future(produce(desk, world.rng, url, stop, PER_S)) for desk in world.desks]
        provoker.echo.share = ECHO_SHARE
        provoking = asyncio.ensure_future(provoker.beside())
        await torment(world, world.at() + seconds, FAULTS_PER_S)
        stop.set()
        await asyncio.gather(*producers, provoking)
        provoker.echo.share = 0.0
        heal(world)
        settled = await until(lambda: _all_told(world), GIVE_UP_S)
        await provoker.close_lanes()
        await provoker.ask_everything()
        return settled
    finally:
        supervisor.cancel()
        watching.cancel()


async def _lanes_open(world: World) -> bool:
    redis = client(world.url)
    try:
        return await redis.exists(*(desk.lane.inbox for desk in world.desks)) == len(world.desks)
    finally:
        await redis.aclose()


async def _all_told(world: World) -> bool:
    redis = client(world.url)
    try:
        return not any([(await read_streams(redis, desk.lane)).open_ids for desk in world.desks])
    finally:
        await redis.aclose()
