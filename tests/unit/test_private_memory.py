"""A process that holds keys leaves no core file, and its user's other processes cannot read what it holds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# All is imported before the user changes, who may not be able to read it.
READY = (
    "import ctypes, os, signal; from cancelq_worker.private_memory import keep_memory_private; "
    "signal.signal(signal.SIGQUIT, signal.SIG_DFL); {}; print('ready', flush=True); signal.pause()"
)
KEEP = "keep_memory_private()"
NOBODY = 65_534
# The kernel closes a process that changes its user; this one is as open as one that began as that user.
AS_NOBODY = f"os.setuid({NOBODY}); ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)"
LOOK = f"import os, sys; os.setuid({NOBODY}); print(open(f'/proc/{{sys.argv[1]}}/environ').read())"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def started(program: str, folder: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "CANARY": "canary"}
    command = [sys.executable, "-c", READY.format(program)]
    process = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_quit_ends_it_without_a_core_file(tmp_path: Path) -> None:
    with started(KEEP, tmp_path) as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4] == "0"
        process.send_signal(signal.SIGQUIT)
        status = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert status is not None
        assert status.si_code == os.CLD_KILLED, "killed, not dumped"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("program", "kept"), [(f"{AS_NOBODY}; {KEEP}", True), (AS_NOBODY, False)])
def test_its_user_s_other_processes_cannot_read_its_environment(tmp_path: Path, program: str, kept: bool) -> None:
    """The second one shows that they could."""
    with started(program, tmp_path) as process:
        look = [sys.executable, "-c", LOOK, str(process.pid)]
        seen = subprocess.run(look, capture_output=True, timeout=30)
        process.kill()
    assert (b"CANARY=canary" in seen.stdout) is not kept
    assert (b"PermissionError" in seen.stderr) is kept
