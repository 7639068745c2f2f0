"""GeNVS and CLIP as on a GPU, under fake tensors, see test_fake_gpu.py."""

from typing import get_args

import pytest
import torch

import small_realfusion
import small_text_to_3d
from test_fake_gpu import (
    CAPTIONS,
    FINITE,
    ONCE,
    RAYS,
    SHADED,
    SKIPPED,
    WATCHED,
    WORDS,
    FakeGpu,
    attended,
    example,
    places,
    step,
)
from text_folder import tiny_clip, tiny_folder
from vcgen.diffusion.feature_prior import FeaturePrior
from vcgen.encoders.feature_volume import FeatureVolume
from vcgen.guidance.clip import ClipGuidance, Kind
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.clip.networks import ClipOptions
from vcgen.systems.clip.system import ClipTraining
from vcgen.systems.genvs import GeNVS
from vcgen.systems.nerfdiff import PriorOptions


@pytest.mark.integration
def test_features_are_learned_and_sampled_along_a_path_without_further_waits():
    encoder = FeatureVolume(4, 2, 8, channels=(32,), layers=1, attention=(False,))
    prior = FeaturePrior(4, (32,), 1, (False,), patch=2, size=16)
    joint = PriorOptions(field_gradient_from=0, condition_size=8)
    system, batch = GeNVS(encoder, RenderOptions(4), rays_per_view=8, prior=prior, prior_options=joint), example()
    with FakeGpu() as gpu:
        system, batch = attended(system), batch.to("cuda")
        assert places(gpu, lambda: step(system, batch)) == {FINITE, ONCE}
        system.eval()
        cameras = batch.target.cameras[:, [0, 0, 0]]

        def draw() -> None:
            drawn = system.sample_along(batch.context, cameras, torch.Generator("cuda"), steps=2)
            assert drawn.shape == (2, 3, 3, 16, 16) and drawn.device.type == "cuda"

        assert places(gpu, draw) == {RAYS}


@pytest.mark.integration
def test_a_clip_step_waits_for_its_captions_alone(tmp_path):
    (tmp_path / "captions.json").write_text('{"car1": {"names": ["car"], "front": 0}, "car2": {"names": ["chair"]}}')
    sizes = ClipOptions(16, 8, 16, 1, 2, 8)
    text = str(tiny_folder(tmp_path / "prior"))
    system = ClipTraining(tmp_path / "captions.json", OptimizerOptions(), text, sizes=sizes)
    batch = example()
    with FakeGpu(answer=0) as gpu:
        system, batch = attended(system), batch.to("cuda")
        assert places(gpu, lambda: step(system, batch)) == {FINITE, *CAPTIONS}
        with torch.no_grad():
            system.on_validation_epoch_start()
            system.validation_step(batch, 0)


@pytest.mark.integration
def test_guidance_by_clip_adds_no_waits(tmp_path):
    guidance = ClipGuidance(str(tiny_clip(tmp_path)), crops=5, backgrounds=get_args(Kind))
    made, batch = small_text_to_3d.system(guidance=guidance), small_realfusion.photo()
    with FakeGpu(answer=0) as gpu:
        batch, made = batch.to("cuda"), attended(made)
        made.reference = made.reference.to("cuda")
        guidance.scorer.to("cuda")
        assert places(gpu, lambda: step(made, batch)) == {FINITE, *SKIPPED, SHADED[0], WORDS, *WATCHED}
