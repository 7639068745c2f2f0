"""What a layout of posed images is to ``vcgen data pack``."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

from vcgen.data.formats.scene import SceneFolder, Settings
from vcgen.data.shards.record import SceneRecord

#: A format's own kinds of scenes on disk and of settings, which may say more.
Scene = TypeVar("Scene", bound=SceneFolder)
Own = TypeVar("Own", bound=Settings)


class SceneFormat(ABC, Generic[Scene, Own]):
    """Finds the scenes of a data set and reads them, one by one, in any process.

    ``vcgen data pack`` makes a command of it: the docstring of the class is the help, and what its settings have beyond
    :class:`Settings`, fields that are keyword-only and have defaults, are options of its own, explained there under
    ``Args:``, where the options that all formats share may be explained anew.

    Poses leave it camera-to-world with OpenCV axes (x right, y down, z forward), intrinsics normalized by the image's
    size. :func:`vcgen.data.formats.scene.make_record` makes the record, and checks it.
    """

    #: Name that is stored with every scene unless another is given.
    name: ClassVar[str]
    #: Ray bounds from the camera, Euclidean, in stored units, unless others are given; None: they must be given.
    near: ClassVar[float | None] = None
    far: ClassVar[float | None] = None
    #: Whether they need not be given, since the data tells: :meth:`Settings.within`.
    tells_bounds: ClassVar[bool] = False
    #: What lies behind the object in images without transparency.
    background: ClassVar[Literal["white", "black", "none"]] = "none"
    #: Its kind of settings.
    settings: ClassVar[type[Settings]] = Settings

    @abstractmethod
    def list_scenes(self, source: Path, settings: Own) -> list[Scene]:
        """The scenes below ``source``. Raises UserError for none."""

    @abstractmethod
    def read_scene(self, scene: Scene, settings: Own) -> SceneRecord:
        """One scene. Raises UserError that says which file is missing or wrong."""
