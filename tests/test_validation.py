"""Validation on several processes (ranks): exact means over all images, whatever the number of ranks."""

import copy
import zlib
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from ranks import vcgen_ranks
from training import CONFIG, PRIOR, load
from vcgen.checkpoints import model_folder
from vcgen.checkpoints.build import build_system
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.systems.base import Mean

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path):
    """The tiny configuration, with a prior, as a file; it starts from a model folder with random weights."""
    content = yaml.safe_load(CONFIG)
    content["model"]["init_args"] |= {"prior": PRIOR, "prior_options": {"views": 2, "condition_size": 8}}
    content["data"]["init_args"] |= {"val_scenes": 5, "val_targets": 3}
    arguments = copy.deepcopy(content["model"]["init_args"])
    arguments["encoder"]["class_path"] = "vcgen.encoders.triplane.TriplaneEncoder"
    camera = {"focal": 1.0, "distance": 1.3, "elevation": 20.0, "near": 0.8, "far": 1.8}
    model = {
        "class_path": "vcgen.systems.nerfdiff.NerfDiff",
        "init_args": arguments,
        "image_size": [64, 64],
        "camera": camera,
        "background": 1.0,
    }
    model_folder.save(tmp_path / "model", build_system(model["class_path"], arguments).state_dict(), model)
    content["model"]["init_args"]["pretrained"] = str(tmp_path / "model")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# --- validation ---


class Numbers(pl.Callback):
    """Writes the validation's figures, the scenes of this rank, and the weights that were validated."""

    def __init__(self, path: str):
        self.path, self.scenes = path, []

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.scenes.append(batch.keys)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        numbers = {name: value.double() for name, value in trainer.callback_metrics.items()}
        found = {"numbers": numbers, "scenes": self.scenes, "weights": module.state_dict()}
        torch.save(found, f"{self.path}.{trainer.world_size}.{trainer.global_rank}")


def validate(world: int, config: Path, folder: Path, **options) -> list[dict]:
    """What the ranks found in a validation."""
    witness = dict(trainer__callbacks__plus="test_validation.Numbers", trainer__callbacks__path=folder / "found")
    assert vcgen_ranks(world, "validate", config, folder / "run", **options, **witness) == [0] * world
    return [load(folder / f"found.{world}.{rank}") for rank in range(world)]


@torch.no_grad()
def plain_loop(config: Path, weights: dict, scenes: int) -> dict[str, float]:
    """The means over all validation images, one scene after the other."""
    model, data = (yaml.safe_load(config.read_text())[part]["init_args"] for part in ("model", "data"))
    model["encoder"]["class_path"] = "vcgen.encoders.triplane.TriplaneEncoder"
    system = build_system("vcgen.systems.nerfdiff.NerfDiff", model).eval()
    system.load_state_dict(weights)
    psnr, denoising = [], []
    for example in FixedScenes(read_index(ROOT / data["val"]), scenes, data["val_targets"]):
        field = system.field(example.context)
        images = system.render(field, example.target.cameras, (64, 64)).rgb.clamp(0, 1).double()
        for image, truth in zip(images[0], example.target.on(1.0)[0]):
            psnr.append(-10 * np.log10(np.mean((image.numpy() - truth.numpy()) ** 2)))
        noise = torch.Generator().manual_seed(zlib.crc32(example.keys[0].encode()))
        denoising += system.denoising_losses(field, example, noise)[0].tolist()
    return {"val/psnr": np.mean(psnr), "val/denoising": np.mean(denoising)}


@pytest.mark.integration
@pytest.mark.parametrize("scenes", [pytest.param(5, marks=pytest.mark.slow), 2])
def test_validation_is_a_plain_mean_over_all_images_whatever_the_number_of_ranks(config, tmp_path, scenes):
    alone = validate(1, config, tmp_path, data__val_scenes=scenes)[0]
    expected = plain_loop(config, alone["weights"], scenes)
    # the images are float32
    assert {name: float(value) for name, value in alone["numbers"].items()} == pytest.approx(expected, rel=1e-6)
    for world in (2, 3):  # neither divides 5, and 3 ranks are more than 2 scenes
        ranks = validate(world, config, tmp_path, data__val_scenes=scenes)
        assert len({len(rank["scenes"]) for rank in ranks}) == 1
        assert {key for rank in ranks for key in rank["scenes"]} == set(alone["scenes"])
        for rank in ranks:
            # sums in float64, in another order
            assert {n: float(v) for n, v in rank["numbers"].items()} == pytest.approx(
                {n: float(v) for n, v in alone["numbers"].items()}, rel=1e-14
            )


@pytest.mark.parametrize(("scenes", "world"), [(5, 1), (5, 2), (5, 3), (2, 3), (1, 4), (6, 3)])
def test_every_scene_is_validated_once_and_every_rank_takes_as_many(scenes, world):
    index = read_index(ROOT / "data" / "cars64" / "test")
    dealt = [FixedScenes(index, scenes, 1, rank=rank, world=world).dealt for rank in range(world)]
    assert len({len(mine) for mine in dealt}) == 1
    counted = [number for mine in dealt for number, weight in mine if weight]
    assert sorted(counted) == sorted(number for number, _ in FixedScenes(index, scenes, 1).dealt)
    assert all(weight in (0, 1) for mine in dealt for _, weight in mine)


def test_a_repetition_does_not_count_and_a_failed_image_does():
    mean = Mean()
    mean.update(torch.tensor([1.0, 2.0]))
    mean.update(torch.tensor([torch.nan]), weight=0)
    mean.update(torch.tensor(6.0))
    assert float(mean.compute()) == 3
    mean.update(torch.tensor(torch.nan))
    assert mean.compute().isnan()


class Late(pl.Callback):
    """The second process's clock is this far behind the first one's, in seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer._last_val_time += self.seconds * trainer.global_rank


@pytest.mark.integration
def test_processes_validate_together_by_the_clock(tmp_path):
    """The first alone would wait for the second's sums, and the second for the first's gradients."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    options = dict(trainer__val_check_interval="00:00:00:01", trainer__max_time="00:00:00:06", trainer__max_steps=-1)
    late = dict(trainer__callbacks__plus="test_validation.Late", trainer__callbacks__seconds=100)
    assert vcgen_ranks(2, "fit", tmp_path / "tiny.yaml", tmp_path / "run", seconds=60, **options, **late) == [0, 0]
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
