"""Versions of Python and packages against what vcgen needs. Nothing is imported before its version is known to be
harmless.
"""

import importlib
import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.metadata import PackageNotFoundError

from vcgen.cli.doctor.finding import Finding

#: Releases that stole credentials when they were imported (advisory GHSA-w37p-236h-pfx3).
MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
#: Packages that often do not fit one another, although each is there.
IMPORTED = ("torch", "torchvision", "lightning.pytorch.cli")


def python() -> Iterator[Finding]:
    """The interpreter."""
    from packaging.specifiers import SpecifierSet

    needed, found = metadata.metadata("vcgen")["Requires-Python"], platform.python_version()
    if found in SpecifierSet(needed):
        yield Finding("ok", "python", found)
    else:
        yield Finding(
            "problem", "python", f"{found}, but vcgen needs {needed}; make an environment with another python"
        )


def malicious(version: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """Releases that must not even be imported. version: says which one of a package is installed."""
    for name, releases in MALICIOUS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if found in releases:
            advice = (
                "uninstall it, renew every password and token this computer has seen, then: pip install"
                " 'lightning>=2.6.6'"
            )
            yield Finding("problem", name, f"{found} is malicious (it steals credentials when imported); {advice}")


def packages(version: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """What pyproject.toml asks for, in one line if all is well."""
    from packaging.requirements import Requirement

    fine = []
    for requirement in map(Requirement, metadata.requires("vcgen") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{requirement}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("problem", "packages", f"{requirement.name} is missing; {remedy}")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            fine.append(f"{requirement.name} {found}")
        else:
            yield Finding("problem", "packages", f"{requirement.name} {found} is not {requirement.specifier}; {remedy}")
    yield Finding("ok", "packages", ", ".join(fine))


def imports(names: tuple[str, ...] = IMPORTED) -> Iterator[Finding]:
    """Whether the large packages can be imported."""
    broken = False
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a torchvision of another PyTorch raises RuntimeError, a missing library OSError
            broken = True
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            yield Finding(
                "problem",
                "imports",
                f"{name} cannot be imported ({reason}); install torch, torchvision and lightning together",
            )
    if not broken:
        yield Finding("ok", "imports", ", ".join(names))
