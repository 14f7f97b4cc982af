"""What is installed is what was looked at: every pin has its hashes, every installation asks for them, and the bill of
materials names each pin and nothing else."""

import json
import re
from pathlib import Path

import pytest

from ops.sbom import PINS, faults_of, read_pins, sbom

ROOT = Path(__file__).parents[2]
REQUIREMENTS = sorted((ROOT / "requirements").rglob("*.txt"))
NAME = r"[A-Za-z0-9._-]+(?:\[[a-z,]+\])?"
PIN = re.compile(
    rf"({NAME}==[^ ;\\]+(?: ; [^\\]+)?) \\\n((?:    --hash=sha256:[0-9a-f]{{64}}(?: \\)?\n)+)(?:    #.*\n)*"
)


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.name)
def test_every_pin_is_exact_and_has_its_hashes(file: Path) -> None:
    """The whole file is pins with hashes: no other line that pip would heed."""
    text = "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("#"))
    rest = PIN.sub("", text)
    assert not rest.strip(), rest
    assert len(PIN.findall(text)) > 3


def test_every_installation_asks_for_hashes_or_takes_nothing_from_outside() -> None:
    """Our own wheel and the tree itself have no hash; what they need is installed before."""
    files = [ROOT / "Makefile", ROOT / "Dockerfile", ROOT / ".ci" / "run", *(ROOT / "ops").rglob("*.sh")]
    programs = (ROOT / "ops").rglob("*.py")
    calls = [
        call
        for file in (*files, *programs)
        for call in re.findall(
            r"\bpip (?:install|wheel)\b.*|\"pip\", \"(?:install|wheel)\".*", file.read_text().replace("\\\n", " ")
        )
    ]
    assert len(calls) >= 8
    for call in calls:
        first = call.partition("&&")[0]
        assert "--require-hashes" in first or "--no-deps" in first, call


def test_the_bill_of_materials_names_every_pin_with_all_its_hashes() -> None:
    text = PINS.read_text()
    bill = json.loads(sbom(text))
    told = {(one["name"], one["version"]): {h["content"] for h in one["hashes"]} for one in bill["components"]}
    assert told == {(pin.name, pin.version): set(pin.hashes) for pin in read_pins(text)}
    assert len(told) == len(re.findall(r"^[A-Za-z0-9].*==", text, re.MULTILINE))
    assert sum(map(len, told.values())) == text.count("--hash=sha256:")


def test_the_bill_of_materials_is_valid_and_always_the_same() -> None:
    text = sbom(PINS.read_text())
    assert not faults_of(text)
    assert text == sbom(PINS.read_text())
    assert "timestamp" not in text
    assert faults_of(text.replace('"library"', '"a library"', 1))


def test_other_pins_make_another_bill() -> None:
    one, other = PINS.read_text(), PINS.read_text().replace("rq==", "rq==9.", 1)
    assert json.loads(sbom(one))["serialNumber"] != json.loads(sbom(other))["serialNumber"]


def test_licences_are_told_where_the_packages_are_installed() -> None:
    bill = json.loads(sbom(PINS.read_text()))
    # Pins for other systems and older interpreters are not installed here.
    assert all("licenses" in one for one in bill["components"] if one.get("scope") != "optional")
    (server,) = [inner for one in bill["components"] for inner in one.get("components", [])]
    assert (server["name"], server["type"]) == ("valkey-server", "application")


def test_what_needs_what_is_told_from_the_program_down() -> None:
    bill = json.loads(sbom(PINS.read_text()))
    needs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    reached, waiting = set[str](), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += needs[ref]
    assert reached == set(needs)
