"""What a run leaves behind, as bytes to be searched: while it lasts (command lines, environments, pages, commands to
Redis) and afterwards (keys, files, Redis' own records)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet  # type: ignore[import-untyped]
import redis.asyncio as aioredis

from cancelq_worker.embedded import EmbeddedServer
from ops.canaries.searching import Artefact, files_below
from ops.chaos.world import client

PAGES = ("/metrics", "/livez", "/readyz", "/nothing")


class Running(NamedTuple):
    """A process to be looked at. `by_env`: it was given secrets by its environment, which therefore may hold them.
    `http_port`: where it shows its health, 0: nowhere."""

    pid: int
    name: str
    by_env: bool
    http_port: int = 0


class Watch:
    """Looks at the processes of a run until it is cancelled. Reading a process' environment takes root, where the
    process keeps its memory private."""

    def __init__(self, server: EmbeddedServer, processes: Callable[[], Iterable[Running]]) -> None:
        self._server = server
        self._processes = processes
        self._seen: dict[tuple[str, str], set[bytes]] = {}

    async def look(self) -> None:
        listening = asyncio.ensure_future(self._listen())
        try:
            while True:
                for running in list(self._processes()):
                    self._look_at(running)
                    await self._visit(running)
                await asyncio.sleep(0.2)
        finally:
            listening.cancel()

    @property
    def artefacts(self) -> list[Artefact]:
        return [Artefact(kind, name, b"\n".join(lines)) for (kind, name), lines in self._seen.items()]

    def _look_at(self, running: Running) -> None:
        for artefact in of_process(running.pid, running.name, environment=not running.by_env):
            self._see(artefact)

    async def _visit(self, running: Running) -> None:
        for path in PAGES if running.http_port else ():
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    self._see(Artefact("health and metrics", path, await page(running.http_port, path)))

    def _see(self, artefact: Artefact) -> None:
        """Each line once: pages and commands hardly differ from one time to the next."""
        self._seen.setdefault((artefact.kind, artefact.name), set()).update(artefact.content.split(b"\n"))

    async def _listen(self) -> None:
        """Every command that reaches the server, whenever it is up."""
        while True:
            with contextlib.suppress(OSError, Exception):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port, limit=1 << 26)
                writer.write(b"MONITOR\r\n")
                while line := await reader.readline():
                    # Behind the time and the client's address.
                    self._see(Artefact("commands to Redis", "MONITOR", line.partition(b"] ")[2]))
            await asyncio.sleep(0.05)


def of_process(pid: int, name: str, *, environment: bool) -> Iterator[Artefact]:
    """What the system shows of a process to others: its command line, its name and, if asked for, its environment."""
    for kind, file in (("command lines", "cmdline"), ("command lines", "comm"), ("environments", "environ")):
        if file != "environ" or environment:
            with contextlib.suppress(OSError):
                yield Artefact(kind, name, Path(f"/proc/{pid}/{file}").read_bytes())


async def page(port: int, path: str) -> bytes:
    """A page of a worker, head and all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()


async def left_in_redis(server: EmbeddedServer) -> list[Artefact]:
    """Every key, and what the server itself recorded. Writes a snapshot beside the server's other files."""
    redis = client(server.url)
    try:
        artefacts: list[Artefact] = []
        async for key in redis.scan_iter():
            parts = [key, *_parts(await _value(redis, key))]
            artefacts.append(Artefact("Redis keys", key.decode(), b"\0".join(parts)))
            artefacts += [Artefact("Redis keys, unpacked", key.decode(), content) for content in _unpacked(parts)]
        for words in (("INFO", "everything"), ("SLOWLOG", "GET", "1000"), ("CLIENT", "LIST"), ("ACL", "LOG")):
            told = await redis.execute_command(*words)  # type: ignore[no-untyped-call]
            artefacts.append(Artefact("Redis' records", " ".join(words), b"\0".join(_parts(told))))
        await redis.execute_command("SAVE")  # type: ignore[no-untyped-call]
    finally:
        await redis.aclose()
    return artefacts


def left_in_server_files(folder: Path) -> Iterator[Artefact]:
    """The server's AOF and snapshot."""
    return files_below(folder, "Redis files")


def left_in_archives(folder: Path) -> Iterator[Artefact]:
    """The rows of archived segments, which are compressed on disk."""
    for file in sorted(folder.rglob("*.parquet")):
        rows = pyarrow.parquet.read_table(file).to_pylist()
        cells = [str(cell) for row in rows for pair in row.items() for cell in pair]
        yield Artefact("archives", str(file.relative_to(folder)), "\n".join(cells).encode())


_READ = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", 0, -1),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1),
    b"stream": ("XRANGE", "-", "+"),
}


async def _value(redis: aioredis.Redis, key: bytes) -> Any:
    kind = await redis.execute_command("TYPE", key)  # type: ignore[no-untyped-call]
    command, *rest = _READ.get(kind.encode() if isinstance(kind, str) else kind, ("DUMP",))
    return await redis.execute_command(command, key, *rest)  # type: ignore[no-untyped-call]


def _parts(told: Any) -> Iterator[bytes]:
    match told:
        case bytes():
            yield told
        case dict():
            for pair in told.items():
                yield from _parts(pair)
        case list() | tuple() | set() | frozenset():
            for part in told:
                yield from _parts(part)
        case _:
            yield str(told).encode()


def _unpacked(parts: Iterable[bytes]) -> Iterator[bytes]:
    """What RQ keeps packed: a job's arguments and the traceback of one that failed."""
    for part in parts:
        for packed in (part, _from_base64(part)):
            with contextlib.suppress(zlib.error):
                yield zlib.decompress(packed)


def _from_base64(part: bytes) -> bytes:
    try:
        return base64.b64decode(part, validate=True)
    except ValueError:
        return b""
