"""The base class of data modules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from vcgen.data.datamodules.stream import OnError
from vcgen.data.input_camera import InputCamera
from vcgen.types import Example, Position


class SceneDataModule(pl.LightningDataModule, ABC):
    """Batches of scenes for training and validation, and what is to be known of all images.

    Batches are of :class:`vcgen.types.Example`.

    Its loaders have ``batch_size=None``: what they yield are batches. Training data is endless, and the order of it a
    function of the seed and the position. on_error: at a scene that cannot be read "stop", or "skip" it: its key is
    then in ``Example.skipped`` of the batch.
    """

    #: What it was given to train on, for provenance: a folder, a file, a URL or a text.
    train_folder: str | Path
    #: Target views of each scene in a training batch; None where their number is not settled.
    targets: int | None = None
    #: The most input views of a scene, in training and validation.
    most_contexts: int = 1
    on_error: OnError = "stop"
    #: Whether a scene may be changed at random and keep its key.
    augments: bool = False
    #: Whether it may be mirrored.
    mirrors: bool = False
    trainer: pl.Trainer  # None until Lightning sets it, before its hooks

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images; known after ``setup``."""

    @property
    def keys(self) -> Sequence[str]:
        """The keys of all training scenes, in stored order; known after ``setup``. Here they have none."""
        return ()

    @abstractmethod
    def input_camera(self) -> InputCamera:
        """The camera to assume of an image without pose; known after ``setup``."""

    @abstractmethod
    def train_dataloader(self) -> DataLoader[Example]:
        """Endless; ends by ``trainer.max_steps`` or ``trainer.max_time``."""

    @abstractmethod
    def val_dataloader(self) -> DataLoader[Example] | list[Any]:
        """Each scene once; [] where there is nothing to validate on."""

    def commit(self, position: Position) -> None:
        """Note that all before ``position`` has been trained on; here there is no position to keep."""

    def note_skipped(self, stage: str, scenes: Mapping[str, str]) -> None:
        """Note scenes, with reasons by key, that "train" or "val" data went on without. Raises UserError for too many;
        here nothing is skipped.
        """
