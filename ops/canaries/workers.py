"""Workers with canaries for keys: some get them as files, some by their environment, one says all it can."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cancelq_worker.embedded import free_port
from ops.canaries.secrets_made import Canary
from ops.chaos.workers import CANCELQ, LEASE_MS, Slot, outside_env

LOUD = (sys.executable, "-m", "ops.canaries.loud")
ROOT = Path(__file__).parents[2]


@dataclass
class CanarySlot(Slot):
    """As chaos' slots, with secrets of one run. `by_files`: they lie in the folder `keys`, and none is in the
    environment."""

    secrets: Mapping[str, Canary] = field(default_factory=dict, repr=False)
    redis_login: str = field(default="", repr=False)
    keys: Path = Path()
    by_files: bool = False
    loud: bool = False
    http_port: int = field(default_factory=free_port)
    pids: set[int] = field(default_factory=set)

    def start(self) -> None:
        self.started += 1
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                LOUD if self.loud else (*CANCELQ, "worker"),
                env=self.environment(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self.pids.add(self.process.pid)
        self.doomed = self.stopped = self.disturbed = False
        self.draining_since = 0.0

    def environment(self) -> dict[str, str]:
        """What its process is started with; the secrets of one that gets them by files are written there."""
        env = outside_env() | {
            "CANCELQ_LEASE_MS": str(LEASE_MS),
            "CANCELQ_EGRESS": "canaries",
            "CANCELQ_HTTP": f"127.0.0.1:{self.http_port}",
        }
        if self.loud:
            env |= {"PYTHONASYNCIODEBUG": "1", "PYTHONFAULTHANDLER": "1"}
        secret = {"CANCELQ_REDIS_URL": f"redis://{self.redis_login}@127.0.0.1:{self.redis.port}/0"}
        for place in self.places:
            prefix = f"CANCELQ_ACCOUNTS__{place.lane.venue}__{place.lane.account}__".upper()
            at = f"127.0.0.1:{self.venue.port}"
            env |= {f"{prefix}BASE_URL": f"http://{at}", f"{prefix}WS_URL": f"ws://{at}{place.stream_path}"}
            secret |= {
                f"{prefix}{part}".upper(): self.secrets[f"{place.lane.venue} {part}"].value
                for part in ("api_key", "api_secret", "passphrase")
                if f"{place.lane.venue} {part}" in self.secrets
            }
        if not self.by_files:
            return env | secret
        write_secrets(self.keys, secret)
        return env | {"CANCELQ_SECRETS_DIR": str(self.keys)}


def write_secrets(folder: Path, secrets: Mapping[str, str]) -> None:
    """Each into a file of its own, which nobody else may read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, value in secrets.items():
        file = folder / name.lower()
        file.touch(mode=0o600)
        file.write_text(value + "\n")
