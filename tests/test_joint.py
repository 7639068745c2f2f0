"""NerfDiff's joint training: field and prior on the same views, the ways their gradients may take, and the prior on a
frozen field.
"""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import DPMSolverMultistepScheduler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training import CONFIG, assert_same_end, load, refusal, vcgen
from vcgen.checkpoints import model_folder as folder
from vcgen.cli import main as cli
from vcgen.data.datamodules.stream import SceneStream
from vcgen.data.shards.files import read_index
from vcgen.diffusion.prior import ViewPrior
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.errors import UserError
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.nerfdiff import NerfDiff, PriorOptions


def system(
    prior: bool = True,
    pretrained: Path | None = None,
    train_field: bool = True,
    seed: int = 0,
    loss_weights: dict | None = None,
    **options,
) -> NerfDiff:
    torch.manual_seed(seed)
    decoder = TriplaneDecoder(channels=8, hidden=8)
    encoder = TriplaneEncoder(decoder, 16, 8, channels=(32, 32), layers=1, attention=(False, False))
    network = ViewPrior(channels=(16, 32), attention=(False, True), condition_dropout=0.0) if prior else None
    return NerfDiff(
        encoder,
        RenderOptions(4),
        rays_per_view=16,
        prior=network,
        prior_options=PriorOptions(**options),
        pretrained=pretrained,
        train_field=train_field,
        **({} if loss_weights is None else {"loss_weights": loss_weights}),
    )


PRIOR = {
    "class_path": "vcgen.diffusion.prior.ViewPrior",
    "init_args": {"channels": [16, 32], "attention": [False, True]},
}


def write_config(place: Path, **model) -> Path:
    """The tiny configuration with a prior and other arguments of the model."""
    config = yaml.safe_load(CONFIG)
    config["model"]["init_args"] |= {"prior": PRIOR, **model}
    place.write_text(yaml.safe_dump(config))
    return place


def save(model: NerfDiff, place: Path) -> Path:
    """A model folder; only its weights matter here."""
    camera = {"focal": 1.025, "distance": 1.3, "elevation": 20.0, "near": 0.8, "far": 1.8}
    config = {
        "class_path": "vcgen.systems.nerfdiff.NerfDiff",
        "init_args": {},
        "image_size": [64, 64],
        "camera": camera,
        "background": 1.0,
    }
    return folder.save(place, model.state_dict(), config)


def equal_part(first: dict, second: dict, part: str) -> bool:
    """Whether all weights of a part are the same in both; there are some."""
    names = [name for name in first if name.startswith(f"{part}.")]
    return bool(names) and all(torch.equal(first[name], second[name]) for name in names)


@pytest.fixture(scope="module")
def example():
    return SceneStream(read_index("data/cars64/train"), 2, 2, seed=0).batch()


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


@pytest.mark.filterwarnings("ignore:.*self.log.*")
def test_the_weights_scale_the_losses_that_are_trained_on(example):
    def gradients(weights: dict[str, float]) -> tuple[float, dict[str, torch.Tensor]]:
        model = system(loss_weights=weights)
        total = model.training_step(example, 0)
        total.backward()
        return float(total.detach()), {
            name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()
        }

    (field, of_field), (prior, of_prior) = (
        gradients({"rgb": 1.0, "denoising": 0.0}),
        gradients({"rgb": 0.0, "denoising": 1.0}),
    )
    both, of_both = gradients({"rgb": 2.0, "denoising": 3.0})
    assert field > 0 and prior > 0 and both == pytest.approx(2 * field + 3 * prior, rel=1e-5)
    assert {name.split(".")[0] for name in of_field} == {"encoder"} and {name.split(".")[0] for name in of_prior} == {
        "prior"
    }
    assert of_both.keys() == of_field.keys() | of_prior.keys()
    for alone, weight in ((of_field, 2), (of_prior, 3)):
        for name, gradient in alone.items():
            torch.testing.assert_close(of_both[name], weight * gradient, rtol=1e-3, atol=1e-5)


def test_losses_are_noted_by_quarters_of_the_noise_schedule_each_until_the_next_image_there():
    model, name = system(), "denoising/t_{}".format
    model.monitor(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.0, 0.2, 0.75]))
    assert float(model.monitored[name("0_to_0.25")]) == 2 and float(model.monitored[name("0.75_to_1")]) == 5
    assert model.monitored[name("0.25_to_0.5")].isnan() and model.monitored[name("0.5_to_0.75")].isnan()
    model.monitor(torch.tensor([7.0, torch.inf]), torch.tensor([0.25, 0.999]))
    seen = [float(model.monitored[name(quarter)]) for quarter in ("0_to_0.25", "0.25_to_0.5", "0.75_to_1")]
    assert seen == [2, 7, torch.inf]


def test_noting_the_losses_never_waits_for_the_device():
    model = system()
    model.monitor(torch.ones(3, device="meta"), torch.ones(3, device="meta"))  # looking at a number there is an error
    assert len(model.monitored) == 4
    with pytest.raises(RuntimeError):
        bool(next(iter(model.monitored.values())) > 0)


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
    # Three times as large: every middle pixel lies on a pixel of the small image.
    torch.testing.assert_close(enlarged.rgb[..., 1::3, 1::3], model.render(field, cameras, (16, 16)).rgb)


def test_samples_have_an_image_per_camera_and_depend_on_the_generator_alone(example):
    model = system().eval()
    cameras = example.target.cameras
    first, again, other = (
        model.sample(example.context, cameras, torch.Generator().manual_seed(s), steps=2) for s in (0, 0, 1)
    )
    assert first.shape == (2, 2, 3, 64, 64) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_samples_can_start_from_the_rendering(example):
    model, cameras = system().eval(), example.target.cameras
    with torch.no_grad():
        seen = model.render(model.field(example.context), cameras, (64, 64)).rgb.clamp(0, 1)

    def draw(strength: float) -> torch.Tensor:
        return model.sample(example.context, cameras, torch.Generator().manual_seed(0), steps=10, strength=strength)

    torch.testing.assert_close(draw(0.0), seen)
    errors = [float((draw(strength) - seen).square().mean()) for strength in (0.1, 0.5, 1.0)]
    assert 0 < errors[0] < errors[1] < errors[2]
    with pytest.raises(UserError, match="strength"):
        draw(1.5)


def test_the_sampler_is_diffusers_own_and_an_unknown_one_is_refused(example):
    model, cameras = system().eval(), example.target.cameras
    solver = DPMSolverMultistepScheduler.from_config(model.prior.schedule.config, timestep_spacing="trailing")
    solver.set_timesteps(4)
    with torch.no_grad():
        seen = model.render_condition(model.field(example.context), cameras, (64, 64))
        condition = model.prior.condition(seen, example.context, cameras.near, cameras.far)
        state = torch.randn((4, 3, 64, 64), generator=torch.Generator().manual_seed(0))
        for time in solver.timesteps:
            state = solver.step(model.prior(state, time.expand(4), condition), time, state).prev_sample
    expected = (state / 2 + 0.5).clamp(0, 1).unflatten(0, (2, 2))
    drawn = {
        s: model.sample(example.context, cameras, torch.Generator().manual_seed(0), steps=4, sampler=s)
        for s in ("ddim", "dpm++")
    }
    torch.testing.assert_close(drawn["dpm++"], expected)
    assert (drawn["ddim"] - expected).abs().max() > 1e-3
    with pytest.raises(UserError, match="no sampler 'euler': the samplers are ddim, dpm"):
        model.sample(example.context, cameras, torch.Generator(), sampler="euler")


def test_a_model_without_a_prior_says_so(example):
    with pytest.raises(UserError, match="no diffusion prior"):
        system(prior=False).sample(example.context, example.target.cameras, torch.Generator())


@pytest.mark.integration
def test_fit_trains_both_logs_the_buckets_and_resumes_exactly(tmp_path: Path):
    path = write_config(tmp_path / "joint.yaml")
    assert vcgen("fit", path, tmp_path / "whole", samples__scenes=0) == 0
    assert vcgen("fit", path, tmp_path / "half", trainer__max_steps=2, samples__scenes=0) == 0
    assert vcgen("fit", path, tmp_path / "half", ckpt_path="last", samples__scenes=0) == 0
    whole = assert_same_end(tmp_path / "whole", tmp_path / "half")["state_dict"]
    assert any(name.startswith("prior.unet") for name in whole)
    events = EventAccumulator(str(tmp_path / "whole"))
    events.Reload()
    logged = events.Tags()["scalars"]
    assert "train/denoising" in logged and any(name.startswith("denoising/t_") for name in logged)
    value = {name: events.Scalars(name)[-1].value for name in logged}
    assert value["gradient_norm/encoder"] > 0 and value["gradient_norm/prior"] > 0 and value["memory/peak_gb"] > 0.01
    # two scenes, one target view each, of 16 rays; the prior sees one image per scene
    assert value["speed/rays_per_s"] / value["speed/steps_per_s"] == pytest.approx(2 * 16, rel=1e-4)
    assert value["speed/images_per_s"] / value["speed/steps_per_s"] == pytest.approx(2, rel=1e-4)


def test_training_starts_from_the_parts_that_the_folder_has(tmp_path):
    field, both = (save(system(prior=prior), tmp_path / name) for prior, name in ((False, "field"), (True, "both")))
    first, fresh = system().state_dict(), system(seed=1).state_dict()
    assert not equal_part(first, fresh, "encoder") and not equal_part(first, fresh, "prior")
    from_field, from_both = (system(pretrained=place, seed=1).state_dict() for place in (field, both))
    assert equal_part(from_field, first, "encoder") and equal_part(from_field, fresh, "prior")
    assert equal_part(from_both, first, "encoder") and equal_part(from_both, first, "prior")


def test_a_frozen_field_has_no_losses_of_its_own_and_no_gradients(example, tmp_path):
    frozen = system(pretrained=save(system(prior=False), tmp_path / "model"), train_field=False, field_gradient_from=0)
    losses = frozen.losses(example, torch.Generator().manual_seed(0))
    assert set(losses) == {"denoising"} and losses["denoising"].requires_grad
    assert field_gradient(frozen, example) == 0
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in frozen.prior.parameters())


@pytest.mark.integration
def test_fit_leaves_a_frozen_field_as_it_was_and_trains_the_prior(tmp_path):
    assert (
        vcgen(
            "fit",
            write_config(tmp_path / "field.yaml", prior=None),
            tmp_path / "field",
            trainer__max_steps=2,
            samples__scenes=0,
        )
        == 0
    )
    last = tmp_path / "field" / "checkpoints" / "last.ckpt"
    assert cli.main(["export", "--checkpoint", str(last), "--out", str(tmp_path / "model")]) == 0
    path = write_config(tmp_path / "prior.yaml", pretrained=str(tmp_path / "model"), train_field=False)
    assert vcgen("fit", path, tmp_path / "prior", samples__scenes=0) == 0
    start = folder.load(tmp_path / "model").state_dict()
    early, late = (load(tmp_path / "prior" / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    # the field's val/psnr does not change: the first is the best
    assert (early["global_step"], late["global_step"]) == (2, 4)
    for checkpoint in (early, late):
        assert equal_part(start, checkpoint["state_dict"], "encoder")
        averaged = checkpoint["callbacks"]["EMA"]["weights"]
        assert averaged and all(name.startswith("prior.") for name in averaged)
    assert not equal_part(early["state_dict"], late["state_dict"], "prior")
    gone = dict(samples__scenes=0, ckpt_path="last", model__pretrained="null", trainer__max_steps=5)
    assert vcgen("fit", path, tmp_path / "prior", **gone) == 0  # the checkpoint has the field


def test_a_folder_of_another_shape_is_refused_in_one_line(capsys, tmp_path):
    place = save(system(prior=False), tmp_path / "model")
    path = write_config(tmp_path / "prior.yaml", pretrained=str(place), train_field=False)
    line = refusal(capsys, vcgen("fit", path, tmp_path / "run", model__encoder__channels="[32, 64]"))
    assert f"model.pretrained {place}: its encoder does not fit this configuration" in line and "instead of" in line
    line = refusal(capsys, vcgen("fit", path, tmp_path / "run", model__pretrained=tmp_path / "absent"))
    assert "absent is not a model folder" in line
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ({}, "give the trained field, --model.pretrained FOLDER"),
        ({"prior": None}, "there is no model.prior: nothing is left to train"),
    ],
)
def test_a_frozen_field_that_nobody_trained_is_refused_in_one_line(capsys, tmp_path, without, message):
    path = write_config(tmp_path / "prior.yaml", train_field=False, **without)
    assert message in refusal(capsys, vcgen("fit", path, tmp_path / "run"))
    assert not list(tmp_path.rglob("*.ckpt"))
