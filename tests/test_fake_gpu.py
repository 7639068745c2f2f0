"""Training, validation, sampling, distillation and rendering as on a GPU, under fake tensors: no operation mixes
devices, and the CPU waits for the GPU at the listed places alone.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

import small_personalization
import small_realfusion
import small_text_to_3d
from text_folder import TINY, tiny_prior
from vcgen.cameras import orbit, pinhole
from vcgen.diffusion import solvers
from vcgen.diffusion.prior import ViewPrior
from vcgen.encoders.auto_decoder import AutoDecoder
from vcgen.encoders.epipolar import EpipolarEncoder
from vcgen.encoders.ibrnet import IbrNet
from vcgen.encoders.image_code import CodeEncoder
from vcgen.encoders.light_field import LightFieldDecoder
from vcgen.encoders.pixelnerf import PixelNerf
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.encoders.scene_voxels import SceneVoxels
from vcgen.encoders.srn import SrnDecoder
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.fields.hashgrid import HashGrid
from vcgen.fields.ibrnet import IbrSampling
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.guidance.ngd import NGD
from vcgen.guidance.sds import SDS
from vcgen.guidance.sjc import SJC
from vcgen.guidance.vsd import VSD
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.personalization.dreambooth import DreamBooth
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.base import System
from vcgen.systems.distillation.loop import Distillation, DistillOptions
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.systems.text2image import TextToImage
from vcgen.types import Example, Views

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from fake_gpu import FakeGpu, backward

#: Where the CPU waits, by what is done there. docs/scaling.md says why at each place.
FINITE = "systems/base.py System.refuse_not_finite"
RAYS = "rendering/volume.py render_image"
ONCE = "diffusion/schedule.py _survival"
SKIPPED = ("fields/occupancy.py OccupiedField.kept", "fields/occupancy.py OccupancyGrid.refresh")
SHADED = ("rendering/shading.py render_shaded", "systems/text_to_3d/draws.py draw_shading")
WORDS = "systems/text_to_3d/guided.py words_of"
WATCHED = tuple(
    f"systems/text_to_3d/system.py TextTo3D.{name}" for name in ("regularizers", "on_before_optimizer_step")
)
PHOTOS = ("systems/personalize.py draw", "data/images/photo_augment.py PhotoAugmentation._changed")
CAPTIONS = ("data/captions.py shown", "data/captions.py draw_captions", "data/color_names.py color_words")
DROPPED = "systems/text2image.py TextToImage.denoising"


def light_field() -> CodeEncoder:
    return CodeEncoder(LightFieldDecoder(8, 8, shared=True, width=8, layers=1), (8, 8))


def srn_with_codes() -> AutoDecoder:
    made = AutoDecoder(SrnDecoder(8, 8, shared=True, width=8, layers=1, steps=2), 2, steps=2, rays=4)
    made.begin(["car1", "car2"])
    return made


def epipolar() -> EpipolarEncoder:
    return EpipolarEncoder(points=4, width=8, layers=1, features=4, patch=3)


def ibrnet() -> IbrNet:
    return IbrNet(IbrSampling(4, 2, sources=1), 4, (8, 8, 8), (1, 1, 1), 2, 0.51)


def triplane() -> TriplaneEncoder:
    return TriplaneEncoder(TriplaneDecoder(8, 16), 16, 8, channels=(32,), layers=1, attention=(False,))


def nerfdiff(encoder: nn.Module | None = None, **changes) -> NerfDiff:
    prior = ViewPrior((32,), attention=(False,), input_attention=False, patch=2, size=16)
    return NerfDiff(encoder or triplane(), **{"render": RenderOptions(4), "rays_per_view": 8, **changes}, prior=prior)


def example(count: int = 2, size: int = 16) -> Example:
    """Two scenes, the first view of each given."""
    cameras = orbit(torch.arange(2 * count) * 40.0, torch.full((2 * count,), 25.0), 1.3, pinhole(1.0), 0.8, 1.8)
    views = Views(torch.rand(2, count, 3, size, size), cameras.reshape(2, count), torch.ones(2, count, 1, size, size))
    return Example(views[:, :1], views[:, 1:], ("car1", "car2"))


def attended(system: System) -> System:
    """With what a trainer does for it, on the fake GPU."""
    system._trainer = SimpleNamespace(
        world_size=1, global_rank=0, global_step=0, max_steps=10, is_global_zero=False, sanity_checking=False,
        precision_plugin=SimpleNamespace(scaler=None),
    )  # fmt: skip
    system.log = system.log_dict = lambda *args, **kwargs: None
    if any(p.device.type == "cpu" for p in system.parameters()):
        return system.to("cuda")
    system._device = torch.device("cuda", 0)  # what it consists of is there already
    return system


def places(gpu: FakeGpu, call: Callable[[], object]) -> set[str]:
    """Where the CPU waits for the GPU during a call."""
    gpu.waits.clear()
    call()
    return {" ".join(place.split()[:2]) for place in gpu.waits}


def step(system: System, batch: Example, also: tuple[nn.Module, ...] = ()) -> None:
    """A training step: losses, their gradients, the optimizer."""
    learning = list({p: None for module in (system, *also) for p in module.parameters() if p.requires_grad})
    optimizer = OptimizerOptions().build(learning)
    with torch.autocast("cuda", torch.bfloat16):
        total = system.training_step(batch, 0)
    assert total.device.type == "cuda"
    backward(total)
    assert {p.grad.device.type for p in learning if p.grad is not None} == {"cuda"}
    system.on_before_optimizer_step(optimizer)
    optimizer.step()


class Solver(DPMSolverMultistepScheduler):
    """diffusers' solver, whose tables need true numbers."""

    def set_timesteps(self, *args, **kwargs) -> None:
        with _disable_current_modes():
            made = DPMSolverMultistepScheduler.from_config(self.config)
            made.set_timesteps(*args, **kwargs)
        vars(self).update(vars(made))


def test_gradients_are_those_of_autograd():
    system, batch = nerfdiff(), example()

    def gradients(take: Callable[[torch.Tensor], None]) -> dict[str, torch.Tensor]:
        system.zero_grad()
        take(sum(system.losses(batch, torch.Generator().manual_seed(0)).values()))
        return {name: p.grad for name, p in system.named_parameters() if p.grad is not None}

    ours, theirs = gradients(backward), gradients(torch.Tensor.backward)
    assert len(ours) > 100
    torch.testing.assert_close(ours, theirs)


def test_waits_are_counted_and_other_work_is_not():
    with FakeGpu() as gpu:
        numbers = torch.ones(4, device="cuda")
        assert numbers.sum().device == torch.device("cuda", 0)
        for wait in (
            lambda: float(numbers.sum()),
            lambda: bool(numbers.any()),
            numbers.tolist,
            numbers.nonzero,
            numbers.cpu,
            lambda: torch.tensor([1.0], device="cuda"),
            lambda: torch.ones(4)[numbers.sum().long()],
        ):
            assert places(gpu, wait), "not counted"
        assert not places(gpu, lambda: numbers * 2 + torch.zeros(4).to("cuda", non_blocking=True) + torch.ones(()))
        with pytest.raises(RuntimeError, match="device"):
            numbers + torch.ones(4)


@pytest.mark.parametrize(
    "encoder",
    [
        light_field,
        srn_with_codes,
        pytest.param(triplane, marks=pytest.mark.integration),
        pytest.param(epipolar, marks=pytest.mark.integration),
        pytest.param(ibrnet, marks=pytest.mark.integration),
        pytest.param(lambda: PixelNerf(width=16), marks=pytest.mark.integration),
    ],
    ids=["light field", "srn with codes", "triplane", "epipolar", "ibrnet", "pixelnerf"],
)
def test_a_joint_step_waits_once_to_see_that_all_is_finite(encoder, monkeypatch):
    # without autograd's engine
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, leaves: backward(loss) or [leaf.grad for leaf in leaves])
    fine = RenderOptions(4, importance=4, keep_coarse=True, around_depth=2)
    system, batch = nerfdiff(encoder(), render=fine, background="learned"), example()
    with FakeGpu() as gpu:
        system, batch = attended(system), batch.to("cuda")
        assert places(gpu, lambda: step(system, batch)) == {FINITE, ONCE}
        assert sum(count for place, count in gpu.waits.items() if place.startswith(FINITE)) == 1
        system.eval()
        with torch.no_grad():
            assert places(gpu, lambda: system.validation_step(batch, 0)) == {RAYS}


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_sampling_waits_for_the_number_of_rays_alone(sampler, monkeypatch):
    monkeypatch.setitem(solvers.SAMPLERS, "dpm++", Solver)
    system, batch = nerfdiff().eval(), example()
    with FakeGpu() as gpu:
        system, batch = system.to("cuda"), batch.to("cuda")
        noise = torch.Generator("cuda")

        def draw() -> None:
            drawn = system.sample(batch.context, batch.target.cameras, noise, steps=3, strength=0.7, sampler=sampler)
            assert drawn.shape == batch.target.images.shape and drawn.device.type == "cuda"

        assert places(gpu, draw) == {RAYS, ONCE}


@pytest.mark.parametrize("guidance", [NGD(rounds=2), SDS(rounds=2), SJC(rounds=2)], ids=lambda g: type(g).__name__)
def test_a_round_of_distillation_waits_for_the_number_of_rays_alone(guidance):
    grid = SceneHashGrid(HashGrid(2, 2, 8, 4, 8), hidden=8)
    system = nerfdiff(grid if isinstance(guidance, SDS) else None).eval().requires_grad_(False)
    batch, noise = example(), torch.Generator("cpu")
    with FakeGpu() as gpu:
        system, context, noise = system.to("cuda"), batch.context[:1].to("cuda"), torch.Generator("cuda")
        state = Distillation(system, context, guidance, DistillOptions(views=2, rays=8, input_rays=4))

        def update(number: int) -> None:
            loss = sum(state.losses(number, noise).values())
            optimizer = state.optimizer()
            backward(loss)
            optimizer.step()

        assert places(gpu, lambda: update(0)) == {RAYS, ONCE}
        if guidance.updates > 1:
            assert places(gpu, lambda: update(1)) == set()


@pytest.mark.integration
def test_a_fit_to_a_photo_waits_at_the_listed_places():
    made = small_realfusion.system(options={"shading": (0.0, 1.0, 0.0), "albedo_only": 0.0, "background": "network"})
    batch = small_realfusion.photo()
    with FakeGpu(answer=0) as gpu:
        batch, made = batch.to("cuda"), small_text_to_3d.with_text_on_gpu(attended(made))
        found = places(gpu, lambda: step(made, batch))
        assert found == {FINITE, ONCE, *SKIPPED, *SHADED, WORDS, *WATCHED}
        made.eval()
        field = made.field(batch.context)
        with torch.no_grad():
            assert places(gpu, lambda: made.render(field, batch.target.cameras, (8, 8))) == {RAYS, SKIPPED[0]}
            made.shaded(field, batch.target.cameras[0], (8, 8))


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["student", "latents"])
def test_a_fit_to_a_text_waits_at_the_same_places(kind):
    if kind == "student":
        made = small_text_to_3d.system(guidance=VSD())
    else:
        scene = SceneVoxels(8, 0.75, 0.75, colors="latent")
        made = small_text_to_3d.system(scene=scene, options={"render_size": 8, "albedo_only": 1.0}, guidance=SJC())
    batch = small_realfusion.photo()
    with FakeGpu(answer=0) as gpu:
        batch, made = batch.to("cuda"), small_text_to_3d.with_text_on_gpu(attended(made))
        found = places(gpu, lambda: step(made, batch))
        assert found == {FINITE, ONCE, *SKIPPED, SHADED[0], WORDS, *WATCHED}
        with torch.no_grad():
            made.render(made.field(batch.context), batch.target.cameras, (8, 8))


@pytest.mark.integration
def test_a_personalization_waits_for_what_it_draws():
    made = small_personalization.system(tiny_prior(), DreamBooth(noun="car"), batch_size=2)
    batch = small_personalization.example()
    with FakeGpu(answer=0) as gpu:
        made.prior.to("cuda")  # with what is trained of it
        batch, made = batch.to("cuda"), attended(made)
        found = places(gpu, lambda: step(made, batch, (made.prior,)))
        assert found == {FINITE, ONCE, *PHOTOS}


@pytest.mark.parametrize("trained", ["autoencoder", pytest.param("unet", marks=pytest.mark.integration)])
def test_a_text_to_image_step_waits_for_its_captions(trained, tmp_path):
    path = tmp_path / "captions.json"
    path.write_text('{"car1": {"names": ["car"], "front": 0}, "car2": {"names": ["taxi"]}}')
    system = TextToImage(path, OptimizerOptions(), TINY, autoencoder_steps=trained == "autoencoder")
    batch = example()
    with FakeGpu(answer=0) as gpu:
        system, batch = attended(system), batch.to("cuda")
        if trained == "unet":
            system.trainer.global_step = 1
        found = places(gpu, lambda: step(system, batch))
        assert found == ({FINITE} if trained == "autoencoder" else {FINITE, ONCE, *CAPTIONS, DROPPED})
        with torch.no_grad():
            system.validation_step(batch, 0)
