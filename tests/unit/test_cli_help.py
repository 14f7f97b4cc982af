"""The command line's own manners: help, versions, mistakes in its use."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cancelq_worker import cli

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "Try it": ["demo", "simulate"],
    "Run": ["worker"],
    "Ask": ["submit", "feed", "results", "trace"],
    "Operate": ["status", "top", "doctor", "pause", "resume", "guard"],
    "Keep records": ["archive", "audit"],
}
# Of pydantic, typer itself makes use as soon as a command has options to read.
SLOW = ("redis", "httpx", "structlog", "rq", "starlette", "cancelq")


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(args, {})
    out, err = capsys.readouterr()
    return code, out, err


def test_help_groups_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    words = [word for panel, commands in COMMANDS.items() for word in (f"─ {panel} ", *(f"│ {c} " for c in commands))]
    positions = [out.index(word) for word in words]
    assert positions == sorted(positions)


@pytest.mark.parametrize("command", [command for commands in COMMANDS.values() for command in commands])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "-h")
    assert code == 0
    assert f"Usage: cancelq {command}" in out


@pytest.mark.parametrize("args", [["--help"], ["submit", "--help"], ["--version"]])
def test_help_loads_nothing_that_is_slow(args: list[str]) -> None:
    """What is not imported costs no time, on any machine."""
    program = (
        "import sys\nfrom cancelq_worker import cli\n"
        f"assert cli.run({args!r}, {{}}) == 0\n"
        f"assert not [name for name in {SLOW!r} if name in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=30, cwd=ROOT)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(capsys, "--version") == (0, f"cancelq {version}\n", "")


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert code == 2
    assert "Usage: cancelq" in out
    assert err == ""


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["sumbit"], "error: No such command 'sumbit'. Did you mean 'submit'?"),
        (["submit"], "error: Missing argument"),
        (["submit", "bitget:main", "--symbl", "x"], "error: No such option: --symbl"),
        (["simulate", "--port", "0"], "error: Invalid value for '--port'"),
        (["feed", "x", "--format", "xml"], "error: Invalid value for '--format'"),
        (["results", "--limit", "0"], "error: Invalid value for '--limit'"),
        (["submit", "bitget", "--symbol", "x"], "error: 'bitget' is no lane; write venue:account"),
        (["submit", "bitgett:main"], "error: unknown venue 'bitgett', did you mean \"bitget\"?"),
        (["feed", "x", "--lane", "main"], "error: 'main' is no lane"),
        (["pause", "nowhere"], "error: 'nowhere' is no lane"),
        (["results", "bitget:main", "--from", "x"], "error: --from wants an entry id"),
    ],
)
def test_a_mistake_in_the_use_exits_2_with_a_remedy(
    capsys: pytest.CaptureFixture[str], args: list[str], told: str
) -> None:
    code, out, err = run(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith(told)
    assert "\nremedy: " in err


def test_settings_are_told_with_code_78(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "cancelq.toml"
    config.write_text("redis_ulr = 1\nlease_ms = 1\n")
    code, out, err = run(capsys, "--config", str(config), "status")
    assert (code, out) == (78, "")
    assert f'error: {config}:1 unknown setting "redis_ulr", did you mean "redis_url"?\n' in err
    assert f"error: {config}:2 lease_ms must be at least 3000, it is 1\n" in err
    assert err.splitlines()[-1].startswith("remedy: ")


def test_a_worker_without_keys_is_told_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "worker")
    assert code == 78
    assert "error: no account is configured" in err


@pytest.mark.parametrize(
    "args",
    [["submit", "bitget:main", "--symbol", "A", "--order-id", "1"], ["results", "bitget:main"], ["status"]],
)
def test_a_server_that_is_not_there_exits_69(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    # Port 1 is reserved and never served here.
    code = cli.run(args, {"CANCELQ_REDIS_URL": "redis://user:canary@127.0.0.1:1/0"})
    out, err = capsys.readouterr()
    assert (code, out) == (69, "")
    assert err.startswith("error: ")
    assert "remedy: check that the server runs" in err
    assert "canary" not in err


@pytest.mark.parametrize(
    "args", [["results", "bitget:main"], ["status"], ["pause", "bitget:main"], ["kill", "bitget:main", "--yes"]]
)
@pytest.mark.parametrize(
    "url", ["redis+sentinel://user:canary@127.0.0.1:1/desk", "redis+cluster://user:canary@127.0.0.1:1"]
)
def test_servers_that_nobody_can_find_exit_69(capsys: pytest.CaptureFixture[str], args: list[str], url: str) -> None:
    code = cli.run(args, {"CANCELQ_REDIS_URL": url})
    told = capsys.readouterr().err
    assert code == 69, told
    assert "nobody can say where to find" in told
    assert "127.0.0.1:1" in told
    assert "canary" not in told


def test_a_worker_on_a_cluster_wants_a_server_for_rq(capsys: pytest.CaptureFixture[str]) -> None:
    main = "CANCELQ_ACCOUNTS__BITGET__MAIN__"
    env = {f"{main}API_KEY": "k", f"{main}API_SECRET": "s", f"{main}PASSPHRASE": "p"}
    code = cli.run(["worker"], {**env, "CANCELQ_REDIS_URL": "redis+cluster://127.0.0.1:1"})
    assert code == 78
    assert "rq_redis_url is missing" in capsys.readouterr().err


def test_a_traceback_is_shown_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    env = {"CANCELQ_REDIS_URL": "redis://127.0.0.1:1/0"}
    cli.run(["status"], env)
    assert "Traceback" not in capsys.readouterr().err
    cli.run(["--traceback", "status"], env)
    assert "Traceback" in capsys.readouterr().err
