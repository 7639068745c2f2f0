"""``${oc.env:NAME}`` in configurations: the value is used, and what is stored and printed keeps the interpolation."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, cast

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf import Container, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from vcgen import redaction
from vcgen.checkpoints.build import CLASSES, build_system
from vcgen.errors import UserError
from vcgen.terminal import one_line
from vcgen.training.lightning_private import OpenCLI

ABSENT = object()
#: The first keys of a configuration that jsonargparse puts together for all commands.
COMMANDS = ("fit", "validate")
#: OmegaConf 2.4 calls it by a name that was an older function's before.
register = (
    OmegaConf.register_resolver
    if "replace" in signature(OmegaConf.register_resolver).parameters
    else OmegaConf.register_new_resolver
)


class Interpolations:
    """Which values of a configuration come from the environment.

    written: all places, as keys and list positions -> what was written there; kept: those whose values ask the
        environment.
    """

    def __init__(self) -> None:
        self.written: dict[tuple[str | int, ...], Any] = {}
        self.kept: dict[tuple[str | int, ...], str] = {}
        self._asked = self._inside = False

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Notice, inside, what OmegaConf takes from the environment."""
        register("oc.env", self._value, replace=True)
        try:
            yield
        finally:
            register("oc.env", oc.env, replace=True)

    def put_back(self, value: Any, place: tuple[str | int, ...] = ()) -> Any:
        """A configuration as plain data, or its part at a place, as it may be stored: with the interpolations in place
        of what they gave, and without passwords in addresses."""
        if place in self.kept:
            return self.kept[place]
        if isinstance(value, dict):
            return {key: self.put_back(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.put_back(item, (*place, number)) for number, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        # Others were put together from those, as the path of a checkpoint is. What was written stays, whatever the
        # environment says.
        derived = bool(self.kept) and self.written.get(place) != value
        return redaction.hide_word(value) if derived else redaction.hide_address(value)

    def _value(self, name: str, default: Any = ABSENT, *, _root_: Container) -> Any:
        value: Any = oc.env(name) if default is ABSENT else oc.env(name, default)
        if name in os.environ:
            redaction.remember(value, f"${{oc.env:{name}}}")
            self._asked = True
            if not self._inside:
                self._look_through(_root_)
        return value

    def _look_through(self, root: Container) -> None:
        """Resolve every interpolation by itself, to see which ask the environment."""
        self._inside = True
        for place, text in leaves(OmegaConf.to_container(root, resolve=False)):
            key = place[1:] if place[0] in COMMANDS else place
            self.written[key] = text
            if isinstance(text, str) and "${" in text:
                self._asked = False
                try:
                    value: Any = root
                    for part in place:
                        value = value[part]
                    if OmegaConf.is_config(value):
                        OmegaConf.to_container(value, resolve=True)
                except OmegaConfBaseException:  # said by whoever resolves the whole
                    continue
                if self._asked:
                    self.kept[key] = text
        self._inside, self._asked = False, True


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values of nested plain data that are no containers, with their places."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield place, value
    else:
        for key, item in items:
            yield from leaves(item, (*place, key))


class Parser(LightningArgumentParser):
    """Prints and stores configurations with interpolations of the environment in place of their values, and without
    passwords.
    """

    #: None for the parsers that jsonargparse makes for parts of a configuration: what they print is parsed again.
    interpolations: Interpolations | None = None

    def dump(self, namespace: Namespace, *arguments: Any, skip_link_targets: bool = True, **options: Any) -> str:
        """As YAML; jsonargparse's own. It is asked with ``skip_link_targets=False`` for what is parsed again, which
        stays as it is.
        """
        text = super().dump(namespace, *arguments, skip_link_targets=skip_link_targets, **options)
        if self.interpolations is None or not skip_link_targets:
            return text
        stored = self.interpolations.put_back(content := yaml.safe_load(text))
        if stored == content:
            return text
        header = [line for line in text.splitlines(keepends=True) if line.startswith("#")]
        return "".join([*header, yaml.safe_dump(stored, sort_keys=False)])


class DiscreetCLI(OpenCLI):
    """LightningCLI that stores and prints no value of the environment."""

    def __init__(self, *arguments: Any, **options: Any):
        self.interpolations = Interpolations()
        super().__init__(*arguments, **{"parser_class": Parser, **options})

    def init_parser(self, **options: Any) -> "Parser":
        """Lightning's own, which knows what comes from the environment."""
        parser = cast(Parser, super().init_parser(**options))
        parser.interpolations = self.interpolations
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Lightning's own."""
        with self.interpolations.noticed():
            super().parse_arguments(parser, args)

    def storable(self, config: Any) -> Any:
        """With the interpolations in place of what they gave."""
        return self.interpolations.put_back(config)


def refuse_unstorable(model: dict[str, Any], stored: dict[str, Any]) -> None:
    """Raise UserError where a model that checkpoints describe as ``stored`` could not be built from them, though from
    ``model`` it can.
    """
    if stored == model or model["class_path"] not in CLASSES:
        return
    try:
        with torch.device("meta"):
            build_system(stored["class_path"], stored["init_args"])
    except UserError as error:
        if isinstance(error.__cause__, RuntimeError):  # what is computed while it is built
            return
        advice = "values of the environment are not stored; write this one into the configuration"
        raise UserError(one_line(f"checkpoints could not be exported: {error}", advice)) from error
