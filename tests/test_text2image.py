"""Captions, and the training of a text prior from nothing."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch.nn.parallel import DistributedDataParallel

from text_folder import CAPTIONS, tiny_folder
from training import last_checkpoint, vcgen
from vcgen.cameras import orbit, pinhole
from vcgen.cli import main as cli
from vcgen.data.captions import Thing, all_sentences, captions, read_things, refuse_mirrored, sentence, shown
from vcgen.data.color_names import COLORS, color_words
from vcgen.data.datamodules.augment import mirror
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.data.viewpoints import view_word
from vcgen.diffusion.text_networks import TextPriorOptions, known_text_prior
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.systems.text2image import TextToImage
from vcgen.types import Views

CONFIG = """
seed_everything: 0
trainer: {max_steps: 4, accelerator: cpu, val_check_interval: 2, check_val_every_n_epoch: null, num_sanity_val_steps: 0}
data:
  class_path: ShardData
  init_args: {train: data/cars64/train, hold_out: 2, batch_size: 2, targets: 1, val_scenes: 1, val_targets: 1,
              num_workers: 0}
model:
  class_path: TextToImage
  init_args:
    captions: CAPTIONS
    sizes: {size: 64, autoencoder: [16, 16, 16], channels: [16, 32], vocabulary: 600, length: 16, width: 32, depth: 1,
            heads: 2}
    autoencoder_steps: 2
    autoencoder_images: 2
    recolor: 0.5
    prompts: ["a photo of a car"]
    optimizer: {lr: 1.0e-3, muon_lr: 1.0e-2, warmup_steps: 1, schedule: constant}
checkpoint: {monitor: val/denoising, mode: min}
"""


def views(azimuths: list[float], elevations: list[float], color: tuple[float, float, float] = (1.0, 0.0, 0.0)) -> Views:
    """One scene seen from there: a square of one color on nothing."""
    cameras = orbit(torch.tensor(azimuths), torch.tensor(elevations), 1.3, pinhole(1.0), 0.8, 1.8)
    images = torch.zeros(1, len(azimuths), 3, 8, 8)
    images[..., 2:6, 2:6] = torch.tensor(color)[:, None, None]
    alpha = torch.zeros(1, len(azimuths), 1, 8, 8)
    alpha[..., 2:6, 2:6] = 1
    return Views(images, cameras.reshape(1, -1), alpha)


def test_the_sectors_of_the_view_words_are_centered():
    words = {
        -29: "front",
        0: "front",
        29: "front",
        31: "side",
        90: "side",
        149: "side",
        151: "back",
        180: "back",
        209: "back",
        211: "side",
    }
    assert {angle: view_word(angle, 20) for angle in words} == words
    assert (
        view_word(0, 61) == view_word(120, 90) == "overhead"
        and view_word(0, -61) == "bottom"
        and view_word(360, 59) == "front"
    )


def test_captions_say_what_is_seen_from_where():
    seen = views([0.0, 90.0, 180.0, 10.0], [10.0, 10.0, 10.0, 75.0], (0.8, 0.1, 0.1))
    found = set()
    for seed in range(200):
        found.update(
            enumerate(captions({"x": Thing(("taxi", "car"), 0.0)}, ["x"], seen, torch.Generator().manual_seed(seed)))
        )
    for number, view in enumerate(("front", "side", "back", "overhead")):
        said = {text for place, text in found if place == number}
        assert said == {
            sentence(name, color, word) for name in ("taxi", "car") for color in ("", "red") for word in ("", view)
        }
    turned = captions({"x": Thing(("car",), 90.0)}, ["x"], seen, torch.Generator().manual_seed(1))
    assert not any("front" in text for text in (turned[0], turned[2]))
    for seed in range(50):
        nowhere = captions({"x": Thing(("tree",))}, ["x"], seen, torch.Generator().manual_seed(seed))
        assert not any(word in text for text in nowhere for word in ("front", "side", "back"))


def test_mirror_images_of_what_does_not_face_along_y_would_be_called_after_another_side():
    seen = views([90.0, 270.0], [10.0, 10.0])
    for front, words in ((0.0, ["side", "side"]), (180.0, ["side", "side"]), (90.0, ["front", "back"])):
        things = {"x": Thing(("car",), front)}
        assert [image.view for image in shown(things, ["x"], seen)] == words
        assert [image.view for image in shown(things, ["x"], mirror(seen))] == words[::-1]  # of the same images
        with nullcontext() if front != 90 else pytest.raises(UserError, match="scene x has its front at 90 degrees"):
            refuse_mirrored(things)
    refuse_mirrored({"x": Thing(("tree",))})


@pytest.mark.parametrize("name", COLORS)
def test_the_color_is_the_objects_not_the_grounds(name):
    assert color_words(views([0.0, 50.0], [0.0, 0.0], COLORS[name])) == [name]


def test_the_article_fits():
    assert (
        sentence("apple") == "a photo of an apple"
        and sentence("apple", "red", "side") == "a photo of a red apple, side view"
    )
    assert sentence("car", "orange") == "a photo of an orange car"


@pytest.mark.parametrize(
    "text", ['{"a": {"names": []}}', '{"a": 3}', "[]", "{}", "no", '{"a": {"names": ["x"], "front": "left"}}']
)
def test_damaged_caption_files_are_refused(tmp_path, text):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(UserError, match=r"captions.json"):
        read_things(tmp_path / "captions.json")
    with pytest.raises(UserError, match="no captions here"):
        read_things(tmp_path / "absent.json")


def test_a_scene_without_caption_is_named():
    with pytest.raises(UserError, match="scene y has no caption"):
        captions({"x": Thing(("car",))}, ["y"], views([0.0], [0.0]), torch.Generator())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text2image")
    keys = [entry.key for _, entry in read_index("data/cars64/train").samples]
    (folder / "captions.json").write_text(json.dumps({key: {"names": ["car"], "front": 0} for key in keys}))
    (folder / "tiny.yaml").write_text(CONFIG.replace("CAPTIONS", str(folder / "captions.json")))
    return folder / "tiny.yaml"


@pytest.mark.integration
def test_the_training_leaves_a_pipeline_and_goes_on_as_if_never_stopped(config, tmp_path):
    """The stop falls between the two phases: the autoencoder then stays, and the scale of its code is known."""
    assert vcgen("fit", config, tmp_path / "whole") == 0
    whole = last_checkpoint(tmp_path / "whole")
    assert vcgen("fit", config, tmp_path / "parts", trainer__max_steps=2) == 0
    assert not (tmp_path / "parts" / "pipeline").exists()
    half = last_checkpoint(tmp_path / "parts")
    assert vcgen("fit", config, tmp_path / "parts", ckpt_path="last") == 0
    parts = last_checkpoint(tmp_path / "parts")
    changed = set()
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, parts["state_dict"][name]), name
        if not torch.equal(tensor, half["state_dict"][name]):
            changed.add(name.split(".")[1])
    assert changed == {"unet", "text_encoder"}
    prior = TextPrior.load(tmp_path / "parts" / "pipeline")
    assert prior.vae.config.scaling_factor == pytest.approx(1 / float(parts["state_dict"]["spread"]))
    assert prior.sample(["a photo of a car"], torch.Generator().manual_seed(0), steps=2).shape == (1, 3, 64, 64)
    average = parts["callbacks"]["EMA"]["weights"]["prior.unet.conv_in.weight"]
    torch.testing.assert_close(prior.unet.conv_in.weight, average)


@pytest.mark.integration
def test_a_training_goes_on_from_another_runs_pipeline(config, tmp_path):
    """With a learning rate of zero what is left is what was given: networks, scale of the latents and tokenizer."""
    assert vcgen("fit", config, tmp_path / "first", trainer__max_steps=3) == 0
    pipeline = tmp_path / "first" / "pipeline"
    still = {"model__optimizer__lr": 0, "model__optimizer__muon_lr": 0, "trainer__max_steps": 1}
    options = {"model__pretrained": pipeline, "model__autoencoder_steps": 0}
    assert vcgen("fit", config, tmp_path / "still", **still, **options) == 0
    given, kept = (TextPrior.load(folder) for folder in (pipeline, tmp_path / "still" / "pipeline"))
    assert kept.vae.config.scaling_factor == pytest.approx(given.vae.config.scaling_factor)
    assert kept.tokenizer.get_vocab() == given.tokenizer.get_vocab()
    for name, weight in given.named_parameters():
        assert torch.equal(weight, kept.get_parameter(name)), name
    assert vcgen("fit", config, tmp_path / "on", trainer__max_steps=2, **options) == 0
    on = TextPrior.load(tmp_path / "on" / "pipeline")
    moved = {
        name.split(".")[0]
        for name, weight in given.named_parameters()
        if not torch.equal(weight, on.get_parameter(name))
    }
    assert moved == {"unet", "text_encoder"}


def test_captions_that_a_pretrained_prior_cannot_read_whole_are_refused(tmp_path):
    folder = tiny_folder(tmp_path)
    assert known_text_prior(folder, CAPTIONS).unet.conv_in.weight.requires_grad
    with pytest.raises(UserError, match=r"has \d+ tokens .* takes 24: use shorter names"):
        known_text_prior(folder, ["a photo of a " + "car " * 30])


def test_there_is_no_field_to_export(config, tmp_path, capsys):
    assert vcgen("fit", config, tmp_path / "run", trainer__max_steps=1, trainer__limit_val_batches=0) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert cli.main(["export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "model")]) == 2
    assert "TextToImage makes no field" in capsys.readouterr().err


def test_images_of_another_size_are_refused(config, tmp_path, capsys):
    assert vcgen("fit", config, tmp_path / "run", model__sizes__size=32) == 2
    assert "pack the data with --size 32" in capsys.readouterr().err


def test_sharding_is_refused_before_the_training(config):
    init_args = yaml.safe_load(config.read_text())["model"]["init_args"]
    sizes = TextPriorOptions(**init_args["sizes"])
    made = TextToImage(init_args["captions"], OptimizerOptions(), sizes)
    made._device_mesh = object()  # Lightning's strategy sets it before this hook
    with pytest.raises(UserError, match=r"^trainer.strategy sharded: a text prior is not split"):
        made.setup("fit")


@pytest.mark.parametrize("unused", [False, True])
def test_processes_must_not_wait_for_networks_whose_turn_it_is_not(config, unused):
    init_args = yaml.safe_load(config.read_text())["model"]["init_args"]
    made = TextToImage(init_args["captions"], OptimizerOptions(), TextPriorOptions(**init_args["sizes"]))
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    wrapped.find_unused_parameters = unused
    made._trainer = SimpleNamespace(strategy=SimpleNamespace(model=wrapped))
    with nullcontext() if unused else pytest.raises(UserError, match="set it to ddp_find_unused_parameters_true"):
        made.on_train_start()


@torch.no_grad()
def test_a_scene_has_the_same_noise_wherever_it_comes_in_validation(config):
    """With two ranks the second scene is the second rank's first."""
    init_args = yaml.safe_load(config.read_text())["model"]["init_args"]
    made = TextToImage(init_args["captions"], OptimizerOptions(), TextPriorOptions(**init_args["sizes"]))
    made._trainer = SimpleNamespace(global_step=made.autoencoder_steps + 1, is_global_zero=False)
    made.log = lambda *args, **kwargs: None
    example, found = FixedScenes(read_index("data/cars64/train"), 1, 3)[0], []
    for place in (0, 1):
        made.val_denoising.reset()
        made.validation_step(example, place)
        found.append(float(made.val_denoising.compute()))
    assert found[0] == found[1]


def test_every_caption_is_known_to_the_tokenizer():
    things = {"a": Thing(("taxi", "car"), 0.0), "b": Thing(("tree",))}
    said = set(all_sentences(things))
    seen = views([0.0, 90.0, 180.0, 10.0], [10.0, 10.0, 10.0, 75.0])
    for seed in range(20):
        assert said.issuperset(captions(things, ["a"], seen, torch.Generator().manual_seed(seed)))
