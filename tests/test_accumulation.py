"""Gradient accumulation: so many small batches are one large one, each with its own noise, and a stop in their midst
loses nothing.
"""

import itertools
import zlib
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
import yaml

from ranks import vcgen_ranks
from training import CONFIG, PRIOR, Witness, assert_same_end, load, vcgen
from vcgen.diffusion.base import Condition
from vcgen.diffusion.prior import ViewPrior
from vcgen.rays import Rays
from vcgen.rendering import ray_batches as rays
from vcgen.systems.base import System
from vcgen.systems.nerfdiff import NerfDiff


@pytest.fixture
def config(tmp_path):
    """The tiny configuration, with a prior and without validation, as a file."""
    content = yaml.safe_load(CONFIG)
    content["data"]["init_args"]["val"] = None
    content["model"]["init_args"] |= {"prior": PRIOR, "prior_options": {"views": 1, "condition_size": 8}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# --- the gradient ---


class Gradients(pl.Callback):
    """Writes the gradients of every optimizer step."""

    def __init__(self, path: str):
        self.path = path

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer) -> None:
        gradients = {name: p.grad for name, p in module.named_parameters()}
        torch.save(gradients, f"{self.path}.{trainer.global_rank}.{trainer.global_step}")


def of_each(function, *batches):
    """The results of a function of single scenes, with random numbers that depend on the scene alone, as one batch."""
    results = []
    for i in range(len(batches[0])):
        one = [batch[i : i + 1] for batch in batches]
        seed = zlib.crc32(one[0].contiguous().numpy().tobytes())
        results.append(function(*one, torch.Generator().manual_seed(seed)))
    return tuple(torch.cat(values) for values in zip(*results))


@pytest.fixture
def noise_of_the_scene(monkeypatch):
    """Rays, the prior's times and its noise become functions of the scene; samples on rays lie evenly."""
    draw, loss, render = rays.draw_rays, ViewPrior.loss, rays.render_rays

    def draw_of_each(field, target, count, generator):
        def of_one(c2w, number, center, radius, noise):
            sphere, scene = SimpleNamespace(center=center, radius=radius), target[int(number) : int(number) + 1]
            drawn, pixels = draw(sphere, scene, count, noise)
            return drawn.origins, drawn.directions, drawn.near, drawn.far, pixels

        *drawn, pixels = of_each(
            of_one, target.cameras.c2w, torch.arange(len(target.images)), field.center, field.radius
        )
        return Rays(*drawn), pixels

    def loss_of_each(self, images, condition, generator):
        def of_one(image, maps, tokens, given, noise):
            return loss(self, image, Condition(maps, tokens, given), noise)

        return of_each(of_one, images, *condition)

    monkeypatch.setattr(rays, "draw_rays", draw_of_each)
    monkeypatch.setattr(ViewPrior, "loss", loss_of_each)
    monkeypatch.setattr(rays, "render_rays", lambda *arguments: render(*arguments[:-1]))


@pytest.mark.integration
def test_two_batches_of_two_or_two_ranks_of_two_have_the_gradient_of_one_batch_of_four(
    config, tmp_path, noise_of_the_scene
):
    """All losses are means over the rays or images of a batch, the gradient is the mean over batches and ranks of
    theirs.
    """
    witness = dict(trainer__max_steps=1, trainer__callbacks__plus="test_accumulation.Gradients")
    assert (
        vcgen("fit", config, tmp_path / "a", **witness, trainer__callbacks__path=tmp_path / "large", data__batch_size=4)
        == 0
    )
    parts = dict(trainer__accumulate_grad_batches=2, trainer__callbacks__path=tmp_path / "parts")
    assert vcgen("fit", config, tmp_path / "b", **witness, **parts) == 0
    assert vcgen_ranks(2, "fit", config, tmp_path / "c", **witness, trainer__callbacks__path=tmp_path / "ranks") == [
        0,
        0,
    ]
    large = load(tmp_path / "large.0.0")
    scale = {name: float(gradient.abs().max()) for name, gradient in large.items()}
    assert sum(value > 1e-4 for value in scale.values()) > len(scale) / 2
    for name in ("parts.0.0", "ranks.0.0", "ranks.1.0"):
        found = load(tmp_path / name)
        worst = max(float((found[key] - large[key]).abs().max()) / max(scale[key], 1e-4) for key in large)
        assert worst < 1e-4, name  # float32 sums in another order


# --- the noise ---


def drawn_by(generator: torch.Generator) -> tuple[float, ...]:
    """What a copy of a generator draws next; its seed would not do, of which a CPU's uses 32 bits."""
    return tuple(torch.rand(4, generator=torch.Generator().set_state(generator.get_state())).tolist())


@pytest.mark.integration
def test_every_batch_of_an_accumulation_has_its_own_noise_and_the_first_that_of_the_step(config, tmp_path, monkeypatch):
    losses, seeds = NerfDiff.losses, []

    def watched(self, example, generator):
        seeds.append(drawn_by(generator))
        return losses(self, example, generator)

    monkeypatch.setattr(NerfDiff, "losses", watched)
    assert vcgen("fit", config, tmp_path / "parts", trainer__max_steps=2, trainer__accumulate_grad_batches=3) == 0
    parts, seeds[:] = list(seeds), []
    assert vcgen("fit", config, tmp_path / "plain", trainer__max_steps=2) == 0
    assert len(parts) == len(set(parts)) == 6 and parts[::3] == seeds


def test_noise_differs_between_seeds_steps_ranks_and_batches_and_fits_a_generator(monkeypatch):
    found = []
    for seed in (0, 1, 2**32 - 1):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        for step, rank, number in itertools.product((0, 1, 999_999), (0, 1, 4095), (0, 1, 63)):
            batch = SimpleNamespace(global_step=step, global_rank=rank, micro_batch=(step, number), device="cpu")
            found.append(drawn_by(System.step_generator(batch)))
    assert len(set(found)) == len(found)


# --- stopping ---


class StopAfter(Witness):
    """Asks the trainer to stop after so many batches of this process, wherever in an accumulation that is."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        Witness.seen.append(batch.keys)
        trainer.should_stop = trainer.should_stop or len(Witness.seen) == self.stop


@pytest.mark.integration
@pytest.mark.parametrize(
    "batches",
    [pytest.param(4, id="at an optimizer step", marks=pytest.mark.slow), pytest.param(5, id="inside an accumulation")],
)
def test_a_resumed_accumulation_equals_one_that_never_stopped(config, tmp_path, monkeypatch, batches):
    options = dict(
        trainer__max_steps=4, trainer__accumulate_grad_batches=2, trainer__callbacks__plus="test_accumulation.StopAfter"
    )
    monkeypatch.setattr(Witness, "seen", [])
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    order, Witness.seen = Witness.seen, []
    assert len(order) == 8
    assert vcgen("fit", config, tmp_path / "parts", **options, trainer__callbacks__stop=batches) == 0
    done = batches + batches % 2  # the step is finished first
    assert Witness.seen == order[:done]
    Witness.seen = []
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path="last") == 0
    assert Witness.seen == order[done:]
    whole = assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert whole["global_step"] == whole["callbacks"]["EMA"]["updates"] == 4
