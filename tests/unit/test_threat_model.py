"""The page about threats names controls that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "THREAT-MODEL.md").read_text()


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:tests|ops|docs)/[A-Za-z0-9_./-]+)`", PAGE))
    assert len(named) > 12
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_target_it_names_can_be_made() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", PAGE))
    assert {"canaries", "sbom"} <= named <= targets


def test_every_page_it_leads_to_is_there() -> None:
    assert not [page for page in re.findall(r"\]\(([A-Z-]+\.md)\)", PAGE) if not (ROOT / "docs" / page).exists()]


def test_everybody_who_has_a_user_is_looked_at() -> None:
    roles = {file.stem for file in (ROOT / "ops" / "redis" / "roles").glob("*.acl")} - {"common", "admin"}
    assert {"producer", "worker", "auditor", "operator", "jobs", "metrics", "rq-desk"} == roles
    heads = " ".join(re.findall(r"^### (.*)$", PAGE, re.MULTILINE)).lower()
    assert not [role for role in roles if role not in heads]
