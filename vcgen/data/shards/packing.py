"""The packing loop: convert scenes in parallel, write shards in order, keep finished shards across interruptions,
publish at the end.

While it runs everything lies in ``OUT.partial``: ``000000.tar`` and beside it ``000000.json``, which records what the
shard was made of. A later run keeps each shard whose record still matches its source and settings."""

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct, to_builtins

from vcgen import provenance
from vcgen.data.formats.remarks import print_remarks
from vcgen.data.formats.scene import SceneFolder, Settings
from vcgen.data.shards.conversion import ListScenes, ReadScene, convert
from vcgen.data.shards.files import INDEX, ShardEntry, ShardIndex, read_index, write_index, write_shard
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError
from vcgen.folders import create_own_folder, put_in_place
from vcgen.io import open_lock, read_json, remove_leftovers, write_bytes
from vcgen.schema import Side
from vcgen.terminal import counted, say

PACK_FILE = "pack.json"
BROKEN_LIMIT = 20


@dataclass(frozen=True)
class Plan:
    """One shard to make: its file name, its scenes, and a fingerprint of their files and the settings."""

    name: str
    scenes: list[SceneFolder]
    fingerprint: str


@dataclass(frozen=True)
class Made:
    """One shard made: its entry (None if all were broken), image size, scenes left out as (key, reason), remarks as
    (key, text).
    """

    entry: ShardEntry | None
    image_size: tuple[int, int] | None
    broken: list[tuple[str, str]]
    remarks: list[tuple[str, str]]


class Finished(Struct, forbid_unknown_fields=True):
    """The note that a shard is finished."""

    fingerprint: str
    entry: ShardEntry | None
    image_size: tuple[Side, Side] | None
    broken: list[tuple[str, str]]
    remarks: list[tuple[str, str]]


def pack(
    list_scenes: ListScenes,
    read_scene: ReadScene,
    source: str,
    out: str,
    settings: Settings,
    samples_per_shard: int,
    workers: int,
    skip_broken: bool,
    overwrite: bool,
) -> None:
    """Convert every scene of ``source`` into the shard folder ``out`` and print a summary. Raises UserError; ``out`` is
    then untouched.
    """
    if samples_per_shard < 1 or workers < 1:
        raise UserError("--samples-per-shard and --workers must be at least 1")
    target = Path(os.path.abspath(out))
    scenes = [*list_scenes(Path(source), settings)]
    refuse_equal_keys(scenes)
    plans = make_plans(scenes, settings, f"{read_scene.__module__}.{read_scene.__name__}", samples_per_shard)
    fingerprint = hashlib.sha256("".join(plan.fingerprint for plan in plans).encode()).hexdigest()
    if is_done(target, fingerprint, overwrite):
        say(f"{out}: already packed from this source with these settings; nothing to do (--overwrite packs again)")
        return
    partial = target.with_name(target.name + ".partial")
    create_own_folder(partial)
    with hold_lock(partial):
        remove_leftovers(partial, "*")
        try:
            made = make_shards(plans, partial, read_scene, settings, workers, skip_broken)
        except KeyboardInterrupt as interrupt:
            raise UserError(
                f"interrupted; finished shards are kept in {out}.partial, the same command continues"
            ) from interrupt
        broken = [item for shard in made for item in shard.broken]
        if broken and not skip_broken:
            raise UserError(broken_message(broken, len(scenes), source))
        publish(made, partial, target, settings, fingerprint)
    index = read_index(target)
    say(
        f"{out}: {counted(len(index.samples), 'scene')} in {counted(len(index.shards), 'shard')},"
        f" {sum(s.bytes for s in index.shards) / 1e6:.1f} MB"
    )
    print_remarks(item for shard in made for item in shard.remarks)
    if broken:
        say(f"left out {counted(len(broken), 'broken scene')}:", *(f"  {key}: {reason}" for key, reason in broken))


def hold_lock(partial: Path) -> BinaryIO:
    """Claim a folder for this process until the returned file is closed; raises UserError while another process has
    it.
    """
    file = open_lock(partial / "lock")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{partial}: another process of vcgen is writing here; wait for it, or choose another OUT"
        ) from error
    return file


def refuse_equal_keys(scenes: list[SceneFolder]) -> None:
    """Raise UserError where two folders would get one key."""
    folders: dict[str, Path] = {}
    for scene in scenes:
        if scene.key in folders:
            raise UserError(f"{scene.folder} and {folders[scene.key]} would both be called {scene.key!r}; rename one")
        folders[scene.key] = scene.folder


def make_plans(scenes: list[SceneFolder], settings: Settings, converter: str, samples_per_shard: int) -> list[Plan]:
    """Deal the scenes into shards. Fingerprints use names and sizes of files, and what those of cameras say, not
    paths or times: a moved or copied source is the same.
    """
    plans = []
    for start in range(0, len(scenes), samples_per_shard):
        batch = scenes[start : start + samples_per_shard]
        content = [converter, asdict(settings), [(scene.key, scene.files()) for scene in batch]]
        fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        plans.append(Plan(f"{start // samples_per_shard:06d}", batch, fingerprint))
    return plans


def is_done(target: Path, fingerprint: str, overwrite: bool) -> bool:
    """Whether ``target`` already holds this very pack. Raises UserError if it holds anything else that must not be
    replaced.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if not (target / INDEX).is_file():
        raise UserError(f"{target}: exists and is not a shard folder; choose another name for OUT")
    if overwrite:
        return False
    record = target / PACK_FILE
    if (
        record.is_file()
        and read_json(record, dict[str, Any], "use --overwrite to replace the folder").get("fingerprint") == fingerprint
    ):
        read_index(target)
        return True
    raise UserError(
        f"{target}: was packed from another source or with other settings; use --overwrite to replace it, or"
        " another OUT"
    )


def make_shards(
    plans: list[Plan], partial: Path, read_scene: ReadScene, settings: Settings, workers: int, skip_broken: bool
) -> list[Made]:
    """Write the shards that are not there yet; returns all of them in order. Stops early after many broken scenes,
    unless skipping.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    kept = {plan.name: load_made(partial, plan) for plan in plans}
    todo = [plan for plan in plans if not (made := kept[plan.name]) or (made.broken and not skip_broken)]
    image_size = next((made.image_size for made in kept.values() if made and made.image_size), settings.size)
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("packing", total=sum(len(plan.scenes) for plan in plans))
        progress.advance(task, sum(len(plan.scenes) for plan in plans if plan not in todo))
        results = convert([scene for plan in todo for scene in plan.scenes], read_scene, settings, workers)
        for plan in todo:
            records, broken, remarks = [], [], []
            for scene in plan.scenes:
                result, texts = next(results)
                remarks += [(scene.key, text) for text in texts]
                image_size = image_size or (result.size if isinstance(result, SceneRecord) else None)
                if isinstance(result, SceneRecord) and result.size != image_size:
                    result = f"images are {result.size}, others {image_size} (height, width); give one --size"
                records.append(result) if isinstance(result, SceneRecord) else broken.append((scene.key, result))
                progress.advance(task)
            kept[plan.name] = save_made(partial, plan, records, broken, remarks, image_size)
            if not skip_broken and sum(len(made.broken) for made in kept.values() if made) >= BROKEN_LIMIT:
                break
    return [made for made in kept.values() if made]


def save_made(
    partial: Path,
    plan: Plan,
    records: list[SceneRecord],
    broken: list[tuple[str, str]],
    remarks: list[tuple[str, str]],
    image_size: tuple[int, int] | None,
) -> Made:
    """Write a shard and then the note that it is finished."""
    entry = write_shard(records, partial / f"{plan.name}.tar", image_size) if records and image_size else None
    made = Made(entry, image_size, broken, remarks)
    write_bytes(
        partial / f"{plan.name}.json", json.dumps(to_builtins(Finished(plan.fingerprint, **vars(made)))).encode()
    )
    return made


def load_made(partial: Path, plan: Plan) -> Made | None:
    """A shard that an earlier run finished from the same source and settings, or None."""
    try:
        note = read_json(partial / f"{plan.name}.json", Finished)
        entry = note.entry
        if note.fingerprint != plan.fingerprint or (entry and (partial / entry.name).stat().st_size != entry.bytes):
            return None
        return Made(entry, note.image_size, note.broken, note.remarks)
    except (OSError, UserError):  # whatever keeps it from being used, the shard is made anew
        return None


def publish(made: list[Made], partial: Path, target: Path, settings: Settings, fingerprint: str) -> None:
    """Write the index and give the finished folder its name; an old one is moved aside first and removed last."""
    entries = tuple(shard.entry for shard in made if shard.entry)
    if not entries:
        raise UserError(broken_message([item for shard in made for item in shard.broken], len(made), str(target)))
    image_size = next(shard.image_size for shard in made if shard.image_size)
    write_index(ShardIndex(partial, image_size, settings.source, settings.split, settings.licence, entries))
    record = {
        "fingerprint": fingerprint,
        "settings": asdict(settings),
        "versions": provenance.versions(),
        "broken": [item for shard in made for item in shard.broken],
    }
    write_bytes(partial / PACK_FILE, (json.dumps(record, indent=1) + "\n").encode())
    wanted = {INDEX, PACK_FILE, *(entry.name for entry in entries)}
    for path in partial.iterdir():
        if path.name not in wanted:
            path.unlink()
    put_in_place(partial, target)


def broken_message(broken: list[tuple[str, str]], total: int, source: str) -> str:
    """One line: how many scenes are broken and the first reasons, each once."""
    different = list(dict.fromkeys(reason for _, reason in broken))  # a wrong option is wrong for all
    reasons = "; ".join(different[:3]) + ("; ..." if len(different) > 3 else "")
    return (
        f"{source}: {len(broken)} of {total} scenes are broken: {reasons} (mend them, or leave them out with"
        " --skip-broken)"
    )
