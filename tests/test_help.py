"""Every option of every class that a shipped configuration names has a line of help, which `--help` prints."""

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import yaml
from docstring_parser import parse
from lightning.pytorch import LightningDataModule

from vcgen.cli import main as cli
from vcgen.cli.pack import FORMATS
from vcgen.option_types import type_text
from vcgen.schema import AtLeastOne, BelowOne, Positive, Unit
from vcgen.systems.base import System
from vcgen.training import fit
from vcgen.training.callbacks.checkpoints import Checkpoints
from vcgen.training.callbacks.samples import Samples

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def class_paths(node: object) -> Iterator[str]:
    """All class paths of a parsed configuration."""
    if isinstance(node, dict):
        if "class_path" in node:
            yield node["class_path"].rpartition(".")[2]
        for value in node.values():
            yield from class_paths(value)
    elif isinstance(node, list):
        for value in node:
            yield from class_paths(value)


def subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def own_classes(hint: object) -> Iterator[type]:
    """The classes of vcgen in a type hint, and what a user may put in their place."""
    for part in typing.get_args(hint):
        yield from own_classes(part)
    if inspect.isclass(hint) and hint.__module__.startswith("vcgen."):
        yield from (hint, *(c for c in subclasses(hint) if c.__module__.startswith("vcgen.")))


def options(cls: type) -> dict[str, tuple[object, str | None]]:
    """Name -> (type, help) of what its constructor takes."""
    described = {
        p.arg_name: p.description for base in reversed(cls.__mro__) for p in parse(inspect.getdoc(base) or "").params
    }
    hints = typing.get_type_hints(cls.__init__)
    names = [n for n, p in inspect.signature(cls).parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {name: (hints.get(name), described.get(name)) for name in names}


def configurable() -> set[type]:
    """The classes that shipped configurations name, all systems and data modules, and what their options are of."""
    known = {
        c.__name__: c
        for base in (System, LightningDataModule)
        for c in subclasses(base)
        if c.__module__.startswith("vcgen.")
    }
    named = {name for path in CONFIGS for name in class_paths(yaml.safe_load(path.read_text()))}
    found, new = set(), {*known.values(), fit.EMA, Samples, Checkpoints}
    while new:
        found |= new
        new = {inner for cls in new for hint, _ in options(cls).values() for inner in own_classes(hint)} - found
    assert named <= {cls.__name__ for cls in found}, "a configuration names a class that no option's type leads to"
    return {cls for cls in found if not inspect.isabstract(cls)}


@pytest.mark.parametrize("cls", sorted(configurable(), key=lambda cls: cls.__qualname__), ids=lambda cls: cls.__name__)
def test_every_option_has_a_line_of_help(cls):
    assert [name for name, (_, text) in options(cls).items() if not text] == []


@pytest.mark.parametrize("cls", sorted(configurable(), key=lambda cls: cls.__qualname__), ids=lambda cls: cls.__name__)
def test_the_first_line_of_the_help_is_a_sentence(cls):
    """`--help` prints the docstring's first line alone, above the options."""
    assert parse(inspect.getdoc(cls) or "").short_description.endswith(".")


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (AtLeastOne, "int >= 1"),
        (Unit | None, "float in [0, 1] | null"),
        (BelowOne, "float in [0, 1)"),
        (Positive, "float > 0"),
        (tuple[Unit, Unit], "(float in [0, 1], float in [0, 1])"),
        (dict[str, float], "float by name"),
        (list[str], "list of str"),
        (Literal["a", "b"], "a | b"),
        (Path, "Path"),
    ],
)
def test_types_are_printed_in_words(hint, text):
    assert type_text(hint) == text


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (
            ["--help"],
            {"System": "NerfDiff GeNVS RealFusion TextTo3D ClipTraining Distill MeshRefine Personalize TextToImage"},
        ),
        (["--help"], {"SceneDataModule": "ShardData SceneData PhotoData PromptData ImageData"}),
        (
            ["--model.help", "NerfDiff"],
            {
                "Encoder": "AutoDecoder CodeEncoder EpipolarEncoder FeatureVolume IbrNet PixelNerf SceneHashGrid"
                " SceneTriplane SceneVoxels ShownScene TriplaneEncoder",
                "ImagePrior | null": "FeaturePrior ViewPrior",
            },
        ),
        (["--model.help", "TextTo3D"], {"SceneHashGrid | OptimizedScene": "SceneHashGrid SceneVoxels"}),
        (["--model.help", "Distill"], {"Guidance | null": "ClipGuidance NGD SDS SJC VSD"}),
        (["--model", "NerfDiff", "--model.encoder.help", "TriplaneEncoder"], {"TriplaneDecoder": "TriplaneDecoder"}),
        (["--data.help", "ShardData"], {}),
    ],
    ids=lambda value: " ".join(value),
)
def test_where_a_class_is_asked_for_the_help_lists_ours_within_80_columns(words, known, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["vcgen"])
    with pytest.raises(SystemExit) as end:
        fit.run(["fit", *words])
    text = capsys.readouterr().out
    assert end.value.code in (0, None)
    # Placeholders in usage, and what the parser says of linked options, cannot be broken.
    lines = text.split("\n\n", 1)[1].splitlines()
    assert [line for line in lines if len(line) > 80 and "[-" not in line and "-->" not in line] == []
    flat = " ".join(text.split())
    for kind, names in known.items():
        asked = rf"type: {re.escape(kind)}(?: \| null)?, (?:default: null, )?known subclasses"
        listed = re.search(asked + r": ([^)]*)\)", flat)
        assert listed, f"no option asks for {kind}"
        paths = listed[1].split(", ")  # other tests may have made classes of their own
        assert not any(path.startswith(("torch.", "lightning.", "diffusers.")) for path in paths)
        assert {path.rpartition(".")[2] for path in paths if path.startswith("vcgen.")} == set(names.split())


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if cli.COMMANDS[name][0] != cli.TRAINER])
def test_every_option_of_every_command_has_a_line_of_help(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    forms = {"data pack": [form.name for form in FORMATS], "data synthesize": ("cars", "objects")}.get(name, ("",))
    for form in forms:
        with pytest.raises(SystemExit):
            cli.main([*name.split(), *form.split(), "--help"])
        text = capsys.readouterr().out
        assert [line for line in text.splitlines() if len(line) > 80 and "[--" not in line] == []
        body = re.split(r"\n(?:options|positional arguments|[^\n]*):\n", text, maxsplit=1)[-1]
        bare = [
            line.split()[0]
            for line, following in zip(body.splitlines(), [*body.splitlines()[1:], ""], strict=True)
            if re.match(r"  -", line) and not re.search(r"\S  +\S", line.strip()) and not following.startswith(" " * 8)
        ]
        assert bare == []
