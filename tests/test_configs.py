"""Every shipped configuration of a training is parsed and trains two steps, as it is or smaller where that would take
minutes on a CPU.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from scenes import looking_inwards, make_record, noise, png
from text_folder import tiny_clip, tiny_folder
from training import last_checkpoint, vcgen
from vcgen.checkpoints import model_folder as folder
from vcgen.checkpoints.build import build_system, full_name
from vcgen.data.shards.files import write_shards
from vcgen.diffusion.prior import ViewPrior
from vcgen.training import fit  # noqa: F401  (makes the classes known by short names)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import memory_systems  # noqa: E402

#: What a prior learns from a photo.
PERSONAL = [ROOT / "configs" / f"{name}.yaml" for name in ("textual_inversion", "lora", "dreambooth")]
#: Without stages that start from what another has made: test_distilled.py and test_mesh_refine.py have them.
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").glob("*.yaml")
    if not path.stem.startswith(("distill", "magic3d")) and path not in PERSONAL
)
#: As many codes as there are scenes in ``generated``.
SMALL_CODES = {
    "data__batch_size": 2,
    "data__num_workers": 0,
    "model__encoder__scenes": 8,
    "model__encoder__steps": 2,
    "model__encoder__decoder__hidden": 16,
    "model__encoder__decoder__width": 16,
    "model__rays_per_view": 16,
    "samples__scenes": 1,
}
#: What does not change which parts of a configuration are used, only how much they work.
SMALLER = {
    "nerfdiff": {
        "model__encoder__channels": "[32, 32, 32, 32]",
        "model__encoder__layers": 1,
        "model__encoder__plane_channels": 8,
        "model__encoder__decoder__channels": 8,
        "model__render__samples": 4,
        "model__render_eval__samples": 4,
        "model__rays_per_view": 16,
        "model__prior__channels": "[32, 32, 32, 32]",
        "model__prior__layers": 1,
        "model__prior_options__condition_size": 16,
        "samples__scenes": 1,
    },
    "ibrnet64": {"data__batch_size": 1, "model__rays_per_view": 16, "samples__scenes": 0},
    "ibrnet": {
        "model__encoder__sampling": "{samples: 4, importance: 4, sources: 10}",
        "model__encoder__widths": "[16, 16, 16]",
        "model__encoder__blocks": "[1, 1, 1]",
        "model__encoder__features": 4,
        "model__rays_per_view": 16,
        "samples__scenes": 0,
    },
    "pixelnerf64": {
        "model__render__samples": 8,
        "model__render__importance": 4,
        "model__render__around_depth": 4,
        "model__rays_per_view": 16,
        "data__batch_size": 1,
        "samples__scenes": 0,
    },
    "gpnr": {
        "model__encoder__width": 16,
        "model__encoder__layers": 1,
        "model__encoder__points": 8,
        "model__rays_per_view": 16,
        "data__contexts": 4,
        "data__context": "[0, 1, 2, 3]",
        "samples__scenes": 0,
    },
    "cars64_prior": {
        "model__prior__channels": "[32, 32, 32]",
        "model__prior_options__views": 1,
        "model__render_eval__samples": 4,
    },
    "text2image": {
        "model__sizes": "{size: 128, autoencoder: [16, 16, 16], channels: [16, 32], vocabulary: 600, width: 32,"
        " depth: 1, heads: 2}",
        "model__autoencoder_steps": 1,
        "data__batch_size": 2,
        "data__targets": 1,
    },
    "clip": {"model__sizes__patch": 32, "data__batch_size": 2},
    "lfn": SMALL_CODES,
    "srn": SMALL_CODES,
    "one_scene": {
        "model__encoder__plane_size": 32,
        "model__render_eval__samples": 8,
        "model__render_eval__importance": 8,
    },
    "one_scene_hashgrid": {
        "model__encoder__grid__levels": 4,
        "model__render_eval__samples": 8,
        "model__render_eval__importance": 8,
    },
}

#: The same for everything that lies on realfusion.yaml, or fits a scene to a text.
TEXT_TO_3D = {
    "data__size": 32,
    "model__options__render_size": 16,
    "model__occupancy": 8,
    "model__outcome": "{frames: 2, mesh_resolution: 16, views: 4, size: 16}",
    "model__render__samples": 8,
    "model__render_eval__samples": 8,
}
SLOW = ("nerfdiff", "nerfdiff_400m", "genvs")
SMALLER["genvs64_prior"] = SMALLER["cars64_prior"]
SMALLER["genvs"] = {k: v for k, v in SMALLER["nerfdiff"].items() if "plane" not in k and "decoder" not in k} | {
    "model__prior__channels": "[32, 32, 32, 32, 32]",
    "data__batch_size": 2,
}
SMALLER["nerfdiff_400m"] = SMALLER["nerfdiff"] | {
    "model__prior__channels": "[32, 32, 32, 32, 32]",
    "trainer__strategy": "auto",
}


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A shard folder for configurations whose data is not bundled: 8 scenes of 80 opaque views, 128 px, of a scene
    within distance 2.
    """
    views, size = 80, (128, 128)
    image = png(noise(0, *size, channels=3))
    records = [
        make_record(
            f"scene{i}",
            views,
            images=[image] * views,
            size=size,
            c2w=looking_inwards(views, distance=4, seed=i),
            t_near=2.0,
            t_far=6.0,
            K=np.tile(np.array([[1.2, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]), (views, 1, 1)),
            background="white",
        )
        for i in range(8)
    ]
    return write_shards(records, tmp_path_factory.mktemp("data") / "shards", size).folder


def stack_of(path: Path) -> list[Path]:
    """A configuration, after those on top of which it lies, as the command in its head says."""
    found = re.search(
        rf"^#   vcgen fit((?: -c configs/\w+\.yaml)+) -c configs/{path.name}", path.read_text(), re.MULTILINE
    )
    return [*(path.with_name(name) for name in re.findall(r"configs/(\w+\.yaml)", found[1])), path] if found else [path]


def untrained(base: Path, place: Path) -> Path:
    """A model folder as `vcgen export` would make it of a training with this configuration, but with random weights."""
    model = yaml.safe_load(base.read_text())["model"]
    config: dict[str, Any] = {
        "class_path": full_name(model["class_path"], ()),
        "init_args": model["init_args"],
        "image_size": [64, 64],
        "camera": {"focal": 1.025, "distance": 1.3, "elevation": 20.0, "near": 0.8, "far": 1.8},
        "background": 1.0,
    }
    return folder.save(place, build_system(config["class_path"], config["init_args"]).state_dict(), config)


@pytest.mark.integration
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in SLOW else ()) for path in CONFIGS]
)
def test_every_configuration_trains_two_steps(path, generated, tmp_path):
    options = {
        "trainer__accelerator": "cpu",
        "trainer__devices": 1,
        "trainer__max_steps": 2,
        "trainer__max_time": "null",
        "trainer__val_check_interval": 2,
        "data__val_scenes": 1,
        "data__val_targets": 1,
        "samples__turntable": 0,
        **SMALLER.get(path.stem, {}),
    }
    base, *_ = stack = stack_of(path)
    if "--model.pretrained" in path.read_text() and base != path:
        options["model__pretrained"] = untrained(base, tmp_path / "model")
    parts = [yaml.safe_load(part.read_text()).get("data", {}).get("init_args", {}) for part in stack]
    train = next((part["train"] for part in reversed(parts) if "train" in part), "")
    folders = train if isinstance(train, list) else [train]
    if base.stem in ("realfusion", "dreamfusion"):
        options = {name: value for name, value in options.items() if not name.startswith("data__")} | TEXT_TO_3D
        options |= {"model__options__reference_rays": 16} if base.stem == "realfusion" else {}
        options |= {"model__options__render_size": 8} if "sjc" in path.stem else {}  # the small prior's latents
        options |= {"model__prior": tiny_folder(tmp_path / "prior")} if path.stem != "dreamfields" else {}
        options |= {"model__guidance__clip": tiny_clip(tmp_path / "clip")} if path.stem == "dreamfields" else {}
    elif not (there := [folder for folder in folders if (ROOT / folder).is_dir()]):
        options |= {"data__train": generated, "data__val": generated}
    elif there != folders:  # what is made by code is not bundled
        options |= {"data__train": json.dumps(there)}
    if path.stem == "text2image":
        names = tmp_path / "captions.json"
        names.write_text(json.dumps({f"scene{i}": {"names": ["cloud", "thing"]} for i in range(8)}))
        options |= {"model__captions": names}
    assert vcgen("fit", stack, tmp_path / "run", **options) == 0
    checkpoint = last_checkpoint(tmp_path / "run")
    assert checkpoint["global_step"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in checkpoint["state_dict"].values())


@pytest.mark.integration
@pytest.mark.parametrize("path", PERSONAL, ids=lambda path: path.stem)
def test_every_personalization_trains_two_steps(path, tmp_path):
    Image.fromarray(np.pad(np.full((20, 30, 3), 90, np.uint8), ((9, 9), (9, 9), (0, 0)), constant_values=255)).save(
        tmp_path / "photo.png"
    )
    options = {
        "trainer__accelerator": "cpu",
        "trainer__max_steps": 2,
        "trainer__val_check_interval": 2,
        "data__image": tmp_path / "photo.png",
        "model__prior": tiny_folder(tmp_path / "prior"),
        "model__images__steps": 2,
    }
    if path.stem == "textual_inversion":
        options |= {"model__method__initial": "[car, chair]"}  # words that the tiny tokenizer has
    else:
        options |= {"model__preservation__count": 2, "model__preservation__steps": 2}
    assert vcgen("fit", path, tmp_path / "run", **options) == 0
    checkpoint = last_checkpoint(tmp_path / "run")
    assert checkpoint["global_step"] == 2 and any(name.startswith("method.") for name in checkpoint["state_dict"])
    assert all(bool(tensor.isfinite().all()) for tensor in checkpoint["state_dict"].values())


@pytest.mark.parametrize(("name", "millions"), [("nerfdiff", 104), ("nerfdiff_400m", 395)])
def test_the_priors_are_as_large_as_their_configurations_say(name, millions):
    path = ROOT / "configs" / f"{name}.yaml"
    prior = yaml.safe_load(path.read_text())["model"]["init_args"]["prior"]["init_args"]
    with torch.device("meta"):
        count = sum(p.numel() for p in ViewPrior(**prior).parameters())
    assert round(count / 1e6) == millions and f"{millions} M parameters" in path.read_text()


def test_the_configurations_and_what_they_lie_on_are_found():
    cars, prior = (ROOT / "configs" / name for name in ("cars64.yaml", "cars64_prior.yaml"))
    assert cars in CONFIGS and stack_of(prior) == [cars, prior] and stack_of(cars) == [cars]


def test_the_table_of_memory_has_every_configuration():
    measured = {stack[-1]: stack for stack in memory_systems.CONFIGS.values()}
    assert measured.keys() | memory_systems.ALIKE.keys() | memory_systems.OPEN.keys() == {
        path.stem for path in (ROOT / "configs").glob("*.yaml")
    }
    for name, stack in measured.items():
        assert [path.stem for path in stack_of(ROOT / "configs" / f"{name}.yaml")] == stack
    assert set(memory_systems.ALIKE.values()) <= set(measured)


def resolved(stack: list[Path], capsys: pytest.CaptureFixture) -> dict[str, Any]:
    """What the model is told by configurations on top of one another."""
    with pytest.raises(SystemExit):
        vcgen("fit", stack, Path("unused"), print_config="")
    return yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]


@pytest.mark.parametrize("memory", [8, 16, 24, 40])
def test_realfusions_stacks_have_the_guidance_that_the_page_and_their_heads_state(memory, capsys):
    """A tuned prior's guidance is below that of what it lies on, which otherwise stays."""
    page = (ROOT / "docs" / "realfusion.md").read_text().split("## Memory")[1].split("\n## ")[0]
    found = []
    for files, scale in re.findall(r"^\| (`configs/[^|]+`) \|[^|]+\| `(\[[^|]+\])` \|$", page, re.MULTILINE):
        stack = [ROOT / name.replace("8gb", f"{memory}gb") for name in re.findall(r"`([^`]+)`", files)]
        found.append(resolved(stack, capsys))
        assert found[-1]["options"]["guidance_scale"] == json.loads(scale), files
        assert [path.name.replace("8gb", f"{memory}gb") for path in stack_of(stack[-1])] == [
            path.name for path in stack
        ]
    small, large, tuned = found
    assert all(low < high for low, high in zip(tuned["options"]["guidance_scale"], large["options"]["guidance_scale"]))
    assert tuned["options"]["noise_end"] < large["options"]["noise_end"] == small["options"]["noise_end"]
    kept = [
        {**one, "options": {k: v for k, v in one["options"].items() if k not in ("guidance_scale", "noise_end")}}
        for one in (large, tuned)
    ]
    assert kept[0] == kept[1] != small
