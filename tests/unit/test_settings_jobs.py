"""The jobs in the settings: how they are written, and what is said of a mistake."""

from pathlib import Path

import pytest

from cancelq.contract import Lane
from cancelq_worker.settings import Settings, SettingsError

SWEEP = '[jobs.sweep.bitget.main]\nolder_than = "1h"\nevery = "5m"\n'


def load(tmp_path: Path, text: str, **env: str) -> Settings:
    config = tmp_path / "cancelq.toml"
    config.write_text(text)
    return Settings.load(config, env, need_keys=False)


def test_a_job_runs_by_itself_where_a_table_says_so(tmp_path: Path) -> None:
    jobs = load(tmp_path, SWEEP + '[jobs.reconcile.bybit.desk_2]\nevery = "10m"\n').jobs
    assert [(name, lane, periodic.every) for name, lane, periodic in jobs.periods()] == [
        ("sweep", Lane("bitget", "main"), 300_000),
        ("reconcile", Lane("bybit", "desk_2"), 600_000),
    ]
    assert jobs.sweep["bitget"]["main"].older_than == 3_600_000
    assert jobs.reconcile["bybit"]["desk_2"].within == 86_400_000
    assert list(load(tmp_path, "").jobs.periods()) == []


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'rq_lanes = ["bitget:main"]\n' + SWEEP,
        CANCELQ_JOBS__SWEEP__BITGET__MAIN__OLDER_THAN="2h",
        CANCELQ_RQ_LANES='["bybit:main"]',
    )
    assert settings.jobs.sweep["bitget"]["main"].older_than == 7_200_000
    assert settings.lanes_open_to_rq == (Lane("bybit", "main"),)


def test_rq_s_door_opens_to_every_configured_lane_unless_told(tmp_path: Path) -> None:
    account = "[accounts.bitget.main]\ndemo = false\n"
    assert load(tmp_path, account).lanes_open_to_rq == (Lane("bitget", "main"),)
    assert load(tmp_path, "rq_lanes = []\n" + account).lanes_open_to_rq == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SWEEP.replace("older_than", "older_tan"), ':2 unknown setting "older_tan", did you mean "older_than"?'),
        (SWEEP.replace("sweep", "sweeep"), ':1 unknown setting "sweeep", did you mean "sweep"?'),
        (SWEEP.replace("bitget", "bitgt"), 'unknown venue "bitgt"'),
        (SWEEP.replace("main", "Main"), '"Main" cannot name an account'),
        (SWEEP.replace('"5m"', '"5 minutes"'), 'jobs.sweep.bitget.main.every must be a span like "90s"'),
        (SWEEP.replace('"5m"', "300"), 'jobs.sweep.bitget.main.every must be a span like "90s"'),
        (SWEEP.replace('"5m"', '"5s"'), "jobs.sweep.bitget.main.every must be at least 10s"),
        (SWEEP.replace('"1h"', '"30s"'), "jobs.sweep.bitget.main.older_than must be at least 1m"),
        (SWEEP + 'kinds = "limit"\n', "kinds: not understood"),
        (SWEEP + 'symbol = "BTC/USDT"\n', "symbol: not understood"),
        ("jobs.sweep = 3\n", "must be a table, such as [jobs.sweep.bitget.main]"),
        ('rq_lanes = ["main"]\n', "rq_lanes.0 'main' is no lane"),
        ("rq_lane = []\n", 'unknown setting "rq_lane", did you mean "rq_lanes"?'),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, text)
    assert said in str(refused.value)
