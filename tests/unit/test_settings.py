"""Settings: where they come from, which wins, and that every mistake is told with its place and no secret."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from cancelq.contract import Lane
from cancelq_worker.settings import Account, Settings, SettingsError, listen_place, without_credentials
from cancelq_worker.settings_jobs import Periodic, Reconcile, Sweep
from cancelq_worker.venues.port import Request, Stage
from cancelq_worker.venues.registry import KINDS, open_venue

MAIN = "CANCELQ_ACCOUNTS__BITGET__MAIN__"
KEYS = {
    f"{MAIN}API_KEY": "canary-key",
    f"{MAIN}API_SECRET": "canary-secret",
    f"{MAIN}PASSPHRASE": "canary-pass",
}
BITGET = Lane("bitget", "main")


def load(env: Mapping[str, str] = KEYS, config: Path | None = None, *, need_keys: bool = True) -> Settings:
    return Settings.load(config, env, need_keys=need_keys)


def problems_of(env: Mapping[str, str], config: Path | None = None, *, need_keys: bool = True) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(env, config, need_keys=need_keys)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    return list(caught.value.problems)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """It may hold keys, so it is closed to others."""
    file = tmp_path / "cancelq.toml"
    file.touch(mode=0o600)
    return file


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    return folder


def put(file: Path, text: str | bytes, mode: int = 0o600) -> Path:
    """Writes a file that only its owner may read."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)
    return file


class TestSources:
    def test_keys_in_the_environment_are_enough(self) -> None:
        settings = load()
        assert settings.lanes == (BITGET,)
        account = settings.account(BITGET)
        assert account.api_key.get_secret_value() == "canary-key"
        assert account.base_url == "https://api.bitget.com"
        assert account.ws_url == "wss://ws.bitget.com/v2/ws/private"
        assert settings.lease_ms == 5000

    def test_the_file_is_found_by_argument_or_variable_and_the_argument_wins(self, tmp_path: Path) -> None:
        one, other = tmp_path / "one.toml", tmp_path / "other.toml"
        one.write_text("dedup_hours = 1\n")
        other.write_text("dedup_hours = 2\n")
        assert load({**KEYS, "CANCELQ_CONFIG": str(one)}).dedup_hours == 1
        assert load({**KEYS, "CANCELQ_CONFIG": str(one)}, other).dedup_hours == 2

    def test_environment_over_secret_files_over_the_toml_file(self, toml: Path, secrets: Path) -> None:
        toml.write_text(
            f"secrets_dir = '{secrets}'\nmax_attempts = 1\n"
            "[accounts.bitget.main]\napi_key = 'a'\napi_secret = 'b'\npassphrase = 'c'\nlimits = { cancel-order = 3 }\n"
        )
        put(secrets / "cancelq_accounts__bitget__main__api_secret", "from-file\n")
        put(secrets / "cancelq_accounts__bitget__main__passphrase", "from-file\n")
        account = load({f"{MAIN}PASSPHRASE": "from-env"}, toml).account(BITGET)
        assert account.api_key.get_secret_value() == "a"
        assert account.api_secret.get_secret_value() == "from-file"
        assert account.passphrase == SecretStr("from-env")
        assert account.limits == {"cancel-order": 3}

    def test_the_secrets_directory_may_be_named_in_the_environment(self, secrets: Path) -> None:
        for name, value in KEYS.items():
            put(secrets / name.lower(), value)
        settings = load({"CANCELQ_SECRETS_DIR": str(secrets)})
        assert settings.account(BITGET).api_key.get_secret_value() == "canary-key"

    def test_values_that_look_like_numbers_or_json_stay_text_where_text_is_meant(self) -> None:
        env = {
            f"{MAIN}API_KEY": "12345678901234567890",
            f"{MAIN}API_SECRET": "true",
            f"{MAIN}PASSPHRASE": "1e5",
        }
        account = load(env).account(BITGET)
        secrets = (account.api_key, account.api_secret, account.passphrase or SecretStr(""))
        assert [secret.get_secret_value() for secret in secrets] == ["12345678901234567890", "true", "1e5"]

    def test_tables_may_be_json_and_leaves_may_override_them(self) -> None:
        env = {**KEYS, f"{MAIN}LIMITS": '{"cancel_order": 5, "orderInfo": 7}', f"{MAIN}LIMITS__CANCEL_ORDER": "6"}
        assert load(env).account(BITGET).limits == {"cancel-order": 6, "orderInfo": 7}

    def test_a_limit_is_named_in_the_environment_without_hyphens_and_small_letters(self) -> None:
        env = {**KEYS, f"{MAIN}LIMITS__CANCEL_ORDER": "20", f"{MAIN}LIMITS__ORDERINFO": "40"}
        assert load(env).account(BITGET).limits == {"cancel-order": 20, "orderInfo": 40}

    def test_an_empty_variable_is_one_that_was_not_set(self) -> None:
        settings = load({**KEYS, "CANCELQ_RQ_REDIS_URL": "", "CANCELQ_LEASE_MS": ""})
        assert (settings.rq_redis_url, settings.lease_ms) == (None, 5000)

    def test_building_settings_reads_nothing_from_outside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CANCELQ_LEASE_MS", "9000")
        assert Settings().lease_ms == 5000

    def test_again_reads_the_file_anew_but_keeps_the_environment(self, toml: Path) -> None:
        toml.write_text("max_attempts = 1\ndedup_hours = 1\n")
        first = load({**KEYS, "CANCELQ_DEDUP_HOURS": "9"}, toml)
        toml.write_text("max_attempts = 2\ndedup_hours = 2\n")
        second = first.again()
        assert (first.max_attempts, second.max_attempts, second.dedup_hours) == (1, 2, 9)
        narrowed = first.only([BITGET]).again()
        assert (narrowed.max_attempts, narrowed.lanes) == (2, (BITGET,))

    def test_a_clusters_link_variables_are_nobodys_mistake(self) -> None:
        links = {
            "CANCELQ_REDIS_SERVICE_HOST": "10.0.0.1",
            "CANCELQ_REDIS_SERVICE_PORT": "6379",
            "CANCELQ_REDIS_PORT": "tcp://10.0.0.1:6379",
            "CANCELQ_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
            "CANCELQ_SERVICE_PORT_HTTP": "9464",
        }
        assert load({**KEYS, **links}).lanes == (BITGET,)
        assert problems_of({**KEYS, "CANCELQ_REDIS_PORT": "6380"})[0].startswith("CANCELQ_REDIS_PORT is no setting")


class TestMistakes:
    def test_a_misspelt_setting_in_the_file_is_told_with_its_line(self, toml: Path) -> None:
        toml.write_text(
            '# comment\nresults_keep_day = 3\n\n[accounts.bitget.main]\nbase_ulr = "https://x"\n'
            "[accounts.bitgit.main]\n[accounts.bitget.Main]\n[acounts.bybit.x]\n"
        )
        assert set(problems_of(KEYS, toml)) == {
            f'{toml}:2 unknown setting "results_keep_day", did you mean "results_keep_days"?',
            f'{toml}:5 unknown setting "base_ulr", did you mean "base_url"?',
            f'{toml}:6 accounts.bitgit unknown venue "bitgit", did you mean "bitget"?',
            f'{toml}:7 accounts.bitget.Main "Main" cannot name an account; '
            "use a lower-case letter, then up to 31 of a-z, 0-9 and single _",
            f'{toml}:8 unknown setting "acounts", did you mean "accounts"?',
        }

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("CANCELQ_REDIS_ULR", "CANCELQ_REDIS_ULR is no setting, did you mean CANCELQ_REDIS_URL?"),
            ("CANCELQ_LEASE_MS__X", "CANCELQ_LEASE_MS__X is no setting, did you mean CANCELQ_LEASE_MS?"),
            ("CANCELQ_CONFIGS", "CANCELQ_CONFIGS is no setting, did you mean CANCELQ_CONFIG?"),
            (
                "CANCELQ_ACOUNTS__BITGET__MAIN__API_KEY",
                "CANCELQ_ACOUNTS__BITGET__MAIN__API_KEY is no setting, "
                "did you mean CANCELQ_ACCOUNTS__BITGET__MAIN__API_KEY?",
            ),
            (f"{MAIN}API_KYE", f'{MAIN}API_KYE unknown setting "api_kye", did you mean "api_key"?'),
            (
                "CANCELQ_ACCOUNTS__BITGET__API_KEY",
                "CANCELQ_ACCOUNTS__BITGET__API_KEY stands where an account's name belongs; "
                "write accounts.bitget.NAME.api_key",
            ),
            (
                "CANCELQ_ACCOUNTS__BITGET__BAD__NAME__API_KEY",
                'CANCELQ_ACCOUNTS__BITGET__BAD__NAME__API_KEY unknown setting "name"; settings here are '
                f'{", ".join(Account.model_fields)}; an account\'s name holds no "__" and no dot',
            ),
            (
                "CANCELQ_ACCOUNTS__BITGIT__MAIN__API_KEY",
                "CANCELQ_ACCOUNTS__BITGIT__MAIN__API_KEY accounts.bitgit "
                'unknown venue "bitgit", did you mean "bitget"?',
            ),
            (
                f"{MAIN}DEMO__X",
                f"{MAIN}DEMO__X accounts.bitget.main.demo must be true or false",
            ),
            (
                "CANCELQ_JOBS__SWEP__BITGET__MAIN__EVERY",
                'CANCELQ_JOBS__SWEP__BITGET__MAIN__EVERY unknown setting "swep", did you mean "sweep"?',
            ),
            (
                "CANCELQ_RQ_LANES",
                'CANCELQ_RQ_LANES must be a list of lanes, such as ["bitget:main", "bybit:desk"]',
            ),
            ("CANCELQ_LEASE_MS", "CANCELQ_LEASE_MS must be a whole number in plain digits"),
            (
                "CANCELQ_ACCOUNTS",
                '"accounts" in the environment cannot be read; write single values, or JSON for a table',
            ),
        ],
    )
    def test_a_mistake_in_the_environment_is_told_with_the_variable(self, name: str, told: str) -> None:
        assert problems_of({**KEYS, name: "canary"}) == [told]

    def test_what_is_missing_is_told_with_the_variable_beside_it(self) -> None:
        (told,) = problems_of({**KEYS, "CANCELQ_JOBS__SWEEP__BITGET__MAIN__EVERY": "5m"})
        assert told == (
            "CANCELQ_JOBS__SWEEP__BITGET__MAIN__EVERY jobs.sweep.bitget.main.older_than is missing; "
            'it must be a span like "90s", "5m", "2h" or "1d"'
        )

    def test_only_a_span_can_be_missing(self) -> None:
        """The remedy says so of each."""
        kinds = (Sweep, Reconcile, Periodic)
        needed = {name for kind in kinds for name, field in kind.model_fields.items() if field.is_required()}
        assert needed == {"every", "older_than"}
        assert not any(field.is_required() for kind in (Settings, Account) for field in kind.model_fields.values())

    def test_a_secret_file_that_names_too_much_is_told(self, secrets: Path) -> None:
        put(secrets / "cancelq_accounts__bitget__bad__name__api_key", "canary")
        (told,) = problems_of({**KEYS, "CANCELQ_SECRETS_DIR": str(secrets)})
        assert told.startswith(f'{secrets}/cancelq_accounts__bitget__bad__name__api_key unknown setting "name"')

    def test_a_secret_file_named_after_nothing_is_told(self, secrets: Path) -> None:
        put(secrets / "cancelq_acounts__bitget__main__api_key", "canary")
        (told,) = problems_of({**KEYS, "CANCELQ_SECRETS_DIR": str(secrets)})
        assert told.startswith(f"{secrets}/cancelq_acounts__bitget__main__api_key is named after no setting, did")

    def test_a_name_far_from_all_others_is_answered_with_the_list(self) -> None:
        (told,) = problems_of({**KEYS, "CANCELQ_ZZZZ": "1"})
        assert "settings are CANCELQ_REDIS_URL, " in told

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("lease_ms = 2999", "lease_ms must be at least 3000, it is 2999"),
            ("lease_ms = 60001", "lease_ms must be at most 60000, it is 60001"),
            ('http = "9464"', "http must be HOST:PORT, such as 127.0.0.1:9464; port 0 takes any free one"),
            ('http = "127.0.0.1:65536"', "http must be HOST:PORT"),
            ('http = "::1:9464"', "http must be HOST:PORT"),
            ("lease_ms = nan", "lease_ms must be a whole number in plain digits"),
            ("urgent_reserve = true", "urgent_reserve must be a whole number in plain digits"),
            ("rq_lanes = 'bitget:main'", 'rq_lanes must be a list of lanes, such as ["bitget:main", "bybit:desk"]'),
            ("rq_lanes = ['bitget']", "rq_lanes.0 'bitget' is no lane; write venue:account, like bitget:main"),
            (
                "jobs.reconcile.bitget.main.within = '1h'",
                'jobs.reconcile.bitget.main.every is missing; it must be a span like "90s"',
            ),
            (
                "accounts.bitget.main.limits = 3",
                "accounts.bitget.main.limits must be a table, such as { bitget-ip = 6000 }",
            ),
            (
                "accounts.bitget.main.base_url = 'https://'",
                "accounts.bitget.main.base_url must be a URL with a host, beginning with https:// or http://",
            ),
            ("lease_ms = '7x'", "lease_ms must be a whole number in plain digits"),
            ("redis_url = 6379", 'redis_url must be text in "quotes"'),
            (
                "redis_url = 'http://canary@host'",
                "redis_url must be a URL that begins with redis://, rediss://, ",
            ),
            ("egress = 'two words'", "egress may hold 1 to 64 letters, digits, dots, - and _ only"),
            ("accounts = 3", "accounts must be a table, such as [accounts.bitget.main]"),
            ("accounts.bybit = 3", "accounts.bybit must be a table, such as [accounts.bitget.main]"),
            ("accounts.bitget.main.demo = 'perhaps'", "accounts.bitget.main.demo must be true or false"),
            ("accounts.bitget.main.api_key = 'canary canary'", "accounts.bitget.main.api_key holds a space"),
            (
                "accounts.bitget.main.base_url = 'api.bitget.com'",
                "accounts.bitget.main.base_url must be a URL",
            ),
            (
                "accounts.bitget.main.limits = { cancel-order = 0 }",
                "accounts.bitget.main.limits.cancel-order must be at least 1",
            ),
        ],
    )
    def test_a_bad_value_in_the_file_is_told_in_words(self, toml: Path, line: str, told: str) -> None:
        toml.write_text(f"\n{line}\n")
        (problem,) = problems_of({}, toml, need_keys=False)
        assert problem.startswith(f"{toml}:2 {told}")

    @pytest.mark.parametrize(
        ("accounts", "told"),
        [
            (
                "{ main.limits = { batch-cancel = 9 } }",
                'accounts.bitget.main.limits: unknown limit "batch-cancel", did you mean "batch-cancel-order"?',
            ),
            (
                "{ main.limits = { batch-cancel-order = true } }",
                "accounts.bitget.main.limits.batch-cancel-order must be a whole number in plain digits",
            ),
            (
                "{ main.limits = { bitget-ip = 9 }, second.limits = { bitget-ip = 8 } }",
                'bitget:main and bitget:second give "bitget-ip" different sizes (9 and 8)',
            ),
        ],
    )
    def test_limits_that_cannot_be(self, toml: Path, accounts: str, told: str) -> None:
        toml.write_text(f"accounts.bitget = {accounts}\n")
        (problem,) = problems_of({}, toml, need_keys=False)
        assert told in problem

    def test_every_mistake_is_told_at_once(self, toml: Path) -> None:
        toml.write_text("lease_ms = 1\n")
        assert len(problems_of({**KEYS, "CANCELQ_DEDUP_HOURS": "0", "CANCELQ_X": "1"}, toml)) == 3

    def test_broken_toml_is_told_with_its_line(self, toml: Path) -> None:
        toml.write_text("a = 1\nredis_url = redis://canary@host\n")
        assert problems_of(KEYS, toml) == [f'{toml}:2 is not valid TOML: Invalid value; text values need "quotes"']

    @pytest.mark.parametrize("by_variable", [True, False])
    def test_a_file_that_is_not_there_is_told_with_who_named_it(self, tmp_path: Path, by_variable: bool) -> None:
        missing = tmp_path / "missing.toml"
        env = {**KEYS, "CANCELQ_CONFIG": str(missing)} if by_variable else KEYS
        source = "CANCELQ_CONFIG" if by_variable else "--config"
        told = problems_of(env, None if by_variable else missing)
        assert told == [f"{missing} (from {source}) cannot be read: No such file or directory"]

    def test_a_secrets_directory_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        (told,) = problems_of({**KEYS, "CANCELQ_SECRETS_DIR": str(tmp_path / "nowhere")})
        assert told.startswith(f"{tmp_path}/nowhere")

    def test_a_secret_that_is_no_text_is_told_without_it(self, secrets: Path) -> None:
        file = put(secrets / "cancelq_accounts__bitget__main__api_key", b"canary\xff")
        told = problems_of({**KEYS, "CANCELQ_SECRETS_DIR": str(secrets)})
        assert told == [f"{file} cannot be read: it is not UTF-8 text"]

    def test_what_is_in_the_secrets_directory_of_others_is_not_read(self, secrets: Path) -> None:
        (secrets / "somebody_elses").write_bytes(b"\xff")
        (secrets / "cancelq_accounts__bitget__main__api_key").symlink_to(secrets.parent / "linked")
        put(secrets.parent / "linked", "from-a-link")
        given = {name: value for name, value in KEYS.items() if not name.endswith("API_KEY")}
        settings = load({**given, "CANCELQ_SECRETS_DIR": str(secrets)})
        assert settings.account(BITGET).api_key.get_secret_value() == "from-a-link"


class TestAccounts:
    def test_missing_credentials_name_the_variable_to_set(self) -> None:
        told = problems_of({f"{MAIN}BASE_URL": "https://api.bitget.com", "CANCELQ_ACCOUNTS__BYBIT__A__API_KEY": "k"})
        assert [line.split(", ")[0] for line in told] == [
            f"bitget:main has no api_key; set {MAIN}API_KEY",
            f"bitget:main has no api_secret; set {MAIN}API_SECRET",
            f"bitget:main has no passphrase; set {MAIN}PASSPHRASE",
            "bybit:a has no api_secret; set CANCELQ_ACCOUNTS__BYBIT__A__API_SECRET",
        ]
        assert "cancelq_accounts__bitget__main__api_key in secrets_dir" in told[0]

    def test_no_account_at_all_is_told_only_where_one_is_needed(self) -> None:
        assert load({}, need_keys=False).lanes == ()
        assert problems_of({})[0].startswith("no account is configured; add [accounts.bitget.main]")

    def test_lanes_without_keys_are_known_where_none_are_needed(self) -> None:
        assert load({f"{MAIN}DEMO": "true"}, need_keys=False).lanes == (BITGET,)

    def test_one_key_for_two_lanes_is_refused(self) -> None:
        other = {
            "CANCELQ_ACCOUNTS__BITGET__B__API_KEY": "canary-key",
            "CANCELQ_ACCOUNTS__BITGET__B__API_SECRET": "x",
        }
        (told,) = problems_of({**KEYS, **other, "CANCELQ_ACCOUNTS__BITGET__B__PASSPHRASE": "x"})
        assert told == "bitget:main and bitget:b have the same api_key; each lane needs a key of its own"

    def test_one_key_may_serve_at_two_venues_as_at_the_simulated_ones(self) -> None:
        """No two venues count together what one key calls."""
        bybit = {"CANCELQ_ACCOUNTS__BYBIT__A__API_KEY": "canary-key", "CANCELQ_ACCOUNTS__BYBIT__A__API_SECRET": "x"}
        assert {lane.venue for lane in load({**KEYS, **bybit}).lanes} == {"bitget", "bybit"}

    def test_pasted_blanks_around_a_key_are_taken_off(self) -> None:
        account = load({**KEYS, f"{MAIN}API_KEY": " canary-key\n"}).account(BITGET)
        assert account.api_key.get_secret_value() == "canary-key"

    @pytest.mark.parametrize(
        ("given", "base_url", "ws_url"),
        [
            ({}, "https://api.bitget.com", "wss://ws.bitget.com/v2/ws/private"),
            ({"DEMO": "true"}, "https://api.bitget.com", "wss://wspap.bitget.com/v2/ws/private"),
            ({"BASE_URL": "http://127.0.0.1:9/"}, "http://127.0.0.1:9", None),
            ({"BASE_URL": "http://sim:9", "WS_URL": "ws://sim:9/ws"}, "http://sim:9", "ws://sim:9/ws"),
            ({"WS_URL": "wss://other/ws"}, "https://api.bitget.com", "wss://other/ws"),
        ],
    )
    def test_addresses(self, given: dict[str, str], base_url: str, ws_url: str | None) -> None:
        account = load(KEYS | {MAIN + name: value for name, value in given.items()}).account(BITGET)
        assert (account.base_url, account.ws_url) == (base_url, ws_url)

    def test_the_stream_is_switched_off_by_an_empty_url_in_the_file(self, toml: Path) -> None:
        toml.write_text('[accounts.bitget.main]\nws_url = ""\n')
        assert load(KEYS, toml).account(BITGET).ws_url is None

    def test_keys_are_not_sent_to_a_venue_in_the_clear(self) -> None:
        (told,) = problems_of({**KEYS, f"{MAIN}BASE_URL": "http://api.bitget.com"})
        assert told == "accounts.bitget.main.base_url would send keys unencrypted; write https://"

    def test_a_login_is_not_sent_to_a_venue_in_the_clear(self) -> None:
        (told,) = problems_of({**KEYS, f"{MAIN}WS_URL": "ws://ws.bitget.com/v2/ws/private"})
        assert told == "accounts.bitget.main.ws_url would send a login unencrypted; write wss://"

    def test_a_demo_that_the_venue_does_not_have_is_refused(self) -> None:
        assert "bingx has no spot demo" in problems_of({"CANCELQ_ACCOUNTS__BINGX__A__DEMO": "1"}, need_keys=False)[0]

    def test_bybit_s_testnet_and_demo_are_hosts_of_their_own(self) -> None:
        for name, host in (("TESTNET", "testnet"), ("DEMO", "demo")):
            account = load({f"CANCELQ_ACCOUNTS__BYBIT__A__{name}": "1"}, need_keys=False).account(Lane("bybit", "a"))
            assert account.base_url == f"https://api-{host}.bybit.com"
            assert account.ws_url == f"wss://stream-{host}.bybit.com/v5/private"

    def test_a_testnet_that_the_venue_does_not_have_is_refused(self) -> None:
        for venue in ("bitget", "bingx"):
            (problem,) = problems_of({f"CANCELQ_ACCOUNTS__{venue.upper()}__A__TESTNET": "1"}, need_keys=False)
            assert f"accounts.{venue}.a.testnet: {venue} has no spot testnet" in problem

    def test_an_account_is_of_the_demo_or_of_the_testnet(self) -> None:
        both = {"CANCELQ_ACCOUNTS__BYBIT__A__DEMO": "1", "CANCELQ_ACCOUNTS__BYBIT__A__TESTNET": "1"}
        assert "not of both; remove one" in problems_of(both, need_keys=False)[0]

    def test_a_batch_is_never_larger_than_the_venue_takes(self) -> None:
        assert (
            load({"CANCELQ_ACCOUNTS__BINGX__A__BATCH_SIZE": "20"}, need_keys=False)
            .account(Lane("bingx", "a"))
            .batch_size
            == 20
        )
        (problem,) = problems_of({"CANCELQ_ACCOUNTS__BYBIT__A__BATCH_SIZE": "11"}, need_keys=False)
        assert "accounts.bybit.a.batch_size: bybit takes at most 10 orders in a call" in problem

    def test_only_some_lanes(self) -> None:
        other = {"CANCELQ_ACCOUNTS__BYBIT__A__API_KEY": "other"}
        settings = load({**KEYS, **other}, need_keys=False)
        assert settings.only([BITGET]).lanes == (BITGET,)
        with pytest.raises(SettingsError, match="bybit:a has no api_secret"):
            settings.only([Lane("bybit", "a")])
        with pytest.raises(SettingsError, match=r"bybit:b is not configured; add \[accounts.bybit.b\]"):
            settings.only([Lane("bybit", "b")])


class TestSecrecy:
    def test_everything_that_nobody_may_see_is_known(self) -> None:
        settings = load({**KEYS, "CANCELQ_REDIS_URL": "redis://user:canary-word@host/1"})
        assert set(settings.secrets()) == {"canary-key", "canary-secret", "canary-pass", "canary-word"}

    def test_no_repr_and_no_error_shows_a_secret(self, toml: Path) -> None:
        env = {**KEYS, "CANCELQ_REDIS_URL": "redis://user:canary@host/1?password=canary"}
        settings = load(env)
        shown = f"{settings!r} {settings} {settings.accounts} {settings.account(BITGET)!r}"
        assert "canary" not in shown
        assert settings.redis_place == "redis://host/1"
        with pytest.raises(ValidationError) as caught:
            Account.model_validate({"api_key": "canary canary", "api_secret": ["canary"], "demo": "canary"})
        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://host:1/0", "redis://host:1/0"),
            ("rediss://:p%40w@host:1/0", "rediss://host:1/0"),
            ("redis+sentinel://u:p@a:1,b:2/name/0?x=y", "redis+sentinel://a:1,b:2/name/0"),
            ("unix://u:p@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ],
    )
    def test_a_url_is_shown_without_credentials(self, url: str, shown: str) -> None:
        assert without_credentials(url) == shown

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            load().__setattr__("lease_ms", 9000)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("worker.internal:65535", ("worker.internal", 65535)),
    ],
)
def test_a_place_to_listen_on(place: str, told: tuple[str, int]) -> None:
    assert listen_place(place) == told
    assert Settings(http=place).http == place


def test_without_a_place_nothing_listens() -> None:
    assert Settings().http == ""


@pytest.mark.parametrize("venue", KINDS)
def test_every_limit_of_an_account_is_what_its_venue_keeps(venue: str) -> None:
    names = [bucket.name for bucket in (*KINDS[venue].buckets, *KINDS[venue].address_buckets)]
    limits = {name: 100 + n for n, name in enumerate(names)}
    opened = open_venue(venue, Account(limits=limits))
    assert {bucket.name: bucket.units for bucket in (*opened.buckets, *opened.address_buckets)} == limits


@pytest.mark.parametrize("venue", KINDS)
def test_every_batch_of_an_account_names_as_many_orders_as_it_sets(venue: str) -> None:
    opened = open_venue(venue, Account(batch_size=3))
    assert {route.most for route in opened.routes if route.stage is Stage.CANCEL} == {1, 3}


@pytest.mark.parametrize("demo", [False, True])
def test_calls_of_a_bitget_account_say_whether_it_is_of_the_demo(demo: bool) -> None:
    signed = open_venue("bitget", Account(demo=demo)).sign(Request("GET", "/"), 1_700_000_000_000)
    assert signed.headers.get("paptrading") == ("1" if demo else None)
