"""Every shipped configuration is parsed and trains two steps, as it is or with a smaller model where that would take minutes on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from scenes import looking_inwards, make_record, noise, png
from training import load, vcgen

from vcgen.data.shards import write_shards

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
#: What does not change which parts of a configuration are used, only how much they work.
SMALLER = {
    "nerfdiff": {
        "model__encoder__channels": "[32, 32, 32, 32]", "model__encoder__layers": 1, "model__encoder__plane_channels": 8,
        "model__encoder__decoder__channels": 8, "model__render__samples": 4, "model__render_eval__samples": 4, "model__rays_per_view": 16,
    },
    "pixelnerf64": {
        "model__render__samples": 8, "model__render__importance": 4, "model__render__around_depth": 4, "model__rays_per_view": 16,
        "data__batch_size": 1, "samples__scenes": 0,
    },
    "one_scene": {"model__encoder__plane_size": 32, "model__render_eval__samples": 8, "model__render_eval__importance": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A shard folder for configurations whose data is not bundled: 8 scenes of 80 opaque views, 128 px, of a scene within distance 2."""
    views, size = 80, (128, 128)
    picture = png(noise(0, *size, channels=3))
    records = [
        make_record(
            f"scene{i}", views, images=[picture] * views, size=size, c2w=looking_inwards(views, distance=4, seed=i), t_near=2.0, t_far=6.0,
            K=np.tile(np.array([[1.2, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]), (views, 1, 1)), background="white",
        )
        for i in range(8)
    ]  # fmt: skip
    return write_shards(records, tmp_path_factory.mktemp("data") / "shards", size).folder


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_trains_two_steps(path, generated, tmp_path):
    options = {
        "trainer__accelerator": "cpu", "trainer__devices": 1, "trainer__max_steps": 2, "trainer__max_time": "null",
        "trainer__val_check_interval": 2, "data__val_scenes": 1, "data__val_targets": 1, "samples__turntable": 0, **SMALLER.get(path.stem, {}),
    }  # fmt: skip
    data = yaml.safe_load(path.read_text())["data"]["init_args"]
    if not (ROOT / data["train"]).is_dir():
        options |= {"data__train": generated, "data__val": generated}
    assert vcgen("fit", path, tmp_path, **options) == 0
    checkpoint = load(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in checkpoint["state_dict"].values())


def test_the_configurations_are_found():
    assert ROOT / "configs" / "cars64.yaml" in CONFIGS
