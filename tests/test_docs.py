"""The documentation says what the program does: commands parse, Python runs."""

import argparse
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pages import PAGES, ROOT, blocks
from prior_folder import entry
from text_folder import tiny_folder
from vcgen.cameras import orbit, pinhole
from vcgen.checkpoints import model_folder as folder
from vcgen.checkpoints.build import build_system
from vcgen.cli import main as cli
from vcgen.cli.pack import FORMATS
from vcgen.diffusion.text_prior import TextPrior
from vcgen.personalization.textual_inversion import TextualInversion

#: Where files that a command reads must be in the repository; everything else is the reader's, or written by another
#: command.
SHIPPED = ("configs/", "data/cars64", "data/pretrained", "benchmarks/", "slurm/")
#: Stands for a configuration that the reader has.
OWN_CONFIG = "configs/cars64.yaml"
#: Marks the line that explains a command's form.
PLACEHOLDER = "FORMAT"


class Parsed(BaseException):
    """Raised where a command has understood its arguments and would start to work."""


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command line in the page's bash and indented blocks; backslashes joined, comments and
    redirections dropped.
    """
    indented = re.findall(r"^    ((?:vcgen|make) (?:.*\\\n)*.*)$", page.read_text(), re.MULTILINE)
    for block in [*blocks(page, "bash"), *(text for text in indented if PLACEHOLDER not in text)]:
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r" && | > \S+", line):
                if words := shlex.split(command, comments=True):
                    yield [
                        OWN_CONFIG if word.endswith(".yaml") and not word.startswith("configs/") else word
                        for word in words
                    ]


def is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the program would start to work: its own parser takes the words (read from the repository's root)."""

    def and_stop(parse):
        def parse_only(parser, *args, **kwargs):
            parse(parser, *args, **kwargs)
            raise Parsed

        return parse_only

    with monkeypatch.context() as patch:
        patch.setattr(jsonargparse.ArgumentParser, "parse_args", and_stop(jsonargparse.ArgumentParser.parse_args))
        patch.setattr(argparse.ArgumentParser, "parse_args", and_stop(argparse.ArgumentParser.parse_args))
        patch.setattr("sys.argv", ["vcgen"])
        patch.chdir(ROOT)
        try:
            cli.main(words)
        except Parsed:
            return True
        except SystemExit as end:
            return end.code in (0, None)  # --help, --print_config
    return False


ALL_COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    ("page", "words"), ALL_COMMANDS, ids=lambda value: " ".join(value)[:70] if isinstance(value, list) else value.stem
)
def test_commands_are_understood_by_the_program(page, words, monkeypatch):
    assert [word for word in words if word.startswith(SHIPPED) and not (ROOT / word).exists()] == []
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {words[1]}"
    if words[0] == "vcgen":
        assert is_understood(words[1:], monkeypatch)
    if "slurm/fit.sbatch" in words:
        assert is_understood(["fit", "-c", *words[words.index("slurm/fit.sbatch") + 1 :]], monkeypatch)


@pytest.mark.parametrize("page", ["training.md", "distillation.md"])
def test_the_command_of_joint_training_trains_both_on_the_bundled_data(page, monkeypatch, capsys):
    wanted = [
        words
        for words in commands(ROOT / "docs" / page)
        if "configs/cars64_prior.yaml" in words and "--model.train_field" in words
    ]
    assert len(wanted) == 1
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["vcgen"])
    with pytest.raises(SystemExit) as end:
        cli.main([*wanted[0][1:], "--print_config"])
    assert end.value.code in (0, None)
    shown = yaml.safe_load(capsys.readouterr().out)
    model = shown["model"]["init_args"]
    assert (
        model["train_field"] is True
        and model["prior"]["class_path"].endswith("ViewPrior")
        and model["pretrained"] is None
    )
    assert model["loss_weights"] == {"rgb": 1.0, "coarse": 1.0, "denoising": 1.0}
    assert (
        shown["data"]["init_args"]["train"] == "data/cars64/train"
        and shown["trainer"]["default_root_dir"] == "outputs/joint"
    )
    alone = yaml.safe_load((ROOT / "configs" / "cars64.yaml").read_text())["model"]["init_args"]
    assert (
        alone["prior"] is None
        and model["encoder"]["init_args"]["channels"] == alone["encoder"]["init_args"]["channels"]
    )


@pytest.mark.parametrize(
    "line",
    [
        "export --checkpoint a --output b",
        "data pack srn a b --sizes 64",
        "evaluate --model a --data b --protocol c --out d --shard",
        "fit -c configs/cars64.yaml --data.trian x",
        "fit -c configs/absent.yaml",
        "render --model a --image b",
    ],
)
def test_a_wrong_command_would_be_noticed(line, monkeypatch, capsys):
    assert not is_understood(line.split(), monkeypatch)


def test_the_pages_show_every_command():
    shown = {" ".join(words[1:]) for _, words in ALL_COMMANDS if words[0] == "vcgen"}
    assert [name for name in cli.COMMANDS if not any(line.startswith(name) for line in shown)] == []


def test_flags_named_in_the_text_exist(capsys):
    named = {flag for page in PAGES for flag in re.findall(r"`--([\w-]+)[^`]*`", page.read_text())}
    assert {"scale", "skip-broken", "threshold"} <= named
    for line in (
        *cli.COMMANDS,
        *(f"data pack {form.name}" for form in FORMATS),
        *(f"data synthesize {name}" for name in ("cars", "objects")),
    ):
        with pytest.raises(SystemExit):
            cli.main([*line.split(), "--help"])
    known = set(re.findall(r"--([\w.]+)", capsys.readouterr().out))
    assert {flag for flag in named if flag.replace("-", "_") not in known} == set()


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder with a small model where the pages suppose one, and an image of a red disc."""
    about = entry() | {"background": 1.0}
    model = build_system(about["class_path"], about["init_args"])
    folder.save(tmp_path / "outputs" / "demo" / "model", model.state_dict(), about, model.prior)
    y, x = np.mgrid[:48, :48] - 23.5
    disc = np.where((x**2 + y**2 < 400)[..., None], [200, 30, 30, 255], [0, 0, 0, 0]).astype(np.uint8)
    Image.fromarray(disc).save(tmp_path / "car.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.integration
def test_the_python_of_the_inference_page_renders_samples_and_writes_a_mesh(workplace):
    poses = orbit(torch.tensor([0.0, 90.0]), torch.full((2,), 20.0), 1.3, pinhole(1.0), 0.8, 1.8)
    files = {"c2w": poses.c2w.tolist(), "K": poses.K.tolist(), "views": ["front", "left"]}
    (workplace / "cameras.json").write_text(json.dumps(files))
    for name in files["views"]:
        (workplace / f"{name}.png").write_bytes((workplace / "car.png").read_bytes())
    names: dict = {}
    for block in blocks(ROOT / "docs" / "inference.md", "python"):
        exec(compile(block, "docs/inference.md", "exec"), names)
    assert Image.open(workplace / "car_from_the_right.png").size == (128, 128)
    assert (workplace / "car.glb").read_bytes()[:4] == b"glTF"
    assert names["density"].shape == (1, 1) and names["view"].depth.shape == (2, 1, 128, 128)
    assert names["images"].shape == (2, 3, 16, 16) and len(names["schedule"].alphas_cumprod) == 1000
    assert names["unet"].config.sample_size == 16 and names["views"].images.shape == (1, 2, 3, 16, 16)


def test_the_python_of_the_distillation_page_samples(workplace):
    (workplace / "outputs" / "demo").rename(workplace / "outputs" / "cars64_prior")
    names: dict = {}
    for block in blocks(ROOT / "docs" / "distillation.md", "python"):
        exec(compile(block, "docs/distillation.md", "exec"), names)
    assert names["images"].shape == (4, 3, 16, 16)


def test_the_python_of_the_personalization_page_draws_what_was_learned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prior, method = (
        TextPrior.load(tiny_folder(tmp_path / "data" / "pretrained" / "toys64")),
        TextualInversion(initial="car"),
    )
    method.attach(prior, torch.zeros(1, 3, 16, 16))
    (tmp_path / "outputs" / "textual_inversion").mkdir(parents=True)
    method.save(prior, tmp_path / "outputs" / "textual_inversion")
    names: dict = {}
    for block in blocks(ROOT / "docs" / "personalization.md", "python"):
        exec(compile(block, "docs/personalization.md", "exec"), names)
    assert names["images"].shape == (1, 3, 16, 16) and names["phrase"] == "<e>"


@pytest.mark.integration
def test_the_loop_over_photos_makes_a_word_and_a_scene_of_each_and_passes_over_one_that_is_refused(tmp_path):
    """The page's own loop in bash, with a vcgen that notes what it is told; a small prior and few steps do it, in this
    process.
    """
    (loop,) = (block for block in blocks(ROOT / "docs" / "realfusion.md", "bash") if "for photo in" in block)
    (tmp_path / "photos").mkdir()
    for name, color in (("a red car", (200, 30, 30, 255)), ("nothing", (0, 0, 0, 0)), ("sea", (30, 30, 200, 255))):
        Image.fromarray(np.pad(np.full((20, 30, 4), color, np.uint8), ((9, 9), (9, 9), (0, 0)))).save(
            tmp_path / "photos" / f"{name}.png"
        )
    note = 'vcgen() { printf "%s\\t" "$@" >> told; printf "\\n" >> told; [[ "$*" != *nothing* ]]; }\n'
    subprocess.run(["bash", "-c", note + loop], cwd=tmp_path, check=True)
    told = [line.split("\t")[:-1] for line in (tmp_path / "told").read_text().splitlines()]
    assert len(told) == 5  # two of each photo, but one of that which shows no object
    prior = str(tiny_folder(tmp_path / "prior"))
    small = ["--model.prior", prior, "--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--data.size", "16"]
    parts = {
        "TextualInversion": ["--model.method.initial", "car", "--model.images.rows", "0"],
        "RealFusion": [
            "--model.outcome",
            "{frames: 0, mesh_resolution: 0, views: 4}",
            "--model.options.render_size",
            "16",
        ],
    }
    status = []
    for words in told:
        here = [str(tmp_path / word) if word.startswith(("photos/", "outputs/")) else word for word in words]
        own = parts["TextualInversion" if "configs/textual_inversion.yaml" in words else "RealFusion"]
        status.append(cli.main([*here, *small, *own]))
    assert status == [0, 0, 2, 0, 0]
    scenes = [tmp_path / "outputs" / name / "scene" / "views.png" for name in ("a red car", "sea")]
    assert len({path.read_bytes() for path in scenes}) == 2


def test_the_python_of_the_shards_page_reads_a_scene(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for block in blocks(ROOT / "docs" / "shards.md", "python"):
        exec(compile(block, "docs/shards.md", "exec"), names)
    assert names["color"].shape == (2, 3, 64, 64) and names["alpha"].shape == (2, 1, 64, 64)


def test_the_python_of_the_rasterizer_page_draws_with_gradients():
    names: dict = {}
    for block in blocks(ROOT / "docs" / "rasterizer.md", "python"):
        exec(compile(block, "docs/rasterizer.md", "exec"), names)
    assert names["seen"].rgb.shape == names["image"].shape == (3, 3, 64, 64) and 0.3 < names["seen"].alpha.mean() < 0.7
    assert (names["vertices"].grad != 0).any(1).double().mean() > 0.8 and (
        names["texture"].grad != 0
    ).double().mean() > 0.2
