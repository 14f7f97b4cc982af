"""An environment of its own for each peer, from hashed pins, under `build/peers/`; made when it is missing or its pins
have changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import rig

ROOT = Path(__file__).parents[3]
PINS, BUILT = ROOT / "requirements" / "peers", ROOT / "build" / "peers"
BUILD_S = 600

LIST = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
)


def python_of(name: str) -> Path:
    """The interpreter of that environment, which is built if need be; cancelq's is this one."""
    if name == "cancelq":
        return Path(sys.executable)
    pins, folder = PINS / f"{name}.txt", BUILT / name
    python, made_from = folder / "bin" / "python", folder / "pins.txt"
    if not (made_from.exists() and made_from.read_bytes() == pins.read_bytes()):
        print(f"building the environment of {name} …", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _ask([sys.executable, "-m", "venv", str(folder)])
        _ask([str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(pins)])
        shutil.copyfile(pins, made_from)
    return python


def versions(name: str) -> dict[str, str]:
    """Every package of that environment with its version."""
    found: dict[str, str] = orjson.loads(_ask([str(python_of(name)), "-c", LIST]))
    return dict(sorted(found.items()))


def _ask(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode:
        raise rig.BenchFailed(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout
