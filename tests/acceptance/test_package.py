"""What `pip install` puts on a machine: both packages whole, the command, and nothing else."""

import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = (ROOT / "producers", ROOT / "worker")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (built,) = folder.glob("cancelq-*.whl")
    return built


def test_it_holds_every_source_file_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    written = {
        file.relative_to(root).as_posix()
        for root in SOURCE_ROOTS
        for file in root.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert shipped == written
    assert {"cancelq/py.typed", "cancelq_worker/py.typed"} <= shipped
    assert any(name.startswith("cancelq_worker/lua/") and name.endswith(".lua") for name in shipped)


def test_it_brings_the_command(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        told = archive.read(name).decode()
    assert "cancelq = cancelq_worker.cli:main" in told


def test_the_pins_name_no_place_that_packages_come_from() -> None:
    """Given the hashes any index will do: none is imposed on a machine, and no machine's own gets in."""
    for file in (ROOT / "requirements").glob("*.txt"):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            is_hash = line.startswith("    --hash=sha256:")
            assert "://" not in line, f"{file.name}:{number}"
            assert is_hash or not line.lstrip().startswith("-"), f"{file.name}:{number}"


def test_the_pins_fit_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements" / "run.txt").read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines if "==" in line and line[0].isalpha())
    for wanted in map(Requirement, project["dependencies"]):
        assert wanted.name in pins, f"{wanted.name} has no pin: make pins"
        assert wanted.specifier.contains(pins[wanted.name]), f"{wanted} is not {pins[wanted.name]}: make pins"
