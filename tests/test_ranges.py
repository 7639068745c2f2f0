"""Every number in a configuration has a range, and what lies outside of it is refused in one line by the option's full
name.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isabstract
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import lightning.pytorch as pl
import pytest
from msgspec import Meta

from training import refusal, vcgen
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.errors import UserError
from vcgen.schema import AtLeastOne, NotNegative, Unit, check_levels, check_options, is_bounded
from vcgen.systems.base import System
from vcgen.systems.distillation.loop import DistillOptions
from vcgen.training.fit import STANDING
from vcgen.training.ranges import check_pair, check_ranges


def below(kind: type) -> set[type]:
    """A class of vcgen and those derived from it."""
    return {kind} | {
        one for child in kind.__subclasses__() if child.__module__.startswith("vcgen.") for one in below(child)
    }


def parts(hint: Any) -> Iterator[Any]:
    """An annotation and what it is made of, but for what is bounded."""
    if not hasattr(hint, "__metadata__"):
        yield hint
        for part in get_args(hint):
            yield from parts(part)


def configurable() -> set[type]:
    """All classes of vcgen that a configuration can name, or fill in."""
    found, waiting = set(), [*below(System), *below(pl.LightningDataModule), *STANDING.values()]
    while waiting:
        kind = waiting.pop()
        if kind in found or not kind.__module__.startswith("vcgen.") or "__init__" not in dir(kind):
            continue
        found.add(kind)
        for hint in get_type_hints(kind.__init__, include_extras=True).values():
            waiting += [
                one
                for part in parts(hint)
                if isinstance(part, type) and part.__module__.startswith("vcgen.")
                for one in below(part)
            ]
    return {kind for kind in found if not isabstract(kind)}


#: Checked by the classes themselves, with words of their own.
OWN_WORDS = {
    ("SceneData", "scene"),
    ("PhotoData", "elevation"),
    ("PhotoData", "fov"),
    ("PromptData", "elevation"),
    ("PromptData", "fov"),
    ("PixelNerf", "radius"),
    ("PhotoAugmentation", None),
}


def test_every_number_of_every_class_has_a_range():
    classes = configurable()
    assert {"NerfDiff", "ViewPrior", "HashGrid", "NGD", "LoRA", "PhotoData", "RealFusionOptions", "EMA"} <= {
        kind.__name__ for kind in classes
    }
    free = {
        (kind.__name__, name)
        for kind in classes
        for name, hint in get_type_hints(kind.__init__, include_extras=True).items()
        if {int, float} & set(parts(hint)) and not {(kind.__name__, name), (kind.__name__, None)} & OWN_WORDS
    }
    assert free == set()


@dataclass(frozen=True)
class Inner:
    """Options inside of others."""

    count: AtLeastOne = 1
    rates: tuple[Unit, Unit] = (0.0, 1.0)


class Outer:
    """Stands in for a class of vcgen."""

    def __init__(
        self,
        side: AtLeastOne = 1,
        rate: NotNegative | None = None,
        weights: dict[str, NotNegative] = {},
        widths: list[AtLeastOne] = [1],
        inner: Inner = Inner(),
        free: float = 0.0,
        name: str = "",
        child: Any = None,
    ): ...


Inner.__module__ = Outer.__module__ = "vcgen.test"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (dict(side=0), "model.side: expected int >= 1; not 0"),
        (dict(side=True), "model.side: expected int, got bool; not True"),
        (dict(rate=-0.5), "model.rate: expected float >= 0.0; not -0.5"),
        (dict(free=float("nan")), "model.free must be finite, not nan"),
        (dict(rate=float("inf")), "model.rate must be finite, not inf"),
        (dict(weights={"rgb": -1.0}), "model.weights.rgb: expected float >= 0.0; not -1.0"),
        (dict(widths=[3, 0]), "model.widths[1]: expected int >= 1; not [3, 0]"),
        (dict(inner={"count": 0}), "model.inner.count: expected int >= 1; not 0"),
        (dict(inner={"rates": (0.0, 1.5)}), "model.inner.rates[1]: expected float <= 1.0; not (0.0, 1.5)"),
        (
            dict(child={"class_path": "test_ranges.Outer", "init_args": {"side": -1}}),
            "model.child.side: expected int >= 1; not -1",
        ),
    ],
)
def test_the_option_and_its_range_are_named(arguments, line):
    with pytest.raises(UserError) as error:
        check_ranges(Outer, arguments, "model")
    assert str(error.value) == line


def test_what_lies_in_the_range_is_accepted():
    inner = {"count": 2, "rates": (0.0, 1.0)}
    check_ranges(
        Outer,
        dict(side=1, rate=None, weights={"rgb": 0.0}, widths=[1], inner=inner, free=-1.0, name="x", child=None),
        "model",
    )
    assert is_bounded(list[Annotated[int, Meta(ge=1)]]) and not is_bounded(dict[str, float] | NoneType)


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("data__batch_size", 0, "data.batch_size: expected int >= 1; not 0"),
        ("model__encoder__decoder__hidden", 0, "model.encoder.decoder.hidden: expected int >= 1; not 0"),
        ("model__optimizer__lr", ".nan", "model.optimizer.lr must be finite, not nan"),
        ("samples__every", 0, "samples.every: expected int >= 1; not 0"),
        ("model__encoder__attention", "[true]", "attention has 1 entries, channels 2; give one per level"),
        ("model__encoder__plane_channels", 16, "plane_channels is 16, decoder.channels 8; give the same number"),
        ("model__loss_weights", "{rbg: 1.0}", "model.loss_weights has rbg; the losses are rgb, coarse, denoising"),
        ("data__context", 99, "none is view 99"),
        ("data__contexts", "[0, 2]", "data.contexts[0]: expected int >= 1; not [0, 2]"),
        ("data__contexts", "[1, 2, 3]", "data.contexts: expected array of length <= 2; not [1, 2, 3]"),
    ],
)
def test_the_command_refuses_before_it_trains(config, tmp_path, capsys, option, value, line):
    assert line in refusal(capsys, vcgen("fit", config, tmp_path / "run", **{option: value}))
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            dict(model__prior__size=32),
            "the images have 64 x 64 pixels, model.prior.size is 32: set it, or pack the data with --size 32",
        ),
        (
            dict(model__prior_options__views=2),
            "model.prior_options.views is 2, data.targets 1: the prior denoises target views",
        ),
    ],
)
def test_a_prior_that_does_not_fit_the_data_is_refused(config, tmp_path, capsys, options, words):
    prior = dict(
        model__prior="ViewPrior",
        model__prior__channels="[16, 32]",
        model__prior__attention="[false, true]",
        model__prior__patch=4,
    )
    assert words in refusal(capsys, vcgen("fit", config, tmp_path / "run", **prior, **options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(channels=[]), "channels is empty"),
        (dict(attention=[True]), "attention has 1 entries, channels 2"),
        (dict(channels=[32, 40]), "multiples of 16; 40 is none"),
        (dict(channels=[16, 32]), "needs at least 32 channels, not 16"),
        (dict(channels=[32, 16]), "the last level needs at least 32 channels, not 16"),
        (dict(size=18), "plane_size 18 is no multiple of 4, which 2 levels and patch 2 need; 16 and 20 are"),
        (dict(size=3), "4 is"),
    ],
)
def test_levels_that_do_not_fit_are_refused_with_those_that_do(options, words):
    fitting = dict(name="plane_size", size=16, patch=2, channels=[32, 48], attention=[True, False])
    check_levels(**fitting)
    with pytest.raises(ValueError, match=words):
        check_levels(**fitting | options)


@pytest.mark.parametrize(
    ("system", "data", "takes"),
    [
        ("nerfdiff.NerfDiff", "datamodules.photo.PhotoData", "ShardData or SceneData"),
        ("realfusion.system.RealFusion", "datamodules.shards.ShardData", "PhotoData"),
        ("text_to_3d.system.TextTo3D", "datamodules.photo.PhotoData", "PromptData"),
        ("mesh_refine.system.MeshRefine", "datamodules.photo.PhotoData", "PromptData"),
        ("text2image.TextToImage", "datamodules.photo.PhotoData", "ShardData"),
        ("clip.system.ClipTraining", "datamodules.photo.PhotoData", "ShardData"),
        ("personalize.Personalize", "datamodules.shards.ShardData", "PhotoData"),
        ("distillation.system.Distill", "datamodules.shards.ShardData", "SceneData or ImageData"),
    ],
)
def test_a_stage_says_which_data_it_learns_from(system, data, takes):
    with pytest.raises(UserError, match=f"does not learn from {data.split('.')[-1]}; set data to {takes}$"):
        check_pair(f"vcgen.systems.{system}", f"vcgen.data.{data}")
    check_pair(f"vcgen.systems.{system}", "mine.Data")


def test_a_distillation_with_fewer_rays_than_views_names_both():
    with pytest.raises(ValueError, match=r"options.rays is 3, options.views 16: give at least one ray per view"):
        DistillOptions(views=16, rays=3)


def test_an_input_view_that_some_scene_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"none is view 50.*change data.context"):
        FixedScenes(read_index("data/cars64/test"), scenes=2, targets=1, context=50)


@dataclass
class Options:
    """Of a member that a user adds."""

    name: str = ""
    fractions: tuple[Unit, Unit] | None = None

    def __post_init__(self):
        check_options(self)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ((0.0, 1.5), r"Options.fractions\[1\]: expected float <= 1.0; not \(0.0, 1.5\)"),
        ((math.nan, 0.5), "Options.fractions must be finite"),
        ((0.5,), "Options.fractions: expected array of length 2"),
    ],
)
def test_objects_made_in_python_keep_to_the_ranges_of_their_annotations(value, line):
    assert Options().fractions is None and Options("a", (0, 1.0)).fractions == (0, 1.0)
    with pytest.raises(ValueError, match=f"^{line}"):
        Options(fractions=value)
