"""The few-shot family by its configurations: each resumes bitwise, is validated alike by one process and two, and steps
as on a GPU, under fake tensors, with no other wait than the rest.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pages import blocks
from ranks import vcgen_ranks
from test_fake_gpu import FINITE, ONCE, FakeGpu, attended, places, step
from training import assert_same_end, last_checkpoint, vcgen

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import memory_systems  # noqa: E402

#: Every configuration of 64 pixels, with what makes a step of it short.
CODES = {"model__encoder__decoder__hidden": 16, "model__encoder__decoder__width": 16}
FAMILY = {
    "srn64": CODES,
    "lfn64": CODES,
    "ibrnet64": {"model__encoder__sampling__samples": 8},
    "lfnr64": {"model__encoder__points": 8},
    "gpnr64": {"model__encoder__points": 8},
    "genvs64": {
        "model__encoder__channels": "[32, 32]",
        "model__encoder__attention": "[false, false]",
        "model__render__samples": 4,
        "model__render_eval__samples": 4,
    },
}
SMALL = {
    "trainer__accelerator": "cpu",
    "trainer__max_steps": 3,
    "trainer__max_time": "null",
    "trainer__val_check_interval": 10,
    "data__train": ROOT / "data" / "cars64" / "test",
    "data__hold_out": 0,
    "data__families": "null",
    "data__val": ROOT / "data" / "cars64" / "test",
    "data__val_scenes": 3,
    "data__val_targets": 1,
    "data__batch_size": 2,
    "data__num_workers": 0,
    "model__rays_per_view": 8,
    "samples__scenes": 0,
}
members = pytest.mark.parametrize("name", FAMILY)


def stopped(configs: list[Path], folder: Path, **options) -> None:
    """A run of three steps, and one that was stopped after two and went on, end bitwise alike."""
    options = SMALL | options | {"trainer__callbacks__plus": "training.Witness"}
    assert vcgen("fit", configs, folder / "whole", **options) == 0
    assert vcgen("fit", configs, folder / "parts", **options, trainer__callbacks__stop=2) == 0
    assert last_checkpoint(folder / "parts")["global_step"] == 2
    assert vcgen("fit", configs, folder / "parts", **options, ckpt_path="last") == 0
    assert_same_end(folder / "whole", folder / "parts")


@pytest.mark.integration
@members
def test_a_stopped_run_goes_on_bitwise_and_two_ranks_validate_as_one(name, tmp_path):
    config = [ROOT / "configs" / f"{name}.yaml"]
    stopped(config, tmp_path, **FAMILY[name])
    scores = []
    for world in (1, 2):
        file = tmp_path / f"{world}.json"
        options = SMALL | FAMILY[name] | {"trainer__precision": "32-true", "ckpt_path": "last"}
        options |= {"trainer__callbacks__plus": "training.Scores", "trainer__callbacks__file": file}
        assert vcgen_ranks(world, "validate", config, tmp_path / "whole", **options) == [0] * world
        scores.append(json.loads(file.read_text()))
    assert scores[0] == pytest.approx(scores[1], abs=1e-5) and "val/psnr" in scores[0]


@pytest.mark.integration
def test_the_codes_that_the_page_writes_are_trained_and_go_on_bitwise(tmp_path):
    (snippet,) = [text for text in blocks(ROOT / "docs" / "fewshot_models.md", "yaml") if "AutoDecoder" in text]
    config = tmp_path / "codes.yaml"
    config.write_text(snippet)
    scenes = yaml.safe_load(snippet)["model"]["init_args"]["encoder"]["init_args"]["scenes"]
    train = yaml.safe_load((ROOT / "configs" / "lfn64.yaml").read_text())["data"]["init_args"]["train"]
    shorter = {name: value for name, value in SMALL.items() if not name.startswith(("data__train", "data__fam"))}
    shorter |= {"data__val": "null", "model__encoder__steps": 2, **CODES}
    stopped([ROOT / "configs" / "lfn64.yaml", config], tmp_path, **shorter, data__train=ROOT / train)
    codes = last_checkpoint(tmp_path / "whole")["state_dict"]["encoder.codes.weight"]
    assert len(codes) == scenes


@pytest.mark.integration
@members
def test_a_step_of_the_configuration_waits_on_a_gpu_for_its_losses_alone(name):
    config = memory_systems.merged(name)
    config["data"]["init_args"] |= {"batch_size": 2, "targets": 1}
    config["model"]["init_args"]["rays_per_view"] = 8
    system, batch = memory_systems.built(name, config)
    with FakeGpu() as gpu, torch.random.fork_rng():
        system, batch = attended(system), batch.to("cuda")
        assert places(gpu, lambda: step(system, batch)) <= {FINITE, ONCE}
