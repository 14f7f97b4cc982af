"""Servers that stand in for each other: a master with replicas under three sentinels, and a cluster of three nodes.

All are the distribution's redis-server, each a process of its own on a free port of 127.0.0.1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from redis import Redis
from redis.exceptions import RedisError

from cancelq.broker import slot_of
from cancelq.contract import Lane
from tests.servers import RedisDebian, find_redis_server, quiet_port

MASTER = "desk"
SENTINELS, QUORUM = 3, 2
DOWN_AFTER_MS = 500
NODE_TIMEOUT_MS = 1_500
READY_S = 30.0
STEP_S = 0.02

#: A replica is caught up with, and a lost one noticed, within a second.
REPLICATED = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1", "min-replicas-max-lag": "1"}


def until(true: Callable[[], Any], what: str, within_s: float = READY_S) -> Any:
    """Asks again and again, until the answer is true; a server that does not answer is no answer."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        try:
            if found := true():
                return found
        except RedisError:
            pass
        time.sleep(STEP_S)  # between two looks
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


class SentinelProcess(RedisDebian):
    """One sentinel, by these lines of its file."""

    def __init__(self, folder: Path, lines: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, durable=False)
        self._conf = folder / "sentinel.conf"
        own = [f"port {self.port}", "bind 127.0.0.1", f"dir {folder}", f"logfile {self._log}"]
        self._conf.write_text("\n".join([*own, *lines, ""]))

    def _command(self) -> list[str]:
        return [find_redis_server(), str(self._conf), "--sentinel"]


def watching(master_port: int) -> list[str]:
    """What a sentinel is told of the master."""
    return [
        f"sentinel monitor {MASTER} 127.0.0.1 {master_port} {QUORUM}",
        f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {MASTER} 3000",
    ]


def conf_lines(path: Path) -> list[str]:
    """The lines of a server's file that say something."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


class Front(Protocol):
    """A way to the first master that can be cut: its replicas and the sentinels know it by this port alone."""

    upstream: int
    port: int


class Watched:
    """A master with replicas, and the sentinels that watch them. `seen_as`: the port that these know the first by.
    `unnamed_us`: the last moment (epoch µs) at which no sentinel named another master, as `await_failover` saw it: from
    then on, and no sooner, somebody may have found the new one."""

    def __init__(self, servers: list[RedisDebian], sentinels: list[SentinelProcess], seen_as: int) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.unnamed_us = 0
        self._ports = {server.port: server for server in servers} | {seen_as: servers[0]}

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{MASTER}"

    def named(self) -> int:
        """The port that most sentinels name as the master's."""
        told = self._told()
        return max(set(told), key=told.count) if told else 0

    def _told(self) -> list[int]:
        """The ports that they name, each by itself."""
        told = []
        for sentinel in self.sentinels:
            try:
                with sentinel.client() as client:
                    told.append(int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1]))
            except RedisError:
                continue
        return told

    def master(self) -> RedisDebian:
        return self._ports[self.named()]

    def replicas(self) -> list[RedisDebian]:
        master = self.master()
        return [server for server in self.servers if server is not master]

    def await_failover(self, old: RedisDebian) -> RedisDebian:
        """Until the sentinels name another master, which says itself that it is one."""

        def promoted() -> bool:
            asked_us = time.time_ns() // 1000
            if all(self._ports[port] is old for port in self._told()):
                self.unnamed_us = asked_us
                return False
            return bool(self.named()) and self.master() is not old and role(self.master()) == "master"

        until(promoted, "another master")
        return self.master()

    def await_replicas(self, count: int) -> None:
        """Until the master has so many replicas that have all it has."""

        def there() -> bool:
            with self.master().client() as client:
                return int(client.execute_command("WAIT", count, 100)) >= count and _online(client) >= count

        until(there, f"{count} replicas")

    def await_seen(self, count: int) -> None:
        """Until the sentinels know of so many replicas that follow the master. They look every ten seconds, and one
        that they do not know of is told of the next master that late."""
        for sentinel in self.sentinels:
            until(partial(_sees, sentinel, count), "sentinels that see the replicas", within_s=60.0)


def role(server: RedisDebian) -> str:
    """`master` or `slave`, as the server sees itself."""
    return str(_run(server, "ROLE")[0].decode())


def _online(client: Redis) -> int:
    told: dict[str, Any] = client.info("replication")
    return sum(told[name]["state"] == "online" for name in told if name.startswith("slave") and name[5:].isdigit())


@contextmanager
def watched(
    folder: Path, *, replicas: int = 1, config: Mapping[str, str] | None = None, front: Front | None = None
) -> Iterator[Watched]:
    """A master that is replicated and watched, perhaps through a `front`, with `config` on every server."""
    with ExitStack() as stack:
        settings = {**REPLICATED, **(config or {})}
        servers = [_started(stack, folder / f"server{n}", settings) for n in range(replicas + 1)]
        seen_as = servers[0].port
        if front:
            front.upstream, seen_as = servers[0].port, front.port
        for server in servers[1:]:
            _run(server, "REPLICAOF", "127.0.0.1", seen_as)
        sentinels = [SentinelProcess(folder / f"sentinel{n}", watching(seen_as)) for n in range(SENTINELS)]
        for sentinel in sentinels:
            sentinel.start()
            stack.callback(sentinel.stop)
        made = Watched(servers, sentinels, seen_as)
        made.await_replicas(replicas)
        for sentinel in sentinels:
            until(partial(_knows_all, sentinel, replicas), "sentinels that know each other")
        yield made


def _started(stack: ExitStack, folder: Path, config: Mapping[str, str]) -> RedisDebian:
    folder.mkdir(parents=True)
    server = RedisDebian(folder, durable=True, config=config)
    server.start()
    stack.callback(server.stop)
    return server


def _sees(sentinel: SentinelProcess, replicas: int) -> bool:
    with sentinel.client() as client:
        seen: list[dict[str, Any]] = client.sentinel_slaves(MASTER)
    there = [one for one in seen if one["flags"] == "slave" and one["master-link-status"] == "ok"]
    return len(there) >= replicas


def _knows_all(sentinel: SentinelProcess, replicas: int) -> bool:
    with sentinel.client() as client:
        told: dict[str, Any] = client.sentinel_master(MASTER)
    return int(told["num-other-sentinels"]) == SENTINELS - 1 and int(told["num-slaves"]) == replicas


@contextmanager
def stopped(server: RedisDebian) -> Iterator[None]:
    """The server's process, or the machine under it, stands still."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class ClusterOfThree:
    """Three nodes that share the slots."""

    def __init__(self, nodes: list[RedisDebian]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def holder(self, slot: int) -> RedisDebian:
        """The node that says that it holds a slot."""
        with self.nodes[0].client() as client:
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody holds slot {slot}")

    def lane(self, venue: str, node: int) -> Lane:
        """A lane of a venue whose slot this node holds."""
        for n in range(1000):
            lane = Lane(venue, f"desk{n}")
            if self.holder(slot_of(lane.inbox)) is self.nodes[node]:
                return lane
        raise AssertionError("no such lane")

    def move(self, slot: int, to: RedisDebian) -> None:
        """Moves a slot with all its keys, as `redis-cli --cluster reshard` does."""
        source = self.holder(slot)
        ids = self.begin_move(slot, to)
        while keys := _run(source, "CLUSTER", "GETKEYSINSLOT", slot, 10):
            _run(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        for node in (to, source, *(node for node in self.nodes if node not in (to, source))):
            _run(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[to])

    def begin_move(self, slot: int, to: RedisDebian) -> dict[RedisDebian, str]:
        """From now on keys of the slot may be moved; the names of both nodes."""
        source = self.holder(slot)
        ids = {node: _run(node, "CLUSTER", "MYID").decode() for node in (source, to)}
        _run(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        _run(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])
        return ids

    def give_up_move(self, slot: int) -> None:
        for node in self.nodes:
            _run(node, "CLUSTER", "SETSLOT", slot, "STABLE")


def move_key(key: str, source: RedisDebian, to: RedisDebian) -> None:
    """Moves one key, as a part of the move of its slot."""
    _run(source, "MIGRATE", "127.0.0.1", to.port, key, 0, 5000)


def _is_well(node: RedisDebian) -> bool:
    return "cluster_state:ok" in str(_run(node, "CLUSTER", "INFO"))


def _run(server: RedisDebian, *words: Any) -> Any:
    with server.client() as client:
        return client.execute_command(*words)


@contextmanager
def cluster(folder: Path) -> Iterator[ClusterOfThree]:
    """A cluster made by `redis-cli --cluster create`."""
    with ExitStack() as stack:
        buses = [quiet_port() for _ in range(3)]
        nodes = []
        for n, bus in enumerate(buses):
            config = {
                "cluster-enabled": "yes",
                "cluster-port": str(bus),
                "cluster-node-timeout": str(NODE_TIMEOUT_MS),
                "cluster-require-full-coverage": "no",  # lanes of other nodes go on
                "cluster-config-file": "nodes.conf",
            }
            nodes.append(_started(stack, folder / f"node{n}", config))
        places = [f"127.0.0.1:{node.port}@{bus}" for node, bus in zip(nodes, buses, strict=True)]
        create = ["redis-cli", "--cluster", "create", *places, "--cluster-yes"]
        told = subprocess.run(create, capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stdout + told.stderr
        for node in nodes:
            until(partial(_is_well, node), "a cluster that is well")
        yield ClusterOfThree(nodes)
