"""Variational score distillation against closed forms, and what its student changes."""

import pytest
import torch

from small_realfusion import photo
from small_text_to_3d import losses, system
from vcgen.diffusion.base import Denoised
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.diffusion.student import Student
from vcgen.errors import UserError
from vcgen.guidance.base import ConditionedPrior
from vcgen.guidance.sds import SDS
from vcgen.guidance.vsd import VSD

MEAN, DEVIATION = 0.3, 0.5
SCHEDULE = noise_schedule("epsilon")


def gaussian(noisy, times, mean, variance):
    """The exact noise of z = alpha x + sigma e with x of N(mean, variance)."""
    alpha, sigma = signal_and_noise(SCHEDULE, times, noisy)
    noise = sigma * (noisy - alpha * mean) / (alpha**2 * variance + sigma**2)
    return Denoised((noisy - sigma * noise) / alpha, noise)


class Ideal(torch.nn.Module):
    """A student that has learned the particles' mean and variance, or one of them as it is."""

    def __init__(self, spread: bool = True):
        super().__init__()
        self.rank, self.camera_dropout, self.spread = 4, 0.0, spread

    def denoise(self, noisy, times, particles, cameras):
        if not self.spread:
            return gaussian(noisy, times, particles, 0.0)
        return gaussian(noisy, times, particles.mean(), particles.var(correction=0))


def moved(guidance, steps: int, rate: float) -> torch.Tensor:
    """512 scalars after steps towards their targets."""
    particles = torch.randn(512, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.1 - 0.5
    noise = torch.Generator().manual_seed(1)
    for _ in range(steps):
        prior = ConditionedPrior(lambda z, t: gaussian(z, t, MEAN, DEVIATION**2), SCHEDULE, particles)
        particles = particles + rate * (guidance.step(0, None, particles, prior, noise).targets - particles)
    return particles


def test_particles_come_to_the_priors_mean_and_spread_where_score_distillation_collapses():
    found = moved(VSD(Ideal()), 200, 1.0)
    assert float(found.mean()) == pytest.approx(MEAN, abs=1e-4)
    assert float(found.std(correction=0)) == pytest.approx(DEVIATION, abs=1e-4)
    collapsed = moved(SDS(), 800, 0.02)
    assert float(collapsed.mean()) == pytest.approx(MEAN, abs=0.03) and float(collapsed.std()) < 0.02


def test_a_student_without_spread_makes_it_score_distillation():
    renderings = torch.randn(4, 3, 8, 8)
    prior = ConditionedPrior(lambda z, t: gaussian(z, t, MEAN, DEVIATION**2), SCHEDULE, renderings)
    found, expected = (
        guidance.step(0, None, renderings, prior, torch.Generator().manual_seed(2)).targets
        for guidance in (VSD(Ideal(spread=False)), SDS())
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_students_loss_changes_its_own_layers_alone_bitwise():
    made = system(guidance=VSD(Student(2, camera_dropout=0.0)))
    everything = {**dict(made.named_parameters()), **dict(made.text_prior.named_parameters(prefix="prior"))}
    before = {name: value.detach().clone() for name, value in everything.items()}
    optimizer = made.configure_optimizers()
    for made.at in (0, 1):  # the second factors begin at 0
        optimizer.zero_grad()
        losses(made)["student"].backward()
        optimizer.step()
    changed = {name for name, value in everything.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in everything if name.startswith("guidance.student.")}
    assert {name.split(".")[2] for name in changed} == {"down", "up", "camera"}
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-2, 1e-4]


def test_a_student_keeps_what_it_learned_when_another_stage_attaches_it_again():
    """As Lightning does that validates after a fit."""
    made = system(guidance=VSD())
    with torch.no_grad():
        made.guidance.student.up[0].add_(1.0)
    before = {name: value.clone() for name, value in made.guidance.state_dict().items()}
    made.use_prior(made.text_prior)
    after = made.guidance.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())


def test_a_student_begins_as_the_prior_and_leaves_it_as_it_was():
    made = system(guidance=VSD())
    prior, student, cameras = made.text_prior, made.guidance.student, photo().context.cameras[0]
    given = torch.randn(1, *prior.latent_shape), torch.tensor([300])
    condition = type("Condition", (), {"text": made.text["front"]})
    with torch.no_grad():
        plain = prior(*given, condition.text)
        own = student.denoise(*given, condition, cameras).noise
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        told, other = (student.denoise(*given, condition, c).noise for c in (cameras, made_camera(cameras)))
        assert torch.equal(prior(*given, condition.text), plain)
    again = system(guidance=VSD())
    assert not torch.allclose(told, own, atol=1e-4) and not torch.allclose(told, other, atol=1e-6)
    assert {
        name for name in made.state_dict() if "student" in name
    } and again.state_dict().keys() == made.state_dict().keys()


def made_camera(cameras):
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] *= -1
    return type(cameras)(c2w, cameras.K, cameras.near, cameras.far)


def test_it_lowers_its_highest_level_with_the_same_student_and_refuses_what_has_no_text_prior():
    guidance = VSD(start=0.9)
    later = guidance.annealed(0.5, 0.5)
    assert (later.start, guidance.start) == (pytest.approx(0.7), 0.9) and later.student is guidance.student
    assert later.latest is guidance.latest and guidance.with_rounds(3).settings()["rounds"] == 3
    with pytest.raises(UserError, match="VSD learns beside a text prior"):
        guidance.step(
            0, None, torch.zeros(1, 3, 8, 8),
            ConditionedPrior(lambda z, t: gaussian(z, t, 0.0, 1.0), SCHEDULE, None, photo().context.cameras[0]),
            torch.Generator().manual_seed(0),
        )  # fmt: skip
