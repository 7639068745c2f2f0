"""What the benchmark programs share: where things are, what machine this is, how results are filed."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path

from vcgen import provenance
from vcgen.errors import UserError, system_refusal
from vcgen.io import write_bytes
from vcgen.terminal import printable

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"


def command_line(doc: str | None, filed: bool = False) -> argparse.ArgumentParser:
    """The parser of a program whose ``--help`` is its docstring, with ``--quick``. filed: with ``--unfiled``, too."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    if filed:
        parser.add_argument("--unfiled", action="store_true", help="write no file under benchmarks/results")
    return parser


def vcgen(*arguments: object, quiet: bool = False) -> None:
    """Run a vcgen command from the repository's root; raises CalledProcessError where it fails."""
    command, output = [sys.executable, "-m", "vcgen", *map(str, arguments)], subprocess.DEVNULL if quiet else None
    subprocess.run(command, cwd=ROOT, env={**os.environ, **weights_environment()}, check=True, stdout=output)


def answered(program: Callable[[], object]) -> int:
    """Run a program; returns its exit status. What the user can mend, and a disk that is full, is one line, status 2,
    as from `vcgen`.
    """
    try:
        program()
        return 0
    except UserError as error:
        line = str(error)
    except OSError as error:
        if (refusal := system_refusal(error)) is None:
            raise
        line = refusal
    print(f"{Path(sys.argv[0]).stem}: error: {printable(line)}", file=sys.stderr)
    return 2


def hardware() -> dict[str, object]:
    """Processor, cores that this process may use, GPU and the version of PyTorch, for the record."""
    return {**provenance.hardware(), "torch": metadata.version("torch")}


def days(minutes: float) -> str:
    """Lightning's DD:HH:MM:SS."""
    seconds = round(minutes * 60)
    return f"00:{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def weights_environment() -> dict[str, str]:
    """Developers keep LPIPS weights beside the checkout; users have them downloaded, or left out when offline."""
    folder = ROOT.parent / "shared" / "data" / "weights"
    return {"VCGEN_WEIGHTS": str(folder)} if folder.is_dir() and "VCGEN_WEIGHTS" not in os.environ else {}


def cell(value: float | None, interval: tuple[float, float] | None, digits: int) -> str:
    """A mean and its interval, for a table."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else "")


def save_results(program: str, figures: dict, table: list[str], quick: bool = False) -> None:
    """File a full run as benchmarks/results/DATE_PROGRAM_HARDWARE.json and .md; quick runs are not filed."""
    if quick:
        return
    machine = figures.get("hardware") or hardware()
    name = re.sub(r"\((R|TM)\)", "", str(machine["gpu"] or f"{machine['cores']}x_{machine['processor']}"))
    label = "_".join(re.findall(r"[\w.-]+", name))  # of letters that file names and links bear
    stem = RESULTS / f"{date.today()}_{program}_{label}"
    # Not with_suffix: a processor's name may hold a dot.
    write_bytes(f"{stem}.json", (json.dumps(figures, indent=1) + "\n").encode())
    write_bytes(f"{stem}.md", (f"# {program}, {date.today()}, {label}\n\n" + "\n".join(table) + "\n").encode())
