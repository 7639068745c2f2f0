"""What vcgen reads: LPIPS weights, the bundled data and model, and a shard folder of the user's."""

from collections.abc import Iterator
from pathlib import Path

import vcgen
from vcgen.cli.doctor.finding import Finding
from vcgen.errors import UserError
from vcgen.terminal import counted

#: The repository, where vcgen runs from one.
ROOT = Path(vcgen.__file__).parents[1]


def lpips() -> Iterator[Finding]:
    """Weights of the networks under LPIPS. Nothing is downloaded."""
    from vcgen.metrics.lpips import SOURCES, find_weights

    found, missing = [], {}
    for network in SOURCES:
        try:
            found.append(f"{network} ({find_weights(network, offline=True)})")
        except UserError as error:
            missing[network] = str(error)
    damaged = {network: text for network, text in missing.items() if "damaged" in text}
    for text in damaged.values():
        yield Finding("problem", "lpips", text)
    if found:
        yield Finding("ok", "lpips", ", ".join(found))
    if "vgg" in missing and "vgg" not in damaged:
        yield Finding(
            "warning",
            "lpips",
            missing["vgg"].replace("downloads are switched off", "`vcgen evaluate` would download them"),
        )


def bundled(root: Path = ROOT) -> Iterator[Finding]:
    """The cars and the trained model that are in the repository."""
    from vcgen.checkpoints.model_folder import load
    from vcgen.data.shards.files import read_index

    if not (root / "data" / "cars64").is_dir():
        yield Finding("ok", "bundled", "cars64 and its model are in the repository, not in the installed package")
        return
    for part in ("train", "test"):
        index = read_index(root / "data" / "cars64" / part)
        index.verify_checksums()
        yield Finding("ok", "bundled", f"data/cars64/{part}: {len(index.samples)} objects")
    load(str(root / "data" / "pretrained" / "cars64"), device="cpu")
    yield Finding("ok", "bundled", "data/pretrained/cars64: a model that loads")


def shards(folder: Path) -> Iterator[Finding]:
    """A shard folder, byte by byte."""
    from vcgen.data.shards.files import read_index

    index = read_index(folder)
    index.verify_checksums()
    height, width = index.image_size
    counts = (
        f"{counted(len(index.samples), 'object')} of {width} x {height} px in {counted(len(index.shards), 'shard')}"
    )
    yield Finding("ok", "data", f"{folder}: {counts}, checksums agree")
