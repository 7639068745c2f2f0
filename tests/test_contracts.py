"""Any guidance works with any scene and any prior whose types fit; what does not fit is refused in one line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from small_realfusion import losses, system as realfusion
from small_text_to_3d import hash_grid, losses as text_losses, system as text_to_3d
from text_folder import tiny_clip
from vcgen.cameras import orbit, pinhole
from vcgen.diffusion.base import Condition, ImagePrior
from vcgen.diffusion.prior import ViewPrior
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.encoders.pixelnerf import PixelNerf
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.encoders.scene_triplane import SceneTriplane
from vcgen.encoders.scene_voxels import SceneVoxels
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.errors import UserError
from vcgen.fields.hashgrid import HashGrid
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.guidance.base import Guidance, Round
from vcgen.guidance.clip import ClipGuidance
from vcgen.guidance.ngd import NGD
from vcgen.guidance.sds import SDS
from vcgen.guidance.sjc import SJC
from vcgen.guidance.vsd import VSD
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.distillation.distilled import Distilled
from vcgen.systems.distillation.loop import Distillation, DistillOptions, distill
from vcgen.systems.distillation.system import Distill
from vcgen.systems.mesh_refine.system import MeshRefine
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Views

SIZE = 16
FEW = DistillOptions(views=2, rays=64, input_rays=16, guidance_scale=1.0)


class Student(nn.Module, Guidance):
    """As variational score distillation: a network of its own, here a number, learns the noise of the renderings."""

    def __init__(self, rounds: int = 2):
        super().__init__()
        self.rounds, self.updates, self.fraction = rounds, 2, nn.Parameter(torch.tensor(0.5))

    def step(self, number, last, renderings, prior, generator):
        times = torch.full((len(renderings),), 500)
        noise = torch.randn(renderings.shape, generator=generator)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        self.seen = alpha * renderings + sigma * noise, noise
        own, told = self.fraction.detach() * self.seen[0], prior.denoise(self.seen[0], times)
        assert len(prior.cameras.near) == len(renderings) and prior.condition is not None
        return Round(renderings - sigma.square() * (told.noise - own), noise, 500, 0.0, 0.0)

    def losses(self, generator):
        return {"student": (self.fraction * self.seen[0] - self.seen[1]).square().mean()}

    def parameter_groups(self):
        return [{"params": [self.fraction], "lr": 0.1}]


class Brighter(Guidance):
    """As CLIP guidance: the gradient of a score of images, whatever the prior denoises."""

    shown, rounds, updates = "images", 2, 2

    def step(self, number, last, renderings, prior, generator):
        assert renderings.shape[1] == 3
        with torch.enable_grad():
            images = renderings.clone().requires_grad_()
            (gradient,) = torch.autograd.grad((1 - images).square().mean(), images)
        return Round(renderings - gradient, torch.zeros_like(renderings), -1, 0.0, 0.0)


class Gray(ImagePrior):
    """A prior in closed form: all images are gray, with a deviation of 0.5 about it."""

    def __init__(self):
        super().__init__()
        self.size, self.schedule = SIZE, noise_schedule("epsilon")

    def condition(self, rendering, context, near, far):
        maps = rendering.rgb.flatten(0, 1)
        return Condition(maps, None, maps.new_ones(len(maps)))

    def forward(self, noisy, timesteps, condition):
        alpha, sigma = signal_and_noise(self.schedule, timesteps, noisy)
        return sigma * noisy / ((0.5 * alpha).square() + sigma.square())


def context() -> Views:
    torch.manual_seed(0)
    camera = orbit(torch.zeros(1), torch.full((1,), 20.0), 1.3, pinhole(1.0), 0.8, 1.8).reshape(1, 1)
    return Views(torch.rand(1, 1, 3, SIZE, SIZE), camera)


SCENES = {
    "triplane": lambda: TriplaneEncoder(TriplaneDecoder(8, 8), 8, 8, (32, 32), 1, (False, False)),
    "scene_triplane": lambda: SceneTriplane(TriplaneDecoder(8, 8), 8, 8),
    "scene_hashgrid": lambda: SceneHashGrid(HashGrid(2, 2, 8, 4, 8), hidden=8, depth=1),
    "scene_voxels": lambda: SceneVoxels(4),
}
PRIORS = {
    "view": lambda: ViewPrior((32, 32), attention=(False, False), input_attention=False, patch=2, size=SIZE),
    "closed_form": Gray,
}
GUIDANCES = {
    "NGD": lambda: NGD(rounds=2, updates=2),
    "SDS": lambda: SDS(rounds=2, updates=2),
    "SJC": lambda: SJC(rounds=2, updates=2, draws=2),
    "student": Student,
    "images": Brighter,
}


def model(scene: str, prior: str) -> NerfDiff:
    torch.manual_seed(0)
    return NerfDiff(SCENES[scene](), RenderOptions(4), prior=PRIORS[prior]()).eval().requires_grad_(False)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", GUIDANCES)
def test_every_guidance_distills_every_prior_into_every_scene(name, scene, prior):
    system = model(scene, prior)
    before = {key: value.clone() for key, value in system.state_dict().items()}
    state = distill(system, context(), GUIDANCES[name](), FEW)
    assert torch.isfinite(state.targets).all()
    with torch.no_grad():
        first = system.field(context()).weights().state_dict()
    changed = [key for key, value in state.weights.state_dict().items() if not torch.equal(value, first[key])]
    assert changed and all(key.startswith("scene.") for key in changed)
    assert all(torch.equal(value, before[key]) for key, value in system.state_dict().items())


#: What a system that fits one scene to a text may be given.
FITTED = {
    "scene_hashgrid": (hash_grid, {}),
    "scene_voxels": (lambda: SceneVoxels(8, 0.75, 0.75, blob=(6.0, 0.2)), {}),
    "latents": (
        lambda: SceneVoxels(8, 0.75, 0.75, colors="latent", blob=(6.0, 0.2)),
        {"render_size": 8, "albedo_only": 1.0},
    ),
}


@pytest.mark.parametrize("scene", FITTED)
@pytest.mark.parametrize("name", [*(name for name, make in GUIDANCES.items() if not make().fixed_views), "VSD"])
def test_every_guidance_but_walks_moves_every_scene_of_a_text(name, scene):
    make, options = FITTED[scene]
    made = text_to_3d(scene=make(), guidance={**GUIDANCES, "VSD": VSD}[name](), options=options)
    text_losses(made)["sds"].backward()
    assert any(float(entry.grad.abs().sum()) > 0 for entry in made.scene.entries())
    assert all(p.grad is None for p in made.text_prior.parameters())


def test_clip_moves_every_scene_of_colors_without_a_prior(tmp_path):
    guidance = ClipGuidance(str(tiny_clip(tmp_path)), crops=2)
    for make, options in (FITTED["scene_hashgrid"], FITTED["scene_voxels"]):
        made = text_to_3d(scene=make(), guidance=guidance, options=options)
        text_losses(made)["clip"].backward()
        assert any(float(entry.grad.abs().sum()) > 0 for entry in made.scene.entries())
        assert all(p.grad is None for p in guidance.scorer.parameters())


def test_what_scores_color_and_opacity_is_refused_where_targets_are_asked_for():
    guidance = ClipGuidance("unused")
    guidance.scorer = object()
    with pytest.raises(UserError, match="ClipGuidance needs the opacity of its views: use it with TextTo3D"):
        distill(model("scene_hashgrid", "closed_form"), context(), guidance, FEW)
    for make in (lambda: MeshRefine("none", Path(), guidance=guidance), lambda: Distill(Path(), guidance)):
        with pytest.raises(ValueError, match=r"^model\.guidance: ClipGuidance needs the opacity of its views: use it"):
            make()


def test_a_distillation_tells_its_guidance_the_prior_before_it_starts():
    told, system = [], model("scene_hashgrid", "view")
    guidance = SDS(rounds=2, updates=2)
    object.__setattr__(guidance, "attach", told.append)
    assert Distilled(system, guidance, FEW) and told == [system.prior]
    with pytest.raises(UserError, match="VSD learns beside a text prior"):
        Distilled(system, VSD(), FEW)


def test_a_walk_is_refused_where_views_are_new_at_every_step():
    with pytest.raises(ValueError, match=r"^model\.guidance: NGD walks with the same views .*; use SDS or SJC$"):
        realfusion(guidance=NGD())


def test_a_scene_that_cannot_be_finetuned_is_refused():
    system = NerfDiff(PixelNerf(first_pool=False, width=8), RenderOptions(4), prior=Gray())
    with pytest.raises(UserError, match=r"^fields of the class PixelField cannot be finetuned: distill .* planes"):
        Distillation(system, context(), SDS(), FEW)


def test_a_guidances_own_parameters_learn_and_are_stored_and_leave_the_scene_alone():
    guidance = Student(rounds=20)
    state = distill(model("scene_hashgrid", "closed_form"), context(), guidance, FEW)
    assert "guidance.fraction" in state.state_dict()
    assert guidance.fraction.item() != 0.5
    made = realfusion(guidance=Student())
    assert "guidance.fraction" in made.state_dict()
    optimizer = made.configure_optimizers()
    assert any(p is made.guidance.fraction for group in optimizer.param_groups for p in group["params"])
    losses(made)["student"].backward()
    assert made.guidance.fraction.grad is not None and made.scene.grid.table.grad is None
