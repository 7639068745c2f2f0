"""NerfDiff's joint training: field and prior on the same views, and the ways their gradients may take."""

from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import CONFIG, load, vcgen

from vcgen.data.shards import read_index
from vcgen.data.stream import SceneStream
from vcgen.diffusion.prior import ViewPrior
from vcgen.errors import UserError
from vcgen.nerf.encoder import TriplaneEncoder
from vcgen.nerf.render import RenderOptions
from vcgen.nerf.triplane import TriplaneDecoder
from vcgen.systems.nerfdiff import NerfDiff, PriorOptions


def system(prior: bool = True, **options) -> NerfDiff:
    torch.manual_seed(0)
    decoder = TriplaneDecoder(channels=8, hidden=8)
    encoder = TriplaneEncoder(decoder, 16, 8, channels=(32, 32), layers=1, attention=(False, False))
    network = ViewPrior(channels=(16, 32), attention=(False, True), condition_dropout=0.0) if prior else None
    return NerfDiff(encoder, RenderOptions(4), rays_per_view=16, prior=network, prior_options=PriorOptions(**options))


@pytest.fixture(scope="module")
def example():
    return SceneStream(read_index("data/cars64/train"), 2, 2, seed=0).batch(0)


def field_gradient(model: NerfDiff, example) -> float:
    """The largest gradient that the prior's loss alone leaves in the field's encoder."""
    model.losses(example, torch.Generator().manual_seed(0))["denoising"].backward()
    return max(float(p.grad.abs().max()) if p.grad is not None else 0.0 for p in model.encoder.parameters())


def test_one_step_has_the_losses_of_both(example):
    model = system(views=2)
    losses = model.losses(example, torch.Generator().manual_seed(0))
    assert set(losses) == {"rgb", "denoising"} and all(torch.isfinite(loss) for loss in losses.values())
    alone = system(prior=False).losses(example, torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses["rgb"], alone["rgb"])  # the prior does not disturb the field's noise
    assert model.monitored and all(name.startswith("denoising/t_") for name in model.monitored)


def test_the_prior_leaves_the_field_alone_unless_told_and_from_the_step_it_is_told(example):
    assert field_gradient(system(), example) == 0
    assert field_gradient(system(field_gradient_from=1), example) == 0
    assert field_gradient(system(field_gradient_from=0), example) > 0


def test_the_prior_sees_the_fields_rendering_over_white(example):
    model = system()
    cameras = example.target.cameras[:, :1]
    field = model.field(example.context)
    seen = model.render_condition(field, cameras, (64, 64))
    torch.testing.assert_close(seen.rgb, model.render(field, cameras, (64, 64), 1.0).rgb)
    enlarged = system(condition_size=16).render_condition(field, cameras, (48, 48))
    # Three times as large: every middle pixel lies on a pixel of the small picture.
    torch.testing.assert_close(enlarged.rgb[..., 1::3, 1::3], model.render(field, cameras, (16, 16)).rgb)


def test_samples_have_a_picture_per_camera_and_depend_on_the_generator_alone(example):
    model = system().eval()
    cameras = example.target.cameras
    first, again, other = (model.sample(example.context, cameras, torch.Generator().manual_seed(s), steps=2) for s in (0, 0, 1))
    assert first.shape == (2, 2, 3, 64, 64) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_model_without_a_prior_says_so(example):
    with pytest.raises(UserError, match="no diffusion prior"):
        system(prior=False).sample(example.context, example.target.cameras, torch.Generator())


def test_fit_trains_both_logs_the_buckets_and_resumes_exactly(tmp_path: Path):
    config = yaml.safe_load(CONFIG)
    config["model"]["init_args"]["prior"] = {
        "class_path": "vcgen.diffusion.prior.ViewPrior", "init_args": {"channels": [16, 32], "attention": [False, True]},
    }
    path = tmp_path / "joint.yaml"
    path.write_text(yaml.safe_dump(config))
    assert vcgen("fit", path, tmp_path / "whole") == 0
    assert vcgen("fit", path, tmp_path / "half", trainer__max_steps=2) == 0
    assert vcgen("fit", path, tmp_path / "half", ckpt_path="last") == 0
    whole, resumed = (load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("whole", "half"))
    assert any(name.startswith("prior.unet") for name in whole)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    events = EventAccumulator(str(tmp_path / "whole"))
    events.Reload()
    logged = events.Tags()["scalars"]
    assert "train/denoising" in logged and any(name.startswith("denoising/t_") for name in logged)
