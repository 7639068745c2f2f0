"""Prompts: what is longer than the text encoder reads is said, and refused where the object's name or the view would be
lost.
"""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_personalization import system
from text_folder import CAPTIONS, TINY, tiny_prior
from vcgen.diffusion.prompts import fault_of
from vcgen.diffusion.text_networks import TextPriorOptions, new_text_prior
from vcgen.errors import UserError
from vcgen.personalization.base import load_personal
from vcgen.personalization.class_images import Preservation
from vcgen.personalization.lora import LoRA
from vcgen.personalization.textual_inversion import TextualInversion
from vcgen.systems.personalize import Personalize, ViewImages
from vcgen.systems.text_to_3d.options import Prompt

PRIOR = tiny_prior()
LONG = "a photo of a " + "red " * 30 + "car, front view"


def test_what_is_cut_off_is_named_with_the_limit():
    with pytest.warns(UserWarning, match="of which the text prior new reads 24: .*front view' is lost") as said:
        numbers = PRIOR.tokens([LONG, "a photo of a car"])
    assert numbers.shape == (2, 24) and len(said) == 1 and "\n" not in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = " ".join(["car"] * 22)
        assert (
            len(PRIOR.encoded(exact)) == 22
            and not PRIOR.overlong(exact)
            and "'car' is lost" in PRIOR.overlong(exact + " car")
        )
        PRIOR.tokens([exact, ""])


def test_the_text_encoders_own_limit_counts_where_the_tokenizer_states_none():
    prior = tiny_prior()
    prior.tokenizer.model_max_length = int(1e30)  # transformers' word for "not stated"
    assert prior.length == 24 and prior.embed(["a red car"]).shape[1] == 24


def test_what_must_reach_the_network_is_required():
    PRIOR.require("a photo of a red car, front view", "red car", "front view", "")
    with pytest.raises(UserError, match=r"reads 24: .*'front view' does not reach the network"):
        PRIOR.require(LONG, "red", "front view")
    with pytest.raises(UserError, match="does not hold 'car' as words of its own"):
        PRIOR.require("a photo of cars", "car")


@pytest.mark.parametrize(
    ("template", "needed", "fault"),
    [
        ("a photo of a {}", [""], ""),
        ("a photo of a {subject}, {view} view", ["subject"], ""),
        ("a photo", [""], "lacks {}"),
        ("a {} of {x}", [""], "may hold {} alone"),
        ("a {} of {}", [""], "may hold {} alone"),
        ("a {", [""], "may hold"),
        ("a {subject.x}", [], "may hold {subject} and {view} alone"),
        ("a {view} view", ["subject"], "lacks {subject}"),
        (" ", [], "empty"),
    ],
)
def test_templates_hold_what_they_must_and_nothing_else(template, needed, fault):
    found = fault_of(template, needed, [] if "" in needed else ["subject", "view"])
    assert fault in found and bool(fault) == bool(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": TextualInversion(initial="car", vectors=30)}, "'<e> <e>_1 .*does not reach the network"),
        (
            {"view": "front view of the thing as it stands in the middle of the white room"},
            "'front view of the .*does not reach",
        ),
        ({"images": ViewImages("a {} " + "red " * 20)}, "'front view' does not reach"),
        (
            {"method": LoRA(noun="car"), "preservation": Preservation(prompts=("red " * 30 + "{}",))},
            "'car' does not reach",
        ),
        ({"templates": ("a photo of {}s",), "method": LoRA(noun="car")}, "does not hold 'sks car' as words of its own"),
    ],
)
def test_a_personalization_whose_words_would_be_lost_is_refused(options, message):
    made = system(tiny_prior(), options.pop("method", TextualInversion(initial="car")), **options)
    with pytest.raises(UserError, match=message) as refused:
        made.check_prompts(made.prior)
    assert "\n" not in str(refused.value)


def test_a_personalization_whose_words_fit_is_not(recwarn):
    made = system(
        tiny_prior(), TextualInversion(initial="car", vectors=3), templates=("a photo of a {}",), view="front view"
    )
    made.check_prompts(made.prior)
    made.embed([words.format(made.method.phrase) for words in made.templates])
    assert not [warning for warning in recwarn if "lost" in str(warning.message)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Personalize("none", TextualInversion(), None, templates=("a {x}",)),
        lambda: ViewImages(prompt="a photo"),
        lambda: ViewImages(prompt="{y} {}"),
        lambda: Preservation(prompts=("a photo of a {}", "a photo")),
        lambda: Prompt(subject="car", template="a photo"),
        lambda: Prompt(subject=" "),
        lambda: Prompt(template=""),
        lambda: Prompt(template="{subject} {0}"),
    ],
)
def test_templates_without_their_words_are_refused(make):
    with pytest.raises((UserError, ValueError), match=r"template|subject"):
        make()


def test_the_learned_name_is_the_subject_or_in_it():
    assert Prompt().of("side") == "a photo of a object, side view"
    assert Prompt().with_learned("<e>").of("side") == "a photo of a <e>, side view"
    assert Prompt("small <e>").with_learned("<e>").of("side") == "a photo of a small <e>, side view"
    assert Prompt(template="one <e>, {view} view").with_learned("<e>").of("side") == "one <e>, side view"
    with pytest.raises(UserError, match="subject is 'car', without the learned '<e>'"):
        Prompt("car").with_learned("<e>")
    with pytest.raises(UserError, match=r"has no {subject}: the learned '<e>' would not reach"):
        Prompt(template="a photo of a car").with_learned("<e>")


def test_scene_prompts_that_lose_the_view_are_refused_and_those_without_one_are_said():
    Prompt("car").check(PRIOR, None)
    with pytest.raises(UserError, match="'front' does not reach the network"):
        Prompt("red " * 16 + "car").check(PRIOR, None)
    with pytest.warns(UserWarning, match="has no {view}"):
        Prompt("car", "a photo of a {subject}").check(PRIOR, None)


def test_captions_that_would_be_cut_are_refused_with_the_length_they_need():
    with pytest.raises(UserError, match=r"model.sizes.length is 8: set it to (1[0-9])") as refused:
        new_text_prior(CAPTIONS, TextPriorOptions(**{**vars(TINY), "length": 8}))
    enough = int(str(refused.value).partition("set it to ")[2].split(",")[0])
    assert new_text_prior(CAPTIONS, TextPriorOptions(**{**vars(TINY), "length": enough})).length == enough


def saved(method, folder):
    prior = tiny_prior().requires_grad_(False)
    method.attach(prior, torch.rand(1, 3, 16, 16))
    folder.mkdir()
    method.save(prior, folder)
    return folder


def test_what_another_prior_has_learned_is_refused(tmp_path):
    word = saved(TextualInversion(initial="car"), tmp_path / "word")
    assert load_personal(tiny_prior().half().float(), word) == "<e>"  # the same prior, stored in half precision
    with pytest.raises(UserError, match="learned with another text encoder"):
        load_personal(tiny_prior(seed=1), word)
    note = json.loads((word / "personal.json").read_text())
    (word / "personal.json").write_text(json.dumps({**note, "phrase": "<f>"}))
    with pytest.raises(UserError, match=r"says '<f>', but learned_embeds.safetensors holds '<e>'"):
        load_personal(tiny_prior(), word)
    lora = saved(LoRA(noun="car"), tmp_path / "lora")
    path = lora / "pytorch_lora_weights.safetensors"
    weights = load_file(path)
    extra = {
        name.replace("attentions.0", "attentions.7"): value.clone()
        for name, value in weights.items()
        if "attentions.0" in name
    }
    save_file(weights | extra, path)
    with pytest.raises(UserError, match="is no layer of the prior"):
        load_personal(tiny_prior(), lora)
