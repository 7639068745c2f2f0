"""The LightningDataModule: shard folders in, training stream and validation scenes out, with the stream's position in
every checkpoint.
"""

import atexit
import multiprocessing
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from vcgen.data.datamodules.augment import Augmentation
from vcgen.data.datamodules.base import SceneDataModule
from vcgen.data.datamodules.sampler import identity, resume_position
from vcgen.data.datamodules.stream import FixedScenes, OnError, SceneStream, input_views
from vcgen.data.input_camera import InputCamera
from vcgen.data.shards.faults import Faults, check_shards, fault_in
from vcgen.data.shards.files import ShardIndex, read_index
from vcgen.data.shards.joining import held_out, joined, parted
from vcgen.data.shards.overlap import overlap, read_families
from vcgen.data.shards.remote import Cache, CachedIndex, is_remote
from vcgen.errors import UserError
from vcgen.random import run_seed
from vcgen.schema import AtLeastOne, Count, InputViews, NumberOrRange, Positive, ViewNumber
from vcgen.terminal import complain
from vcgen.types import Example, Position

T = TypeVar("T")


class ShardData(SceneDataModule):
    """Posed images from shard folders (``vcgen data pack``), for training and validation.

    Args:
        train: Shard folder to train on, or a list of several, of whose scenes each comes once in an epoch. With
            ``cache`` also a URL, or "pipe:COMMAND {}", a shell command that prints the file named {}.
        val: Shard folders to validate on, given in the same ways; null validates on the objects that ``hold_out``
            keeps.
        hold_out: Number of objects of each folder of ``train``, evenly spaced, that are validated on and not trained
            on, or a list of a number for each; used without ``val``.
        families: JSON list of lists of objects that are near-copies of one another, or several such files:
            ``hold_out`` never parts them, and counts each list as one object; null where there are none.
        part: [number, parts]: train on every parts-th object only, counted from the number, of each folder of ``train``
            without what ``hold_out`` keeps, families whole; so that models that judge one another share no object.
        held_out_views: Numbers, from 0, of views of each training scene, in the natural order of their names, that
            training never draws, neither as input nor as target: new views of training objects, to measure on.
        batch_size: Scenes per step and rank, at least 1.
        targets: Target views per scene and step, at least 1; more of them share one encoding of the input view.
        contexts: Input views per scene in training, at least 1; or [low, high]: their number is drawn for each step,
            both ends included, the same on all ranks.
        val_scenes: Scenes of the validation set, evenly spaced, at least 1.
        val_targets: Target views of each of them, at least 1.
        context: Position of the input view in validation, from 0, in the natural order of the views' names; or a list
            of several.
        num_workers: Loader processes per rank; 0 loads in the training process. The order of the data does not depend
            on it.
        mirror: Train on mirror images too, each scene as a whole.
        permute_colors: Train with permuted color channels too, each scene as a whole.
        on_error: At a scene that cannot be read "stop", or "skip" it: it is named and counted, and another one stands
            in for it.
        cache: Folder on this node for copies of shards that lie elsewhere (URLs and pipes).
        cache_gb: Size of that folder at most, in 10^9 bytes; it must hold the whole data set.
    """

    train_folder: str
    targets: int

    def __init__(
        self,
        train: str | list[str],
        val: str | list[str] | None = None,
        hold_out: Count | list[Count] = 0,
        families: list[Path] | Path | None = None,  # the other way round, a list would be dumped as one text
        part: tuple[Count, AtLeastOne] = (0, 1),
        held_out_views: tuple[ViewNumber, ...] = (),
        batch_size: AtLeastOne = 8,
        targets: AtLeastOne = 4,
        contexts: NumberOrRange = 1,
        val_scenes: AtLeastOne = 8,
        val_targets: AtLeastOne = 4,
        context: InputViews = 0,
        num_workers: Count = 1,
        mirror: bool = False,
        permute_colors: bool = False,
        on_error: OnError = "stop",
        cache: Path | None = None,
        cache_gb: Positive = 100.0,
    ):
        super().__init__()
        low, high = (contexts, contexts) if isinstance(contexts, int) else contexts
        if low > high:
            raise UserError(f"data.contexts is [{low}, {high}]: give the fewest input views first")
        if part[0] >= part[1]:
            raise UserError(f"data.part is {list(part)}: give the number of the part, from 0, and how many there are")
        self.part = part
        self.contexts, self.most_contexts = contexts, max(high, len(input_views(context)))
        self.train_folders, self.val_folders, self.families = listed(train), listed(val), listed(families)
        self.train_folder, self.hold_out = ", ".join(self.train_folders), listed(hold_out)
        if len(self.hold_out) not in (1, len(self.train_folders)):
            raise UserError(f"data.hold_out has {len(self.hold_out)} numbers: give one, or one for each of data.train")
        self.held_out_views = frozenset(held_out_views)
        self.batch_size, self.targets = batch_size, targets
        self.val_scenes, self.val_targets, self.context = val_scenes, val_targets, context
        self.num_workers, self.on_error = num_workers, on_error
        self.augment = Augmentation(mirror, permute_colors)
        self.mirrors, self.augments = mirror, mirror or permute_colors
        self.cache = Cache(Path(cache), round(cache_gb * 1e9)) if cache else None
        self.position = Position()
        self.stream: SceneStream | None = None
        self._camera: InputCamera | None = None

    def setup(self, stage: str) -> None:
        """Read the tables of contents; damaged folders are refused here, before anything is trained."""
        indices = [self._read_index(folder) for folder in self.train_folders]
        self.val_index = joined([self._read_index(folder) for folder in self.val_folders]) if self.val_folders else None
        if stage == "fit" and (self.trainer is None or self.trainer.is_global_zero):
            for text in (text for index in indices for text in overlap(index, self.val_index)):
                complain(text, "warning")
        families = read_families(*self.families)
        if any(self.hold_out) and not self.val_folders:
            counts = self.hold_out * (len(indices) if len(self.hold_out) == 1 else 1)
            indices, self.val_index = held_out(indices, counts, families)
        if self.part[1] > 1:
            indices = parted(indices, *self.part, families)
        self.train_index = joined(indices)
        self.identity = identity(self.keys)
        self.faults = {
            stage: Faults(index) for stage, index in (("train", self.train_index), ("val", self.val_index)) if index
        }
        remote = [index for index in (self.train_index, self.val_index) if isinstance(index, CachedIndex)]
        if remote and self.cache:
            self.cache.refuse_too_small(remote)

    def _read_index(self, source: str) -> ShardIndex:
        if is_remote(str(source)):
            if self.cache is None:
                raise UserError(
                    f"{source}: shards that lie elsewhere need a cache: give data.cache FOLDER (of this node),"
                    " data.cache_gb"
                )
            return self.cache.index(source)
        index = read_index(source, check=self.on_error == "stop")
        if self.on_error == "skip":
            check_shards(index, say=self.trainer is None or self.trainer.is_global_zero)
        return index

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.train_index.image_size

    @property
    def keys(self) -> list[str]:
        """See :meth:`SceneDataModule.keys`."""
        return [entry.key for _, entry in self.train_index.samples]

    def input_camera(self) -> InputCamera:
        """See :meth:`SceneDataModule.input_camera`: that of the first scene."""
        if self._camera is None:
            numbers = range(len(self.train_index.samples))
            first = next((n for n in numbers if not fault_in(self.train_index, n)), 0) if self.on_error == "skip" else 0
            self._camera = InputCamera.typical(self.train_index.read(first))
        return self._camera

    def train_dataloader(self) -> DataLoader[Example]:
        """Endless; stop by ``trainer.max_steps`` or ``trainer.max_time``."""
        self.stream = stream = SceneStream(
            self.train_index,
            self.batch_size,
            self.targets,
            run_seed(),
            self.position,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.augment,
            self.on_error,
            self.contexts,
            self.held_out_views,
        )
        atexit.unregister(end_loader_processes)
        atexit.register(end_loader_processes)
        return DataLoader(
            stream, batch_size=None, num_workers=self.num_workers, worker_init_fn=leave_signals_to_the_trainer
        )

    def val_dataloader(self) -> DataLoader[Example] | list[Any]:
        """One scene per batch, the same scenes every time, whatever the number of ranks they are dealt out to."""
        if self.val_index is None:
            return []
        ranks = self.trainer.global_rank, self.trainer.world_size
        scenes = FixedScenes(
            self.val_index, self.val_scenes, self.val_targets, self.context, *ranks, on_error=self.on_error
        )
        return DataLoader(scenes, batch_size=None)

    def commit(self, position: Position) -> None:
        """Note that all before ``position`` has been trained on. Each of Lightning's epochs
        (``trainer.limit_train_batches``) begins here, with a new iterator, and what loader processes had prepared
        beyond comes again."""
        self.position = position
        if self.stream is not None:
            self.stream.start = position

    def note_skipped(self, stage: str, scenes: Mapping[str, str]) -> None:
        """See :meth:`SceneDataModule.note_skipped`."""
        self.faults[stage].add(scenes)

    def state_dict(self) -> dict[str, Any]:
        """Where the run is in which data; Lightning stores this in the checkpoint."""
        return {
            **self.position._asdict(),
            "seed": run_seed(),
            "data": self.identity,
            "ranks": self.trainer.world_size,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; Lightning calls this between ``setup`` and the loaders. Commands other than fit may read
        any data.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        here = self.state_dict()
        self.position = resume_position(state, here, len(self.train_index.samples))
        then, now = (f"{x['ranks']} rank(s) x {x['batch_size']} scenes" for x in (state, here))
        if then != now:
            rank_zero_info(
                f"going on with {now} instead of {then}: the order of scenes stays, the noise is not that of an"
                " undisturbed run"
            )


def listed(value: T | list[T] | None) -> list[T]:
    """What an option that takes one or several was given."""
    return [] if value is None else value if isinstance(value, list) else [value]


def leave_signals_to_the_trainer(worker: int) -> None:
    """For loader processes: SLURM signals every process of a job step, and SIGUSR1 or SIGTERM would kill those that do
    not expect it.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_loader_processes() -> None:
    """For the end of the program. After an error loaders may still be open; Python would ask their processes to end by
    the very signal that they ignore, and wait for them for ever. Registered after Python's own such function, so called
    before it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report an error: a loader process has died
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
