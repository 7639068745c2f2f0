"""Links, files and images of the pages: all that a page names is there."""

import re
from pathlib import Path

import pytest

from pages import PAGES, ROOT

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not fragment or fragment in anchors(file), target


@every_page
def test_code_named_in_a_page_exists(page):
    for path in re.findall(r"`((?:configs|vcgen|benchmarks|slurm|data/cars64)/[\w./-]*\w)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_the_reliability_page_names_a_test_for_every_fault():
    rows = re.findall(
        r"^\|(.+)\|$", (ROOT / "docs" / "reliability.md").read_text().split("## Faults")[1], re.MULTILINE
    )[2:]
    assert len(rows) > 5
    for row in rows:
        fault, *_, tests = (cell.strip() for cell in row.split(" | "))
        files = re.findall(r"`(tests/\w+\.py)`", tests)
        assert files and all((ROOT / file).exists() for file in files), fault


def test_images_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert sizes.pop("teaser.png") < 250_000 and sizes.pop("turntable.gif") < 500_000
    assert sum(sizes.values()) < 500_000


def test_every_page_stands_in_the_site():
    listed = set(re.findall(r"^ +- (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_workflow_calls_the_targets_of_the_whole_check():
    steps = re.findall(r"- run: make ([\w-]+)", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert set(steps) <= set(re.findall(r"make ([\w-]+)", (ROOT / ".ci" / "run").read_text())) and "lint" in steps
