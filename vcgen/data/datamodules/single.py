"""Data that is one scene, again and again: of a shard folder, or seen by a camera that is assumed."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from vcgen.cameras import focal_from_fov
from vcgen.data.datamodules.base import SceneDataModule
from vcgen.data.datamodules.stream import input_views
from vcgen.data.input_camera import InputCamera
from vcgen.data.shards.files import read_index
from vcgen.data.views import scene_views
from vcgen.errors import UserError
from vcgen.schema import AtLeastOne, InputViews
from vcgen.types import Example


class Same(Dataset[Example]):
    """One example under ``count`` numbers."""

    def __init__(self, example: Example, count: int):
        self.example, self.count = example, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Example:
        return self.example


class OneScene(SceneDataModule):
    """Data that is one batch, ``example``, which ``setup`` makes."""

    example: Example

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.example.context.size

    @property
    def keys(self) -> Sequence[str]:
        """See :meth:`SceneDataModule.keys`."""
        return self.example.keys

    def train_dataloader(self) -> DataLoader[Example]:
        """The scene, endlessly."""
        return DataLoader(Same(self.example, 1 << 40), batch_size=None)

    def val_dataloader(self) -> DataLoader[Example] | list[Any]:
        """The scene, once; nothing where it has no target views."""
        return DataLoader(Same(self.example, 1), batch_size=None) if self.example.target.cameras.shape[1] else []


class AssumedCamera(OneScene):
    """Square views by one camera that is assumed: at azimuth 0 of an orbit about the origin of a z-up world.

    size: side in pixels. elevation, fov: degrees. distance: from the origin in world units. Raises UserError for a
    camera that cannot be.
    """

    def __init__(self, size: int, elevation: float, fov: float, distance: float):
        super().__init__()
        if not -90 < elevation < 90:
            raise UserError(f"data.elevation must lie between -90 and 90 degrees, not {elevation:g}")
        if not (1 <= fov <= 150 and 0 < distance < math.inf):
            raise UserError(
                f"data.fov must lie between 1 and 150 degrees and data.distance above 0, not {fov:g} and {distance:g}"
            )
        self.size, self.elevation, self.distance, self.focal = size, elevation, distance, focal_from_fov(fov)

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Lightning's hook: make ``example`` of (1, n) views by this camera."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.size, self.size

    def input_camera(self) -> InputCamera:
        """The camera. Near and far hold the sphere about the origin that reaches the corners of the frame."""
        return InputCamera.framing(self.focal, self.distance, self.elevation)


class SceneData(OneScene):
    """One scene of a shard folder: one view or several are the input, others are validated on.

    Args:
        shards: Shard folder (``vcgen data pack``).
        scene: Key of the scene, or its number from 0.
        context: Position of the input view, from 0; or a list of several.
        val_targets: Number of the other views that are validated on, at most, evenly spaced.
    """

    def __init__(self, shards: Path, scene: str | int = 0, context: InputViews = 0, val_targets: AtLeastOne = 8):
        super().__init__()
        self.train_folder, self.scene, self.val_targets = shards, scene, val_targets
        self.context = input_views(context)
        self.most_contexts = len(self.context)

    def setup(self, stage: str) -> None:
        """Read the scene. Raises UserError when it is not there."""
        index = read_index(self.train_folder)
        keys = [entry.key for _, entry in index.samples]
        number = (
            keys.index(self.scene)
            if self.scene in keys
            else int(self.scene)
            if str(self.scene).isdecimal()
            else len(keys)
        )
        if number >= len(keys):
            raise UserError(
                f"{self.train_folder}: no scene {self.scene!r}; it has {len(keys)}, from {keys[0]} to {keys[-1]}"
            )
        self.record = index.read(number)
        count = len(self.record.views)
        if (last := max(self.context)) >= count:
            raise UserError(f"scene {self.record.key} has views 0 to {count - 1}, no view {last}; change data.context")
        others = [i for i in range(count) if i not in self.context]
        targets = [others[i * len(others) // self.val_targets] for i in range(min(self.val_targets, len(others)))]
        views, inputs = scene_views(self.record, [*self.context, *targets])[None], len(self.context)
        self.example = Example(views[:, :inputs], views[:, inputs:], (self.record.key,))

    def input_camera(self) -> InputCamera:
        """See :meth:`SceneDataModule.input_camera`: that of the scene."""
        return InputCamera.typical(self.record)
