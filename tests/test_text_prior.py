"""The text prior: diffusers opens what it saves, and it agrees with diffusers' own pipeline."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from text_folder import CAPTIONS, tiny_folder, tiny_prior
from vcgen.diffusion.text_networks import TextPriorOptions, new_tokenizer
from vcgen.diffusion.text_prior import TextCondition, TextPrior, latents_of
from vcgen.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("text") / "prior")


def test_the_folder_opens_in_diffusers_and_gives_the_same_images(folder):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    prior = TextPrior.load(folder)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["a photo of a red car, front view", "a blue fish"]
    ours = prior.sample(prompts, torch.Generator().manual_seed(3), steps=4, guidance_scale=3.0)
    start = torch.randn((2, *prior.latent_shape), generator=torch.Generator().manual_seed(3))
    theirs = pipeline(
        prompts, num_inference_steps=4, guidance_scale=3.0, latents=start, output_type="pt", height=16, width=16
    ).images
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_half_precision_halves_the_files_and_is_computed_with_in_float32(folder, tmp_path):
    prior = TextPrior.load(folder)
    prior.save(tmp_path / "half", half=True)
    sizes = [sum(f.stat().st_size for f in place.rglob("*.safetensors")) for place in (folder, tmp_path / "half")]
    assert 0.45 < sizes[1] / sizes[0] < 0.6
    again = TextPrior.load(tmp_path / "half")
    assert {p.dtype for p in (*again.parameters(), *prior.parameters())} == {torch.float32}
    prompts = ["a red car"]
    images = [p.sample(prompts, torch.Generator().manual_seed(0), steps=3, guidance_scale=2.0) for p in (prior, again)]
    torch.testing.assert_close(*images, atol=0.02, rtol=0)


def test_only_safetensors_and_text_are_written(folder):
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".txt"}
    # nobody is kept from single files
    assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1


def test_the_tokenizer_knows_its_captions_and_survives_the_disk(folder):
    prior = TextPrior.load(folder)
    fresh = new_tokenizer(CAPTIONS, 600, 16)
    for text in [*CAPTIONS, "Schrödinger's  quokka, 7 views"]:
        assert prior.tokenizer(text).input_ids == fresh(text).input_ids
        assert fresh.unk_token_id not in fresh(text).input_ids[1:-1]  # it is the end mark, too
    assert len(fresh("a photo of a red car").input_ids) == 2 + 6  # every word of the captions has its own entry
    assert fresh.decode(fresh("a red car").input_ids, skip_special_tokens=True) == "a red car"


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoising_the_true_output_gives_the_clean_latents_and_the_noise(prediction):
    prior = tiny_prior(prediction=prediction)
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn((3, *prior.latent_shape), generator=generator) for _ in range(2))
    times = torch.tensor([10, 500, 900])
    survival = prior.schedule.alphas_cumprod[times].reshape(-1, 1, 1, 1)
    noisy = prior.schedule.add_noise(clean, noise, times)
    truth = noise if prediction == "epsilon" else prior.schedule.get_velocity(clean, noise, times)
    prior.forward = lambda *given: truth
    text = prior.embed(["x"] * 3)
    found = prior.denoise(noisy, times, TextCondition(text, text))
    torch.testing.assert_close(found.noise, noise, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.image * survival, clean * survival, atol=1e-4, rtol=0)
    assert float(prior.loss(clean, text, generator)[0].max()) >= 0


def test_guidance_is_stable_diffusions_convention():
    prior = tiny_prior()
    noisy, times = torch.randn((2, *prior.latent_shape)), torch.tensor([100, 700])
    text, without = prior.embed(["a red car", "a blue fish"]), prior.embed([""])
    given, plain = prior(noisy, times, text), prior(noisy, times, without.expand_as(text))
    torch.testing.assert_close(
        prior.guided(noisy, times, TextCondition(text, without), 7.5),
        plain + 7.5 * (given - plain),
        atol=1e-4,
        rtol=1e-4,
    )
    torch.testing.assert_close(prior.guided(noisy, times, TextCondition(text, without), 1.0), given)
    torch.testing.assert_close(
        prior.guided(noisy, times, TextCondition(text, without), 0.0), plain, atol=1e-5, rtol=1e-4
    )


def test_images_of_other_sizes_are_resized_and_the_gradient_reaches_them():
    prior = tiny_prior()
    images = (torch.rand(1, 3, 24, 24) * 2 - 1).requires_grad_()
    latents = prior.encode(images)
    assert latents.shape == (1, *prior.latent_shape) and prior.decode(latents).shape == (1, 3, 16, 16)
    latents.square().sum().backward()
    assert images.grad.abs().max() > 0
    assert not latents_of(prior, torch.rand(1, 3, 16, 16), torch.Generator()).requires_grad
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        latents_of(prior, images.detach() - 1, torch.Generator())


def test_what_is_no_prior_is_refused_in_one_line(tmp_path, folder):
    with pytest.raises(UserError, match=r"no model_index.json"):
        TextPrior.load(tmp_path)
    with pytest.raises(UserError, match="download: true"):
        TextPrior.load("somebody/something")
    (folder / "unet" / "config.json").rename(tmp_path / "kept")
    try:
        with pytest.raises(UserError, match=r"config.json is missing"):
            TextPrior.load(folder)
    finally:
        (tmp_path / "kept").rename(folder / "unet" / "config.json")
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


@pytest.mark.slow
def test_a_hub_name_is_found_in_this_computers_cache_without_a_network(folder, tmp_path):
    """The hub's own layout: the name's folder, the commit that a branch stands for, that commit's files."""
    commit, cache = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(folder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    program = """
import socket, sys
def refused(*arguments):
    raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = refused
from vcgen.diffusion.text_prior import TextCondition, TextPrior
found, given = TextPrior.load("somebody/tiny"), TextPrior.load(sys.argv[1])
assert all((a == b).all() for a, b in zip(found.parameters(), given.parameters(), strict=True))
assert found.name == "somebody/tiny"
"""
    hub = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))} | {
        "HF_HOME": str(tmp_path)
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, env=hub, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        TextPriorOptions(size=40)
    with pytest.raises(ValueError, match="heads"):
        TextPriorOptions(width=100, heads=6)
