"""The example plug-ins of examples/plugins, which lie outside the package: named in YAML files, trained, used."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scenes import png
from small_distillation import make_folder
from small_evaluation import PROTOCOL, SETTINGS, gray_shards, run
from vcgen import plugins
from vcgen.checkpoints.build import build_system
from vcgen.cli.main import main
from vcgen.data.shards.files import read_index
from vcgen.errors import UserError
from vcgen.evaluation.results import load_results
from vcgen.metrics.base import Metric
from vcgen.training import fit
from vcgen.types import Field

EXAMPLES = Path("examples/plugins").resolve()


@pytest.fixture
def unimported(monkeypatch):
    """Nothing knows the package yet; afterwards it is forgotten."""
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place).resolve() != EXAMPLES])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "vcgen_examples"]:
        del sys.modules[name]
    gc.collect()  # parsers ask the base classes for all that derives from them


@pytest.fixture
def importable(unimported, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_each_plug_in_takes_less_than_60_lines():
    files = sorted((EXAMPLES / "vcgen_examples").glob("*.py"))
    assert len(files) == 6 and all(len(path.read_text().splitlines()) < 60 for path in files)


def test_an_encoder_with_its_field_and_a_prior_train_from_a_config_beside_their_package(unimported, tmp_path):
    words = ["fit", "-c", str(EXAMPLES / "train.yaml"), "--trainer.accelerator", "cpu", "--trainer.max_steps", "2"]
    words += ["--trainer.val_check_interval", "2", "--trainer.default_root_dir", str(tmp_path)]
    fit.run(words)
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    # What a checkpoint names is imported only where the user names the package.
    entry = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["vcgen"]
    with pytest.raises(UserError, match=r"the model class 'vcgen_examples.code_field.CodeEncoder' is none of vcgen's"):
        build_system(entry["class_path"], entry["init_args"])
    system = build_system(entry["class_path"], entry["init_args"], ["vcgen_examples"])
    assert type(system.prior).__name__ == "GaussianPrior"
    assert (
        main(["export", "--checkpoint", str(tmp_path / "checkpoints" / "last.ckpt"), "--out", str(tmp_path / "m")]) == 2
    )


def test_a_guidance_distills_from_a_config_beside_its_package(unimported, tmp_path):
    model = make_folder(tmp_path / "model")
    words = ["fit", "-c", str(EXAMPLES / "distill.yaml"), "--trainer.accelerator", "cpu"]
    fit.run([*words, "--trainer.default_root_dir", str(tmp_path / "run"), "--model.model", str(model)])
    assert (tmp_path / "run" / "field" / "model.safetensors").is_file()


def test_a_format_is_found_by_import_path(importable, tmp_path):
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 2, 3] = -2.0
    poses[:, 0, 3] = [0.0, 0.1, 0.2]
    scene = tmp_path / "Robot"
    for part in ("rgb", "pose"):
        (scene / part).mkdir(parents=True)
    np.savetxt(scene / "intrinsics.txt", [[20, 0, 8, 0], [0, 20, 8, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for name, pose in zip(("0_train_0000", "0_train_0001", "2_test_0000"), poses, strict=True):
        (scene / "rgb" / f"{name}.png").write_bytes(png(np.full((16, 16, 3), 90, np.uint8)))
        np.savetxt(scene / "pose" / f"{name}.txt", pose)
    words = [str(tmp_path), str(tmp_path / "out"), "--near", "1", "--far", "3"]
    assert main(["data", "pack", "vcgen_examples.nsvf.Nsvf", *words, "--background", "white"]) == 0
    (record,) = [read_index(tmp_path / "out").read(0)]
    assert record.views == ["0_train_0000", "0_train_0001"] and record.source == "nsvf"
    np.testing.assert_allclose(record.K[0], [[1.25, 0, 0.5], [0, 1.25, 0.5], [0, 0, 1]])
    np.testing.assert_allclose(record.c2w, poses[:2])


def test_a_metric_is_a_column_with_its_definition(importable, tmp_path):
    metric = plugins.find(Metric, "vcgen_examples.gmsd.Gmsd", "vcgen.metrics")
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    assert metric(images, images).tolist() == [0.0, 0.0]
    assert 0 < float(metric(images, images.flip(-1))[0]) < 0.5
    settings = SETTINGS.__class__(**{**vars(SETTINGS), "further": (metric,)})
    results, _ = run(gray_shards(tmp_path / "shards"), tmp_path / "out", protocol=PROTOCOL, settings=settings)
    assert results.metrics[-1] == "gmsd" and "Prewitt" in results.definitions["gmsd"]
    assert load_results(tmp_path / "out").column("gmsd").decimals == 4
    assert "| GMSD ↓ |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gmsdd", "there is no Metric 'gmsdd'"),
        ("nowhere.Gmsd", "No module named 'nowhere'; is its package installed, or its folder in PYTHONPATH?"),
        ("vcgen_examples.gmsd.C", "is no class that derives from vcgen.metrics.base.Metric"),
        ("vcgen.metrics.base.Metric", "is no class that derives from vcgen.metrics.base.Metric and has all"),
    ],
)
def test_what_is_no_plug_in_is_refused_in_one_line(importable, name, words):
    with pytest.raises(UserError) as error:
        plugins.find(Metric, name, "vcgen.metrics")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_short_names_are_entry_points(importable, tmp_path, monkeypatch):
    """As an installed package registers them."""
    import tomllib

    groups = tomllib.loads((EXAMPLES / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "vcgen_examples-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vcgen-examples\nVersion: 0.1.0\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in named.items())
        for group, named in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.names("vcgen.formats") == ["nsvf"]
    assert plugins.find(Metric, "gmsd", "vcgen.metrics").name == "gmsd"


def test_the_example_field_satisfies_the_protocol(importable):
    from vcgen_examples.code_field import CodeField

    field = CodeField(torch.zeros(1, 4), torch.nn.Linear(28, 4), torch.zeros(1, 3), torch.ones(1))
    density, color = field(torch.rand(1, 5, 3), torch.rand(1, 5, 3))
    assert isinstance(field, Field) and density.shape == (1, 5) and color.shape == (1, 5, 3)
