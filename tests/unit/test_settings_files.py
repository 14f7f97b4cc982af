"""Files with secrets: who may read them, what may be in them, and that every refusal names file, mode and remedy."""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cancelq.contract import Lane
from cancelq_worker.settings import Settings, SettingsError
from cancelq_worker.settings_files import CONFIG_MOST, SECRET_MOST, UnusableFile, refuse_exposed

FIELDS = {"api_key": "canary-key", "api_secret": "canary-secret", "passphrase": "canary-pass"}
BITGET = Lane("bitget", "main")
PROGRAM = "import sys; from cancelq_worker.cli import main; sys.argv[0] = 'cancelq'; main()"


def file_of(folder: Path, field: str = "api_key") -> Path:
    return folder / f"cancelq_accounts__bitget__main__{field}"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder as it should be."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for field, value in FIELDS.items():
        file_of(folder, field).touch(mode=0o600)
        file_of(folder, field).write_text(value)
    return folder


def load(secrets: Path) -> Settings:
    return Settings.load(None, {"CANCELQ_SECRETS_DIR": str(secrets)})


def problems_of(secrets: Path, config: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(config, {"CANCELQ_SECRETS_DIR": str(secrets)})
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    return list(caught.value.problems)


def key(settings: Settings) -> str:
    return settings.account(BITGET).api_key.get_secret_value()


class TestModes:
    @pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
    def test_a_file_closed_to_others_is_read(self, secrets: Path, mode: int) -> None:
        file_of(secrets).chmod(mode)
        assert key(load(secrets)) == "canary-key"

    @pytest.mark.parametrize(
        ("mode", "who"),
        [
            (0o644, "everybody may read it"),
            (0o604, "everybody may read it"),
            (0o640, "its group may read it"),
            (0o620, "its group may change or run it"),
            (0o602, "everybody may change or run it"),
            (0o777, "everybody may read it"),
        ],
    )
    def test_a_file_open_to_others_is_refused_with_its_mode_and_the_remedy(
        self, secrets: Path, mode: int, who: str
    ) -> None:
        file = file_of(secrets)
        file.chmod(mode)
        assert problems_of(secrets) == [f"{file} holds a secret and {who} (mode {mode:04o}); chmod 600 {file}"]

    def test_every_open_file_is_told_at_once(self, secrets: Path) -> None:
        for field in FIELDS:
            file_of(secrets, field).chmod(0o644)
        assert len(problems_of(secrets)) == 3

    def test_one_that_was_opened_to_others_since_is_not_read_again(self, secrets: Path) -> None:
        """What HUP asks for; a worker then goes on with what it has."""
        settings = load(secrets)
        file_of(secrets).chmod(0o604)
        with pytest.raises(SettingsError, match="everybody may read it"):
            settings.again()

    def test_the_remedy_mends_it(self, secrets: Path) -> None:
        file_of(secrets).chmod(0o644)
        (told,) = problems_of(secrets)
        subprocess.run(shlex.split(told.rpartition("; ")[2]), check=True)
        assert key(load(secrets)) == "canary-key"

    def test_what_a_link_leads_to_is_judged_not_the_link(self, secrets: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.touch(mode=0o644)
        elsewhere.write_text("canary-linked")
        elsewhere.chmod(0o644)
        file_of(secrets).unlink()
        file_of(secrets).symlink_to(elsewhere)
        assert "everybody may read it (mode 0644)" in problems_of(secrets)[0]
        elsewhere.chmod(0o600)
        assert key(load(secrets)) == "canary-linked"

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
    def test_a_folder_that_others_may_change_is_refused(self, secrets: Path, mode: int) -> None:
        secrets.chmod(mode)
        (told,) = problems_of(secrets)
        assert told.endswith(f"may change it (mode {mode:04o}); chmod 700 {secrets}")

    @pytest.mark.parametrize("mode", [0o755, 0o1777])
    def test_a_folder_that_others_may_list_and_one_that_is_sticky_are_fine(self, secrets: Path, mode: int) -> None:
        secrets.chmod(mode)
        assert key(load(secrets)) == "canary-key"

    @pytest.mark.parametrize(
        ("of_others", "mode", "fine"),
        [(True, 0o440, True), (True, 0o400, True), (True, 0o444, False), (True, 0o460, False), (False, 0o440, False)],
    )
    def test_a_group_may_read_what_is_not_ours(self, secrets: Path, of_others: bool, mode: int, fine: bool) -> None:
        """As in a pod with `fsGroup`: the files are root's, and the process, no root, reads them by its group."""
        file = file_of(secrets)
        file.chmod(mode)
        reader = file.stat().st_uid + (10_001 if of_others else 0)
        if fine:
            refuse_exposed(file.stat(), file, reader=reader)
        else:
            with pytest.raises(UnusableFile):
                refuse_exposed(file.stat(), file, reader=reader)

    def test_root_needs_no_group_to_read_by(self, secrets: Path) -> None:
        file_of(secrets).chmod(0o440)
        with pytest.raises(UnusableFile, match="its group may read it"):
            refuse_exposed(file_of(secrets).stat(), file_of(secrets), reader=0)


class TestContents:
    @pytest.mark.parametrize("written", ["canary-key\n", "canary-key\r\n", "  canary-key\t\n\n", "canary-key"])
    def test_blanks_and_line_ends_around_a_secret_are_taken_off(self, secrets: Path, written: str) -> None:
        file_of(secrets).write_bytes(written.encode())
        assert key(load(secrets)) == "canary-key"

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            (b"", "is empty; put the secret into it, or remove it"),
            (b"\r\n", "is empty; put the secret into it, or remove it"),
            (b"canary\xff\xfe", "cannot be read: it is not UTF-8 text"),
            (b"c" * (SECRET_MOST + 1), f"is larger than {SECRET_MOST} bytes; it must hold settings alone"),
            (b"\xef\xbb\xbfcanary", " holds a space or a character outside ASCII; paste it again"),
            (b"canary\ncanary", " holds a space or a character outside ASCII; paste it again"),
        ],
    )
    def test_what_is_no_secret_is_told_without_it(self, secrets: Path, written: bytes, told: str) -> None:
        file_of(secrets).write_bytes(written)
        (problem,) = problems_of(secrets)
        assert problem.startswith(str(file_of(secrets)))
        assert problem.endswith(told)

    @pytest.mark.parametrize("made", ["folder", "pipe", "dangling"])
    def test_what_is_no_file_is_told_and_nothing_waits(self, secrets: Path, made: str) -> None:
        file = file_of(secrets)
        file.unlink()
        match made:
            case "folder":
                file.mkdir(mode=0o700)
            case "pipe":
                os.mkfifo(file, 0o600)
            case _:
                file.symlink_to(secrets / "nowhere")
        (problem,) = problems_of(secrets)
        assert problem.startswith(f"{file} ")


class TestSettingsFile:
    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ('accounts.bitget.main.api_secret = "canary"', "accounts.bitget.main.api_secret"),
            ('redis_url = "redis://user:canary@127.0.0.1/0"', "redis_url"),
            ('rq_redis_url = "redis://127.0.0.1/0?password=canary"', "rq_redis_url"),
        ],
    )
    def test_one_with_a_secret_is_judged_like_a_secret_file(self, tmp_path: Path, text: str, named: str) -> None:
        config = tmp_path / "cancelq.toml"
        config.touch(mode=0o600)
        config.write_text(text)
        Settings.load(config, {}, need_keys=False)
        config.chmod(0o644)
        with pytest.raises(SettingsError) as caught:
            Settings.load(config, {}, need_keys=False)
        told = f"{config} holds {named} and everybody may read it (mode 0644); chmod 600 {config}"
        assert caught.value.problems == (told,)

    @pytest.mark.parametrize("text", ['redis_url = "redis://reader@127.0.0.1/0"', "[accounts.bitget.main]\n"])
    def test_one_without_may_be_read_by_all(self, tmp_path: Path, text: str) -> None:
        config = tmp_path / "cancelq.toml"
        config.write_text(text)
        config.chmod(0o644)
        Settings.load(config, {}, need_keys=False)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("#" * (CONFIG_MOST + 1), f"is larger than {CONFIG_MOST} bytes"),
            ("a = " + "[" * 20_000, "nested too deep"),
            ("a = " + "{b=" * 20_000, "nested too deep"),
        ],
    )
    def test_one_that_is_a_bomb_is_told(self, tmp_path: Path, text: str, told: str) -> None:
        config = tmp_path / "cancelq.toml"
        config.write_text(text)
        with pytest.raises(SettingsError, match=told):
            Settings.load(config, {})

    def test_a_bomb_in_the_environment_is_told(self) -> None:
        with pytest.raises(SettingsError, match="a value in the environment cannot be read"):
            Settings.load(None, {"CANCELQ_ACCOUNTS": "[" * 200_000})

    def test_one_from_a_pipe_is_read(self, tmp_path: Path) -> None:
        """`--config <(…)`: keys made on the fly lie nowhere."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe, 0o600)
        text = "\n".join(["[accounts.bitget.main]", *(f'{name} = "{value}"' for name, value in FIELDS.items())])
        writer = threading.Thread(target=pipe.write_text, args=(text,))
        writer.start()
        assert key(Settings.load(pipe, {})) == "canary-key"
        writer.join()


def mounted(folder: Path, name: str, values: dict[str, str]) -> None:
    """Files as Kubernetes puts them: in a folder of their own, which the link `..data` is turned to at once."""
    (folder / name).mkdir(mode=0o755)
    for field, value in values.items():
        file = file_of(folder / name, field)
        file.touch(mode=0o400)
        file.chmod(0o600)
        file.write_text(value)
        if not file_of(folder, field).is_symlink():
            file_of(folder, field).symlink_to(Path("..data") / file.name)
    (folder / "..turned").symlink_to(name)
    (folder / "..turned").rename(folder / "..data")


class TestKubernetes:
    @pytest.fixture
    def volume(self, tmp_path: Path) -> Path:
        folder = tmp_path / "volume"
        folder.mkdir()
        folder.chmod(0o1777)
        mounted(folder, "..2026_01_01", FIELDS)
        return folder

    def test_a_mounted_volume_is_read(self, volume: Path) -> None:
        assert key(load(volume)) == "canary-key"

    def test_again_reads_what_was_mounted_since(self, volume: Path) -> None:
        settings = load(volume)
        mounted(volume, "..2026_01_02", {field: f"{value}-2" for field, value in FIELDS.items()})
        assert key(settings.again()) == "canary-key-2"

    def test_an_open_default_mode_is_told_under_the_name_that_the_desk_knows(self, volume: Path) -> None:
        file_of(volume / "..2026_01_01").chmod(0o644)
        (told,) = problems_of(volume)
        assert told.startswith(f"{file_of(volume)} holds a secret and everybody may read it (mode 0644)")

    def test_no_key_of_before_is_paired_with_a_secret_of_after(self, volume: Path) -> None:
        """The link is turned back and forth while the settings are read again and again."""
        mounted(volume, "..2026_01_02", {field: f"{value}-2" for field, value in FIELDS.items()})
        ended = threading.Event()

        def turn() -> None:
            for name in _for_ever("..2026_01_01", "..2026_01_02"):
                if ended.is_set():
                    return
                (volume / "..turned").symlink_to(name)
                (volume / "..turned").rename(volume / "..data")

        turner = threading.Thread(target=turn)
        turner.start()
        try:
            pairs = set()
            for _ in range(100):
                account = load(volume).account(BITGET)
                pairs.add((account.api_key.get_secret_value(), account.api_secret.get_secret_value()))
        finally:
            ended.set()
            turner.join()
        assert pairs <= {("canary-key", "canary-secret"), ("canary-key-2", "canary-secret-2")}


def _for_ever(*names: str) -> Iterator[str]:
    while True:
        yield from names


def test_a_command_that_finds_an_open_file_exits_78_with_the_remedy(secrets: Path) -> None:
    file_of(secrets).chmod(0o644)
    env = {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "worker"],
        env={**env, "CANCELQ_SECRETS_DIR": str(secrets)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78
    assert f"{file_of(secrets)} holds a secret and everybody may read it (mode 0644)" in done.stderr
    assert f"chmod 600 {file_of(secrets)}" in done.stderr
    assert "canary" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
