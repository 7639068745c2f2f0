"""The command: all checks, one line for each, and an exit status."""

import argparse
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Never

from vcgen.cli.doctor import cluster, computer, files, packages
from vcgen.cli.doctor.finding import Finding, attempt
from vcgen.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> Never:
        """Raise UserError for a mistake in the command line."""
        raise UserError(f"{message}; see `{self.prog} --help`")


def main(arguments: list[str]) -> int:
    """Entry point of ``vcgen doctor``; returns 1 if there is a problem, else 0."""
    # argparse, not jsonargparse: this must run where packages are missing.
    description = (
        "Check versions, devices, files and SLURM; say how to mend what is missing. The exit status is 1 if there is a"
        " problem."
    )
    parser = ArgumentParser(prog="vcgen doctor", description=description, allow_abbrev=False)
    parser.add_argument(
        "--data", metavar="FOLDER", type=Path, help="also verify the checksums of a shard folder (of vcgen data pack)"
    )
    chosen = parser.parse_args(arguments)
    findings = report(chosen.data)
    for finding in findings:
        print(finding)
    return int(any(finding.state == "problem" for finding in findings))


def report(data: Path | None = None) -> list[Finding]:
    """All findings. Where a package is malicious nothing is imported, so nothing else is checked."""
    refused = attempt("packages", packages.malicious)
    if refused:
        return refused
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "python": packages.python,
        "packages": packages.packages,
        "imports": packages.imports,
        "processors": computer.processors,
        "gpus": computer.gpus,
        "space": computer.space,
        "lpips": files.lpips,
        "bundled": files.bundled,
        "slurm": partial(cluster.slurm, os.environ),
        "launch": partial(cluster.meeting, os.environ),
    }
    if data is not None:
        checks["data"] = partial(files.shards, data)
    return [finding for subject, check in checks.items() for finding in attempt(subject, check)]
