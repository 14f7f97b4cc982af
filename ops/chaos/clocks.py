"""Wall clocks of workers that can be set while they run: a small library that is preloaded (`clock_shim.c`)."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_shim.c")


class Clocks:
    """Made once for a run. Without a C compiler, or elsewhere than on Linux, no clock is ever set: `can` tells."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = _built(folder)

    @property
    def can(self) -> bool:
        return self._library is not None

    def environment(self, who: str) -> dict[str, str]:
        """What a process needs so that its clock can be set; it begins as it stands for `who`."""
        if self._library is None:
            return {}
        file = self._file(who)
        if not file.exists():
            self.set(who, 0)
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(file)}

    def set(self, who: str, shift_ms: int) -> None:
        """From now on the clock is off by so much."""
        with self._file(who).open("r+b" if self._file(who).exists() else "w+b") as file:
            file.write(struct.pack("q", shift_ms * 1_000_000))

    def _file(self, who: str) -> Path:
        return self._folder / f"clock-{who}"


def _built(folder: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = folder / "clock_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, check=False)
    return library if done.returncode == 0 else None
