"""Build a system from data: the class path and arguments in a model folder, a checkpoint, or a distillation's
configuration.

The data may be a stranger's, so it is read and never run. Classes come from a table, or from packages that the user has
named, and each must fit the type that stands at its place in the signature; all other values are checked against their
annotations. Nothing else that the data names is imported, called or opened: see docs/security.md."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import Parameter, isabstract, signature
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from vcgen.errors import UserError
from vcgen.io import levels
from vcgen.terminal import one_line
from vcgen.types import FieldModel

T = TypeVar("T")
#: The user's own packages whose classes files may name, separated by commas.
VARIABLE = "VCGEN_PLUGINS"
#: The classes of vcgen that files may name; where each may stand is decided by the annotations.
CLASSES = (
    "vcgen.systems.nerfdiff.NerfDiff",
    "vcgen.systems.genvs.GeNVS",
    "vcgen.systems.realfusion.system.RealFusion",
    "vcgen.systems.text_to_3d.system.TextTo3D",
    "vcgen.encoders.triplane.TriplaneEncoder",
    "vcgen.encoders.pixelnerf.PixelNerf",
    "vcgen.encoders.epipolar.EpipolarEncoder",
    "vcgen.encoders.ibrnet.IbrNet",
    "vcgen.encoders.image_code.CodeEncoder",
    "vcgen.encoders.auto_decoder.AutoDecoder",
    "vcgen.encoders.light_field.LightFieldDecoder",
    "vcgen.encoders.srn.SrnDecoder",
    "vcgen.encoders.feature_volume.FeatureVolume",
    "vcgen.encoders.scene_triplane.SceneTriplane",
    "vcgen.encoders.scene_hashgrid.SceneHashGrid",
    "vcgen.encoders.scene_voxels.SceneVoxels",
    "vcgen.encoders.scene_shown.ShownScene",
    "vcgen.fields.hashgrid.HashGrid",
    "vcgen.fields.triplane.TriplaneDecoder",
    "vcgen.diffusion.prior.ViewPrior",
    "vcgen.diffusion.feature_prior.FeaturePrior",
    "vcgen.guidance.ngd.NGD",
    "vcgen.guidance.sds.SDS",
    "vcgen.guidance.sjc.SJC",
    "vcgen.guidance.vsd.VSD",
    "vcgen.guidance.clip.ClipGuidance",
)
#: Systems that leave their result in the run's folder: no file may ask to build them.
WITHOUT_FIELD = (
    "vcgen.systems.clip.system.ClipTraining",
    "vcgen.systems.distillation.system.Distill",
    "vcgen.systems.mesh_refine.system.MeshRefine",
    "vcgen.systems.personalize.Personalize",
    "vcgen.systems.text2image.TextToImage",
)
#: More values than the arguments of any model have at one depth.
MOST_VALUES = 10_000


def build_system(class_path: str, init_args: Mapping[str, Any], plugins: Sequence[str] = ()) -> FieldModel:
    """The system, one that makes a field, that ``class_path`` and nested ``{"class_path", "init_args"}`` in
    ``init_args`` describe.

    Starting weights (``pretrained``) are left out: they are paths on the computer that trained. plugins: packages of
    the user's own whose classes may be named, beside those in the variable VCGEN_PLUGINS. Raises UserError in one line
    for any other class, for one that does not fit its place, and for arguments that do not fit."""
    allowed = plugin_names(plugins)
    refuse_foreign({"class_path": class_path, "init_args": init_args}, allowed)
    if class_path in WITHOUT_FIELD:
        raise UserError(f"{class_path.rpartition('.')[2]} makes no field; what it made lies in its run's folder")
    system = class_of(class_path, (FieldModel,), allowed)
    return instantiate(system, without_starting_weights(init_args), allowed)


def instantiate(kind: type[T], arguments: Mapping[str, Any], plugins: Sequence[str] = ()) -> T:
    """An object of a class of ours from plain data. Raises UserError, as :func:`build_system` does."""
    allowed = plugin_names(plugins)
    refuse_foreign(arguments, allowed)
    try:
        return _call(kind, arguments, {}, allowed)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:  # a constructor can fail in any way at values that make no sense
        reason = str(error) or type(error).__name__
        raise UserError(one_line(f"arguments of {kind.__module__}.{kind.__qualname__} do not fit: {reason}")) from error


def plugin_names(named: Sequence[str] = ()) -> tuple[str, ...]:
    """The packages whose classes files may name: those given and those of the environment. Raises UserError for what is
    no package.
    """
    names = [name.strip() for name in (*named, *os.environ.get(VARIABLE, "").split(","))]
    for name in filter(None, names):
        if not name.isidentifier() or name in sys.stdlib_module_names:
            raise UserError(
                one_line(f"--plugins and {VARIABLE} take packages of your own, such as my_encoders; {name!r} is none")
            )
    return tuple(filter(None, names))


def refuse_foreign(data: Any, plugins: Sequence[str]) -> None:
    """Raise UserError unless every ``class_path`` in data, at any depth, may be named; nothing is imported to find
    out.
    """
    try:
        for value in chain.from_iterable(levels(data, MOST_VALUES)):
            if isinstance(value, dict) and "class_path" in value:
                full_name(value["class_path"], plugins)
    except ValueError as error:
        raise UserError(f"a model whose arguments have {error} is none of vcgen's") from error


def full_name(name: Any, plugins: Sequence[str]) -> str:
    """The path of a class that files may name; the last word will do for those of vcgen. Raises UserError for any
    other.
    """
    for path in (*CLASSES, *WITHOUT_FIELD):
        if name in (path, path.rpartition(".")[2]):
            return path
    if isinstance(name, str) and name.count(".") and name.partition(".")[0] in plugins:
        return name
    advice = f"a package of your own may be named if you say so, by --plugins or {VARIABLE} (docs/security.md)"
    raise UserError(one_line(f"the model class {name!r} is none of vcgen's", advice))


def class_of(name: Any, bases: tuple[type, ...], plugins: Sequence[str]) -> type:
    """The class of that name. Raises UserError unless it may be named, is there, and is of one of ``bases``."""
    path = full_name(name, plugins)
    module, _, last = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            one_line(f"the model class {path!r} is not there ({error})", "install the package that has it")
        ) from error
    # Defined there, not merely imported there: a package of the user's vouches for its own classes alone.
    if (
        not isinstance(found, type)
        or found.__module__.partition(".")[0] not in ("vcgen", *plugins)
        or isabstract(found)
    ):
        raise UserError(one_line(f"{path!r} is no class that a model can be made of", "export the model again"))
    if not issubclass(found, bases):
        wanted = " or ".join(base.__name__ for base in bases)
        article = "an" if wanted[0] in "AEIO" else "a"
        raise UserError(
            one_line(f"{path!r} stands where {article} {wanted} belongs, and is none", "export the model again")
        )
    return found


def without_starting_weights(arguments: Any) -> Any:
    """The arguments with every ``pretrained`` set to None: that file gave training its start, and the model must open
    without it.
    """
    if isinstance(arguments, dict):
        return {
            key: None if key == "pretrained" else without_starting_weights(value) for key, value in arguments.items()
        }
    return [without_starting_weights(value) for value in arguments] if isinstance(arguments, list) else arguments


def _call(kind: type[T], arguments: Any, defaults: dict[str, Any], plugins: Sequence[str]) -> T:
    """defaults: values that arguments replace, for a dataclass that a signature already fills in."""
    if not isinstance(arguments, dict):
        raise ValueError(f"{kind.__name__} takes named arguments, not {arguments!r}")
    known = {
        name: p
        for name, p in signature(kind.__init__).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    hints = get_type_hints(kind.__init__, include_extras=True)
    if unknown := [str(name) for name in arguments if name not in list(known)[1:]]:
        raise ValueError(f"{kind.__name__} has no argument {', '.join(unknown)}")
    values = defaults | {
        name: _value(hints.get(name, Any), known[name], value, plugins) for name, value in arguments.items()
    }
    if missing := [name for name, p in list(known.items())[1:] if p.default is Parameter.empty and name not in values]:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    return kind(**values)


def _value(hint: Any, parameter: Parameter, value: Any, plugins: Sequence[str]) -> Any:
    """One argument: an object where its type is a class of ours, else plain data."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    ours = tuple(
        kind for kind in kinds if isinstance(kind, type) and kind.__module__.partition(".")[0] in ("vcgen", *plugins)
    )
    try:
        if not ours or (value is None and NoneType in kinds):
            return _plain(hint, value)
        named = {"class_path": value} if isinstance(value, str) else value
        if isinstance(named, dict) and "class_path" in named:
            if extra := sorted(map(str, named.keys() - {"class_path", "init_args"})):
                raise ValueError(f"class_path and init_args stand alone, without {', '.join(extra)}")
            return _call(class_of(named["class_path"], ours, plugins), named.get("init_args", {}), {}, plugins)
        if isabstract(ours[0]):
            raise ValueError("expected class_path and init_args")
        kept = is_dataclass(ours[0]) and isinstance(parameter.default, ours[0])
        filled = (
            {field.name: getattr(parameter.default, field.name) for field in fields(parameter.default)} if kept else {}
        )
        return _call(ours[0], value, filled, plugins)
    except UserError as error:
        raise type(error)(f"{parameter.name}: {error}") from error.__cause__
    except (TypeError, ValueError) as error:  # msgspec.ValidationError is a ValueError
        raise ValueError(f"{parameter.name}: {error}") from error


def _plain(hint: Any, value: Any) -> Any:
    if any(isinstance(item, dict) and "class_path" in item for item in chain.from_iterable(levels(value))):
        raise ValueError("no class belongs here")
    return msgspec.convert(value, hint, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"a {kind.__name__} cannot be read from a file")
