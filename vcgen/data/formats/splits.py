"""Which views of a capture belong to a split, so that no test image is trained on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vcgen.data.formats.files import ImageFiles
from vcgen.data.formats.remarks import remark
from vcgen.data.formats.scene import Settings
from vcgen.data.shards.record import natural_order
from vcgen.errors import UserError

SPLITS = ("train", "val", "test")


def held_out(names: list[str], settings: Settings) -> list[str]:
    """The views of the split where every ``settings.hold_out_views``-th is held out: the first, and so on, in natural
    order, as LLFF does.

    All of them for 0. Raises UserError for a split that is neither train, val nor test, and where fewer than two views
    are left."""
    step, names = settings.hold_out_views, sorted(names, key=natural_order)
    if not step:
        return names
    if settings.split not in SPLITS:
        raise UserError(
            f"--hold_out_views parts views into train and test, not {settings.split!r}; give --split train or --split"
            " test"
        )
    held = names[::step]
    chosen = held if settings.split != "train" else [name for name in names if name not in held]
    if len(chosen) < 2:
        raise UserError(
            f"--hold_out_views {step} leaves {len(chosen)} of {len(names)} views to split {settings.split}; 2 are"
            " needed"
        )
    return chosen


def choose_frames(
    path: Path, content: dict[str, Any], images: list[Path], names: list[str], settings: Settings
) -> list[int]:
    """Positions of the frames of a transforms file that belong to ``settings.split``, in natural order of their
    ``names``.

    The split is that of the file (transforms_SPLIT.json), of its lists (``train_filenames`` and so on, nerfstudio), or
    of ``settings.hold_out_views``. A remark is made where nothing tells one split from another, and where images are in
    two. Raises UserError where the file has lists, but not that of the split, or a list that is empty or names no
    frame."""
    lists = {
        split: content[f"{split}_filenames"] for split in (*SPLITS, settings.split) if f"{split}_filenames" in content
    }
    is_whole = path.name == "transforms.json" and not lists
    if settings.hold_out_views and not is_whole:
        how = ", ".join(f"{split}_filenames" for split in lists) or path.name
        raise UserError(f"{path}: the capture is split already ({how}); leave out --hold_out_views")
    if lists and settings.split not in lists:
        there = ", ".join(f"{split}_filenames" for split in lists)
        raise UserError(f"{path}: has no {settings.split}_filenames, but {there}; choose with --split")
    files = ImageFiles(path.parent)
    if lists:
        chosen = _frames_named(lists[settings.split], images, files, f"{path}: {settings.split}_filenames")
    else:
        kept = held_out(names, settings)
        chosen = [names.index(name) for name in kept] if settings.hold_out_views else list(range(len(names)))
    if is_whole and not settings.hold_out_views and settings.split != "train":
        advice = "with --hold_out_views 8 in both packs every 8th is for testing"
        remark(
            f"nothing in {path.name} tells test from training views: all {len(images)} are packed as split"
            f" {settings.split}; {advice}"
        )
    return sorted(chosen, key=lambda position: natural_order(names[position]))


def remark_on_shared(
    images: Iterable[Path], others: Mapping[str, Iterable[str]], files: ImageFiles, split: str
) -> None:
    """A remark where ``images`` of a split are among the names that ``others`` (where from -> names) give for training
    or testing.
    """
    mine = {image.resolve() for image in images}
    for where, names in others.items():
        if shared := mine & {found.resolve() for name in names if (found := files.find(name))}:
            remark(
                f"{len(shared)} of {len(mine)} images of split {split} are in {where}, too: test images must not be"
                " trained on"
            )


def _frames_named(listed: Any, images: list[Path], files: ImageFiles, where: str) -> list[int]:
    """Positions in ``images`` of the files that a list names."""
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{where} must be a list of names, with one at least")
    positions = {image.resolve(): position for position, image in enumerate(images)}
    found = {name: files.find(name) for name in listed}
    strange = [name for name, image in found.items() if image is None or image.resolve() not in positions]
    if strange:
        raise UserError(f"{where}: {len(strange)} of {len(listed)} names match no frame: {', '.join(strange[:5])}")
    return sorted({positions[image.resolve()] for image in found.values() if image})
