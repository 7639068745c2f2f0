"""``vcgen data unpack LIBRARIES OUT``: furniture libraries as mesh files; the work is in
``meshes/unpacking.py``."""

from collections import Counter
from pathlib import Path

from vcgen.cli import usage
from vcgen.data.formats.files import visible
from vcgen.errors import UserError
from vcgen.meshes.furniture import Licence
from vcgen.meshes.unpacking import unpack as write
from vcgen.terminal import say


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data unpack``) and unpack."""
    usage.run(unpack, arguments, "vcgen data unpack", positional=True)


def unpack(libraries: str, out: str, licences: list[Licence] = ["cc0"], test_every: int = 5) -> None:
    """Unpack furniture libraries of Sweet Home 3D (.sh3f) into mesh files for vcgen data render, parted by maker.

    OUT/train and OUT/test hold a folder for each model; no maker has models in both. OUT/ATTRIBUTION.md names the
    creator, the licence and the source of each, and OUT/families.json lists what one maker made, for data.families.
    Doors, windows and flat models are left out.

    Args:
        libraries: a .sh3f file, or a folder of them.
        out: folder to make; it appears under this name only when complete.
        licences: whose models are taken: cc0, cc-by or both; the catalogues tell.
        test_every: about one of so many makers is tested on, 2 to 1000; a maker's name alone decides.
    """
    usage.within("--test-every", test_every, 2, 1000)
    source, target = Path(libraries), Path(out)
    files = [path for path in visible(source) if path.suffix.lower() == ".sh3f"] if source.is_dir() else [source]
    if not files:
        raise UserError(
            f"{libraries}: no .sh3f file here; give a furniture library of Sweet Home 3D, or a folder of them"
        )
    if target.exists():
        raise UserError(f"{out}: exists already; choose another folder or remove it")
    pieces, left_out = write(files, target, licences, test_every)
    counts = Counter(piece.licence for piece in pieces)
    counted = ", ".join(f"{count} {licence}" for licence, count in sorted(counts.items()))
    say(f"{out}: {len(pieces)} models of {len({piece.creator for piece in pieces})} creators, {counted}")
    for reason, keys in left_out.items():
        named = "" if reason.startswith("its licence") else f": {', '.join(keys)}"
        say(f"left out {len(keys)}, {reason}{named}")
