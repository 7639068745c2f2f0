"""Textual inversion against a prior whose best word is known."""

import torch
from torch import Tensor

from small_personalization import example, system
from text_folder import tiny_prior
from vcgen.diffusion.schedule import training_target
from vcgen.diffusion.text_prior import TextPrior
from vcgen.personalization.textual_inversion import TextualInversion, nearest_word

IMAGES = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def gaussian_prior(target: Tensor) -> TextPrior:
    """Knows one latent for each text, a linear map of the text: what it denoises to. Nothing to train, and its optimum
    is known.
    """
    prior = tiny_prior().requires_grad_(False)
    mapping = torch.randn(32, target.numel(), generator=torch.Generator().manual_seed(1))

    def forward(noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        clean = (text.mean(1) @ mapping).reshape(-1, *prior.latent_shape)
        survival = prior.schedule.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        noise = (noisy - survival.sqrt() * clean) / (1 - survival).sqrt()
        return training_target(prior.schedule, clean, noise, timesteps)

    prior.forward = forward
    prior.mean_of = lambda prompts: (prior.embed(prompts).mean(1) @ mapping).reshape(-1, *prior.latent_shape)
    return prior


def test_a_word_is_found_whose_text_denoises_to_the_photo():
    prior = gaussian_prior(torch.zeros(4, 8, 8))
    method = TextualInversion(initial="car")
    method.attach(prior, IMAGES)
    with torch.no_grad():
        start = method.vectors.clone()
        method.vectors.add_(
            torch.randn(method.vectors.shape, generator=torch.Generator().manual_seed(2)) * method.vectors.std()
        )
        latents = prior.mean_of(["a photo of a <e>"])  # so there is a word for it
        method.vectors.copy_(start)
        first = float((prior.mean_of(["a photo of a <e>"]) - latents).square().mean())
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        prior.loss(latents.expand(4, -1, -1, -1), prior.embed(["a photo of a <e>"] * 4), generator, min_snr=5.0)[
            0
        ].mean().backward()
        optimizer.step()
    last = float((prior.mean_of(["a photo of a <e>"]) - latents).square().mean().detach())
    assert last < 0.02 * first


def test_the_nearest_word_is_that_of_the_least_loss():
    prior = gaussian_prior(torch.zeros(4, 8, 8))
    for number, word in enumerate(words := ["car", "chair", "fish"]):
        prior.encode = lambda images, word=word: prior.mean_of([f"a photo of a {word}"]) + 0.01
        assert nearest_word(prior, IMAGES, words) == number
    method = TextualInversion(initial=words)
    method.attach(prior, IMAGES)
    assert torch.equal(
        method.vectors[0], prior.text_encoder.get_input_embeddings().known.weight[prior.tokenizer("fish").input_ids[1]]
    )


def test_each_of_several_photos_is_judged_at_low_and_at_high_noise():
    """Were each photo to have noise levels of its own, a word could fit one alone, and only where that is easy."""
    prior, seen = gaussian_prior(torch.zeros(4, 8, 8)), []

    def loss(latents, *rest, **options):
        errors, timesteps = TextPrior.loss(prior, latents, *rest, **options)
        seen.append((latents, timesteps))
        return errors, timesteps

    prior.loss = loss
    nearest_word(prior, torch.stack([IMAGES[0], 1 - IMAGES[0]]), ["car"])
    made = system(prior, TextualInversion(initial="car"))
    made.log = lambda *_, **__: None
    made.validation_step(example(count=2), 1)  # alike, but each is encoded by a draw of its own
    for latents, timesteps in seen:
        kinds = latents.flatten(1).unique(dim=0)
        assert len(kinds) == 2
        for kind in kinds:
            of_one = timesteps[(latents.flatten(1) == kind).all(1)]
            assert len(of_one) == len(timesteps) / 2 and of_one.min() < 130 and of_one.max() > 870
