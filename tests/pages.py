"""The pages of the documentation, and what stands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CARDS = [ROOT / "data" / "pretrained" / name / "README.md" for name in ("cars64", "cars64_field")]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "data" / "README.md",
    ROOT / "slurm" / "README.md",
    *CARDS,
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def table(page: Path, heading: str, columns: int = 2) -> dict[str, list[str]]:
    """The first table below a heading (or any other line): the names in backticks in its first column -> the other
    cells.
    """
    text = page.read_text().split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    split = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert all(len(row) >= columns for row in split)
    return {name: row[1:] for row in split for name in re.findall(r"`([^`]+)`", row[0])}
