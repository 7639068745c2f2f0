"""A small CLIP from captioned renders: which captions hold for which images, the loss, backgrounds, a whole run."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPModel

from text_folder import tiny_folder
from training import assert_same_end, refusal, vcgen
from vcgen.data.captions import Caption, Shown, Thing, read_things
from vcgen.data.datamodules.shards import ShardData
from vcgen.data.shards.files import read_index
from vcgen.data.shards.joining import parted
from vcgen.data.shards.overlap import read_families
from vcgen.diffusion.clip import Clip
from vcgen.errors import UserError
from vcgen.losses.contrastive import contrastive
from vcgen.metrics.retrieval import ranks
from vcgen.systems.clip.augment import WHITE, augmented, random_backgrounds
from vcgen.systems.clip.networks import ClipOptions
from vcgen.systems.clip.system import caption_matrix, products
from vcgen.types import Views

CONFIG = """
seed_everything: 0
trainer: {max_steps: 4, accelerator: cpu, val_check_interval: 2, check_val_every_n_epoch: null, num_sanity_val_steps: 0}
data:
  class_path: ShardData
  init_args: {train: data/cars64/train, hold_out: 2, part: [0, 2], batch_size: 4, targets: 1, val_scenes: 2,
              val_targets: 1, num_workers: 0}
model:
  class_path: ClipTraining
  init_args:
    captions: PLACE/captions.json
    text: PLACE/prior
    sizes: {patch: 16, width: 16, depth: 1, heads: 2, embedding: 8}
    categories: [car, chair]
    optimizer: {lr: 1.0e-3, warmup_steps: 1, schedule: constant}
checkpoint: {monitor: val/contrast, mode: min}
"""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_caption_holds_for_every_image_that_it_does_not_contradict():
    images = [Shown(("taxi", "car"), "yellow", "front"), Shown(("car",), "red", "side"), Shown(("tree",), "green", "")]
    texts = [
        Caption("car"),
        Caption("taxi", "yellow"),
        Caption("car", "red"),
        Caption("car", "", "front"),
        Caption("tree", "green"),
        Caption("tree", "", "front"),
    ]
    expected = [[1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    assert caption_matrix(images, texts).tolist() == [[bool(x) for x in row] for row in expected]


def test_what_is_drawn_for_an_image_holds_for_it():
    image = Shown(("taxi", "car"), "yellow", "front")
    drawn = {image.draw(*torch.rand(3, generator=generator(seed)).tolist()) for seed in range(100)}
    assert len(drawn) == 8 and all(image.fits(caption) for caption in drawn)


def test_with_one_positive_each_the_loss_is_clips():
    logits = torch.randn(5, 5, generator=generator())
    own = torch.arange(5)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(contrastive(logits, torch.eye(5, dtype=torch.bool)), expected)


def test_a_shared_caption_is_not_punished():
    """Two cars, both called "a car": each of four positives is worth as much, and the best logits are alike."""
    logits, shared = torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2, dtype=torch.bool)
    loss = contrastive(logits, shared)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(torch.tensor(2.0).log().item()) and float(logits.grad.abs().max()) == 0
    single = torch.zeros(2, 2, requires_grad=True)
    contrastive(single, torch.eye(2, dtype=torch.bool)).backward()
    assert float(single.grad[0, 1]) > 0


def test_ranks_count_what_scores_as_high():
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    assert ranks(scores, torch.tensor([0, 1, 2])).tolist() == [0, 1, 2]
    nan = float("nan")
    assert ranks(torch.tensor([[nan, 0.5], [nan, nan], [0.5, nan]]), torch.zeros(3).long()).tolist() == [1, 1, 1]


def test_backgrounds_are_of_four_kinds_and_objects_are_not_darkened_twice():
    found = random_backgrounds(400, (8, 8), generator())
    white = (found == 1).flatten(1).all(1)
    flat = ~white & (found.flatten(2).std(2).amax(1) == 0)
    assert float(white.float().mean()) == pytest.approx(WHITE, abs=0.08)
    assert (
        float(flat.float().mean()) == pytest.approx((1 - WHITE) / 3, abs=0.08) and 0 <= found.min() <= found.max() <= 1
    )
    # A half transparent, red object: half of it is red, half is what lies behind.
    images = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(1, 3, 16, 16)
    over = augmented(Views(images, None, torch.full((1, 1, 16, 16), 0.5)), generator(1))
    torch.manual_seed(0)
    draws = generator(1)
    torch.rand((1, 3), generator=draws)
    behind = random_backgrounds(1, (16, 16), draws)
    torch.testing.assert_close(over[:, 1:, 8, 8], 0.5 * behind[:, 1:, 8, 8])
    torch.testing.assert_close(over[:, 0, 8, 8], 0.5 + 0.5 * behind[:, 0, 8, 8])


def test_mixed_precision_neither_moves_objects_nor_ties_texts():
    views = Views(
        torch.rand(3, 3, 32, 32, generator=generator()), None, torch.rand(3, 1, 32, 32, generator=generator(1))
    )
    images, texts = (F.normalize(torch.randn(n, 64, generator=generator(n))) for n in (8, 88))
    moved, logits = augmented(views, generator(2)), products(100 * images, texts)
    torch.testing.assert_close(logits, 100 * images @ texts.T)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augmented(views, generator(2)), moved)
        assert torch.equal(products(100 * images, texts), logits)


def test_parts_share_no_object_and_leave_none():
    index = read_index("data/cars64/train")
    families = read_families(Path("data/cars64/families.json"))
    family = {name: members[0] for members in families for name in members}
    parts = [parted([index], number, 3, families)[0] for number in range(3)]
    of = [{family.get(entry.group, entry.group) for _, entry in part.samples} for part in parts]
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2]) and abs(len(of[0]) - len(of[2])) <= 1
    assert sorted(e.key for part in parts for _, e in part.samples) == sorted(e.key for _, e in index.samples)


def test_the_bundled_captions_are_what_the_script_makes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend("data")
    import captions64

    captions64.main(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == Path("data/captions64.json").read_bytes()
    things = read_things(Path("data/captions64.json"))
    assert things["seats_kenney_benchcushionlow"].names == ("benchcushionlow", "seat")
    assert things["kenneyracing_truck-green_1"] == Thing(("truck", "car"), 0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip")
    keys = [entry.key for _, entry in read_index("data/cars64/train").samples]
    things = {key: {"names": ["car"] if i % 2 else ["chair", "car"], "front": 0} for i, key in enumerate(keys)}
    (place / "captions.json").write_text(json.dumps(things))
    (place / "sideways.json").write_text(json.dumps({key: thing | {"front": 90} for key, thing in things.items()}))
    tiny_folder(place / "prior")
    (place / "tiny.yaml").write_text(CONFIG.replace("PLACE", str(place)))
    return place / "tiny.yaml"


@pytest.mark.integration
def test_a_run_leaves_a_folder_and_goes_on_as_if_never_stopped(config, tmp_path):
    assert vcgen("fit", config, tmp_path / "whole") == 0
    assert vcgen("fit", config, tmp_path / "parts", trainer__max_steps=2) == 0
    assert vcgen("fit", config, tmp_path / "parts", ckpt_path="last") == 0
    whole = assert_same_end(tmp_path / "whole", tmp_path / "parts")
    clip = Clip.from_folder(tmp_path / "parts" / "clip")
    average = whole["callbacks"]["EMA"]["weights"]["clip.model.visual_projection.weight"]
    torch.testing.assert_close(clip.model.visual_projection.weight, average)
    assert CLIPModel.from_pretrained(tmp_path / "parts" / "clip").config.vision_config.patch_size == 16


def test_what_does_not_fit_is_refused_in_one_line(config, tmp_path, capsys):
    for options, message in (
        ({"model__categories": "[boat]"}, "'boat', which names nothing"),
        ({"model__sizes__size": 32}, "pack the data with --size 32"),
        (
            {"model__captions": config.parent / "sideways.json", "data__mirror": "true"},
            "has its front at 90 degrees, which its mirror image has at the other side",
        ),
    ):
        assert message in refusal(capsys, vcgen("fit", config, tmp_path / "run", **options))
    for options, message in (({"part": (2, 2)}, r"data\.part"), ({"hold_out": [1, 2]}, "data.hold_out has 2 numbers")):
        with pytest.raises(UserError, match=message):
            ShardData("data/cars64/train", **options)
    with pytest.raises(UserError, match="do not make 1000 parts"):
        parted([read_index("data/cars64/train")], 0, 1000)
    with pytest.raises(ValueError, match="no multiple of patch"):
        ClipOptions(patch=7)
