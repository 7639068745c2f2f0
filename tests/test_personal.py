"""Ways to teach a text prior an object: what changes, what does not, and that diffusers reads what they write."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from text_folder import tiny_folder, tiny_prior
from vcgen.diffusion.base import to_signed
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.personalization.base import load_personal, noted_phrase
from vcgen.personalization.dreambooth import DreamBooth
from vcgen.personalization.lora import LoRA
from vcgen.personalization.textual_inversion import TextualInversion

METHODS = {
    "one word": lambda: TextualInversion(initial="car"),
    "three words": lambda: TextualInversion(initial="car", vectors=3),
    "lora": lambda: LoRA(noun="car"),
    "lora with text": lambda: LoRA(noun="car", rank=2, text_encoder=True),
    "dreambooth": lambda: DreamBooth(noun="car"),
    "dreambooth with text": lambda: DreamBooth(noun="car", text_encoder=True),
}
IMAGES = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("text") / "prior")


def attached(method, folder):
    prior = TextPrior.load(folder).requires_grad_(False)
    method.attach(prior, IMAGES)
    return prior


def trained(method, folder, steps: int = 2) -> TextPrior:
    """A prior after some steps of an optimizer that would shrink every weight it is given."""
    prior = attached(method, folder)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.03, weight_decay=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        text = prior.embed([f"a photo of a {method.phrase}, front view", "a blue chair"])
        loss = prior.loss(prior.encode(to_signed(IMAGES)).expand(2, -1, -1, -1), text, generator)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prior


def weights(prior: TextPrior) -> dict[str, Tensor]:
    return {
        name.replace(".known.", ".").replace(".base_layer.", "."): p.detach() for name, p in prior.state_dict().items()
    }


def drawn(prior: TextPrior, prompt: str) -> Tensor:
    return prior.sample([prompt], torch.Generator().manual_seed(3), steps=4, guidance_scale=3.0)


def drawn_by_diffusers(pipeline: StableDiffusionPipeline, prompt: str, shape: tuple[int, int, int]) -> Tensor:
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    pipeline.set_progress_bar_config(disable=True)
    start = torch.randn((1, *shape), generator=torch.Generator().manual_seed(3))
    return pipeline(
        prompt, num_inference_steps=4, guidance_scale=3.0, latents=start, output_type="pt", height=16, width=16
    ).images


@every_method
def test_only_what_is_the_methods_own_is_trained(method, folder):
    method = method()
    before, prior = weights(TextPrior.load(folder)), trained(method, folder)
    after = weights(prior)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if isinstance(method, DreamBooth):
        assert changed and {name.split(".")[0] for name in changed} == set(method.names)
    else:
        assert changed == set()
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in method.parameters())
    assert {id(p) for p in prior.parameters() if p.requires_grad} == {id(p) for p in method.parameters()}


def test_a_new_word_is_all_that_textual_inversion_changes(folder):
    method = TextualInversion(initial="car", vectors=2)
    prior = trained(method, folder)
    fresh = TextPrior.load(folder)
    table, number = (
        fresh.text_encoder.get_input_embeddings().weight,
        fresh.tokenizer("car", add_special_tokens=False).input_ids[0],
    )
    assert [tuple(p.shape) for p in method.parameters()] == [(2, table.shape[1])]
    assert not torch.equal(method.vectors[0], table[number]) and not torch.equal(method.vectors[0], method.vectors[1])
    sentences = ["a photo of a red car, side view", "a blue fish"]
    assert torch.equal(prior.embed(sentences), fresh.embed(sentences))  # bitwise: old words mean what they meant
    start = attached(TextualInversion(initial="car"), folder)
    assert torch.equal(start.embed(["a photo of a <e>, front view"]), fresh.embed(["a photo of a car, front view"]))


@pytest.mark.integration
@every_method
def test_diffusers_reads_what_is_written_and_draws_the_same(method, folder, tmp_path):
    method = method()
    prior = trained(method, folder)
    method.save(prior, tmp_path)
    ours = drawn(prior, f"a photo of a {method.phrase}, front view")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    prompt = f"a photo of a {method.phrase}, front view"
    if isinstance(method, TextualInversion):
        pipeline.load_textual_inversion(tmp_path, weight_name="learned_embeds.safetensors", local_files_only=True)
        prompt = "a photo of a <e>, front view"  # diffusers writes out the further words by itself
    elif isinstance(method, LoRA):
        pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors", local_files_only=True)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(
            tmp_path / "pipeline", local_files_only=True, safety_checker=None
        )
    torch.testing.assert_close(ours, drawn_by_diffusers(pipeline, prompt, prior.latent_shape), atol=2e-4, rtol=0)
    assert (
        float((ours - drawn(TextPrior.load(folder), f"a photo of a {method.noun or 'car'}, front view")).abs().max())
        > 1e-2
    )


@every_method
def test_a_prior_loads_what_was_learned_and_is_a_plain_one_afterwards(method, folder, tmp_path):
    method = method()
    prior = trained(method, folder)
    method.save(prior, tmp_path)
    loaded = TextPrior.load(folder)
    phrase = load_personal(loaded, tmp_path)
    (tmp_path / "another").touch()
    assert {path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()} == {
        (tmp_path / "another").stat().st_mode
    }
    assert phrase == method.phrase and not any(p.requires_grad for p in loaded.parameters())
    ours = drawn(prior, f"a photo of a {phrase}, side view")
    torch.testing.assert_close(drawn(loaded, f"a photo of a {phrase}, side view"), ours, atol=2e-4, rtol=0)
    loaded.save(tmp_path / "again")
    torch.testing.assert_close(
        drawn(TextPrior.load(tmp_path / "again"), f"a photo of a {phrase}, side view"), ours, atol=2e-4, rtol=0
    )


def test_the_note_may_be_absent_where_the_file_says_enough(folder, tmp_path):
    method = TextualInversion("<toy>", "car", 2)
    method.save(attached(method, folder), tmp_path)
    (tmp_path / "personal.json").unlink()
    assert load_personal(TextPrior.load(folder), tmp_path) == "<toy> <toy>_1"
    assert load_personal(TextPrior.load(folder), None) is None
    lora = LoRA(noun="car")
    (tmp_path / "lora").mkdir()
    lora.save(attached(lora, folder), tmp_path / "lora")
    assert json.loads((tmp_path / "lora" / "personal.json").read_text())["phrase"] == "sks car"
    (tmp_path / "lora" / "personal.json").unlink()
    assert load_personal(TextPrior.load(folder), tmp_path / "lora") is None


def test_what_does_not_fit_the_prior_is_refused_in_one_line(folder, tmp_path):
    cases = {
        "empty": {},
        "wide": {"<e>": torch.zeros(1, 48)},
        "two": {"<e>": torch.zeros(1, 32), "<f>": torch.zeros(1, 32)},
        "known": {"car": torch.zeros(1, 32)},
    }
    messages = {
        "empty": "nothing that was learned",
        "wide": "does not fit",
        "two": "does not fit",
        "known": "already knows 'car'",
    }
    for name, tensors in cases.items():
        (tmp_path / name).mkdir()
        if tensors:
            save_file(tensors, tmp_path / name / "learned_embeds.safetensors")
        with pytest.raises(UserError, match=messages[name]) as error:
            load_personal(TextPrior.load(folder), tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "wide" / "learned_embeds.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="its header has"):
        load_personal(TextPrior.load(folder), tmp_path / "wide")
    (tmp_path / "wide" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="and pytorch_lora"):
        load_personal(TextPrior.load(folder), tmp_path / "wide")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensors, name: tensors.pop(name), "the factors of"),
        (lambda tensors, name: tensors.update({name: tensors[name][:2].clone()}), "the factors of"),
        (lambda tensors, name: tensors.update({name: tensors[name] * float("inf")}), "holds NaN or infinity"),
        (
            lambda tensors, name: tensors.update({name.replace("blocks", "bricks"): tensors.pop(name)}),
            "is no layer of the prior",
        ),
        (lambda tensors, name: tensors.update({"unet.more": tensors[name].clone()}), "is no layer of the prior"),
    ],
)
def test_changes_that_lack_a_part_are_refused_where_diffusers_would_draw_it_at_random(tmp_path, spoil, message):
    method, prior = LoRA(noun="car", text_encoder=True), tiny_prior()
    method.attach(prior.requires_grad_(False), IMAGES)
    method.save(prior, tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert load_personal(tiny_prior(), tmp_path) == "sks car"
    tensors = load_file(path)
    spoil(tensors, next(name for name in tensors if name.startswith("unet.down_blocks")))
    save_file(tensors, path)
    with pytest.raises(UserError, match=message):
        load_personal(tiny_prior(), tmp_path)


@pytest.mark.parametrize(
    "note", [b"[]", b'{"phrase": ["a"]}', b'{"phrase": ""}', b'{"phrase": "a\\u001b[2J"}', b'{"method": "LoRA"}']
)
def test_a_damaged_note_is_refused(tmp_path, note):
    (tmp_path / "personal.json").write_bytes(note)
    with pytest.raises(UserError, match=r"personal.json: .*delete it") as error:
        noted_phrase(tmp_path)
    assert str(error.value).isprintable()


def test_a_prior_with_weights_missing_or_not_finite_is_refused(tmp_path):
    tiny_folder(tmp_path / "prior")
    path = tmp_path / "prior" / "text_encoder" / "model.safetensors"
    whole = load_file(path)
    name = next(name for name in whole if "layer_norm1.weight" in name)
    for other, message in (
        ({**whole, name: whole[name] / 0}, "has NaN or infinity"),
        ({k: v for k, v in whole.items() if k != name}, "lacks"),
    ):
        save_file(other, path, {"format": "pt"})
        with pytest.raises(UserError, match=message):
            TextPrior.load(tmp_path / "prior")


def test_the_random_factor_of_lora_depends_on_its_seed_alone(folder):
    changes = []
    for seed, state in ((0, 1), (0, 2), (5, 1)):
        method, prior = LoRA(noun="car", seed=seed), TextPrior.load(folder).requires_grad_(False)
        torch.manual_seed(state)
        before = torch.get_rng_state()
        method.attach(prior, IMAGES)
        assert torch.equal(before, torch.get_rng_state())
        changes.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    assert torch.equal(changes[0], changes[1]) and not torch.equal(changes[0], changes[2])


def test_lora_has_the_rank_and_the_layers_asked_for(folder, tmp_path):
    method = LoRA(noun="car", rank=3)
    method.save(attached(method, folder), tmp_path)
    tensors = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    adapted = {part for name in tensors for part in name.split(".") if part.startswith("to_")}
    assert adapted == {"to_q", "to_k", "to_v", "to_out"} and not any(".ff." in name for name in tensors)
    assert {min(tensor.shape) for tensor in tensors.values()} == {3} and all(
        name.startswith("unet.") for name in tensors
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda: TextualInversion("", "car"), "no word"),
        (lambda: TextualInversion("two words", "car"), "no word"),
        (lambda: TextualInversion("car", "fish"), "already knows 'car'"),
        (lambda: TextualInversion(initial="quokka"), "one token"),
        (lambda: TextualInversion(initial=""), "is nothing to the tokenizer"),
        (lambda: TextualInversion(initial=[]), "a word to start from"),
        (lambda: TextualInversion(vectors=0), "at least 1"),
        (lambda: LoRA("", "car"), "needs a token"),
        (lambda: LoRA("sks", " "), "needs a token"),
        (lambda: LoRA(rank=0), "at least 1"),
        (lambda: DreamBooth("", "car"), "needs a token"),
    ],
)
def test_words_that_cannot_be_are_refused_in_one_line(method, message, folder):
    with pytest.raises(UserError, match=message) as error:
        attached(method(), folder)
    assert "\n" not in str(error.value)


def test_priors_with_two_text_encoders_are_refused(folder, tmp_path):
    tiny_folder(tmp_path / "xl")
    config = tmp_path / "xl" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"addition_embed_type": "text_time"}))
    with pytest.raises(UserError, match="Stable Diffusion XL") as error:
        TextPrior.load(tmp_path / "xl")
    assert "\n" not in str(error.value)
