"""Distillation: kept fields, what a configuration chooses, `vcgen fit -c configs/distill.yaml`, and fields that are
saved.
"""

import io
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from small_distillation import DISTILLATION, SMALL, make_folder, run, write_distillation, write_model
from training import last_checkpoint, refusal, vcgen
from vcgen.api import open_pipeline
from vcgen.checkpoints import model_folder as folder
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.errors import UserError
from vcgen.fields.hashgrid import HashGrid
from vcgen.guidance.ngd import NGD
from vcgen.guidance.sds import SDS
from vcgen.systems.distillation.data import ImageData
from vcgen.systems.distillation.distilled import Distilled, distilled, read_distillation
from vcgen.systems.distillation.loop import DistillOptions, virtual_cameras
from vcgen.types import Finetunable, Views


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_distillation(tmp_path / "distill.yaml")


@pytest.fixture(scope="module")
def context():
    return FixedScenes(read_index("data/cars64/test"), 1, 1)[0].context


def test_kept_fields_are_found_again_and_leave_the_model_as_it_is(model, context, tmp_path):
    system = folder.load(model)
    weights = {name: value.clone() for name, value in system.state_dict().items()}
    options = DistillOptions(views=2, rays=64, input_rays=16, decoder_lr=0.01)
    first = Distilled(system, NGD(rounds=2, updates=2), options, keep=tmp_path).field(context)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = Distilled(system, NGD(rounds=2, updates=2), options, keep=tmp_path).field(context)
    points = torch.rand(1, 100, 3) * 0.5 - 0.25
    for a, b in zip(first(points, points), again(points, points)):
        torch.testing.assert_close(a, b)
    assert file.stat().st_mtime_ns == written
    assert all(torch.equal(value, weights[name]) for name, value in system.state_dict().items())
    for other in (
        Distilled(system, NGD(rounds=2, updates=2), options, seed=1, keep=tmp_path),
        Distilled(system, SDS(rounds=4), options, keep=tmp_path),
    ):
        other.field(context)
    assert len(list(tmp_path.iterdir())) == 3
    file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete it"):
        Distilled(system, NGD(rounds=2, updates=2), options, keep=tmp_path).field(context)


def test_a_kept_field_is_of_one_near_and_far_one_alpha_and_one_way_to_render(model, context, tmp_path):
    options = DistillOptions(views=2, rays=64, input_rays=16)
    made = lambda: Distilled(folder.load(model), NGD(rounds=1, updates=1), options, keep=tmp_path)
    first, other = made(), made()
    other.system.config["init_args"]["render"]["samples"] += 1
    cameras, white = context.cameras, replace(context, images=torch.ones_like(context.images))
    names = [
        first.name_of(context),
        first.name_of(replace(context, cameras=replace(cameras, near=cameras.near + 0.1))),
        first.name_of(replace(context, cameras=replace(cameras, far=cameras.far + 0.1))),
        first.name_of(replace(white, alpha=torch.zeros_like(context.alpha))),
        first.name_of(white),
        other.name_of(context),
    ]
    assert len(set(names)) == len(names) and made().name_of(context) == names[0]


def test_the_configuration_gives_the_guidance_and_only_a_distillation_will_do(model, config, tmp_path):
    system = folder.load(model)
    found = distilled(system, str(config))
    assert found.guidance == NGD(rounds=2, updates=2) and found.options.views == 2
    for wrong, words in (
        ("configs/cars64.yaml", "not Distill"),
        (str(tmp_path / "absent.yaml"), "see configs/distill.yaml"),
    ):
        with pytest.raises(UserError, match=words):
            distilled(system, wrong)
    write_distillation(config, guidance={"class_path": "NGD", "init_args": {"round": 2}})
    with pytest.raises(UserError, match="round"):
        distilled(system, str(config))
    with pytest.raises(UserError, match="no diffusion prior"):
        distilled(folder.load(make_folder(tmp_path / "bare", prior=False)), "default")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got `null`"),
        ("[1", "expected"),
        ("a: b: c", "not allowed"),
        ("model: 3", "at `$.model`"),
        ("model: {class_path: [Distill]}", "at `$.model"),
        ("model: {class_path: Distill, init_args: []}", "at `$.model.init_args`"),
        ("model: {class_path: Distill}\nmodel: {}", "model is given twice"),
        ("a: &a [1]\nb: [*a, *a]", "refers to its own parts"),
        ("x" * 70_000, "longer than"),
        ("[" * 3000, "recursion"),
        (
            (
                "model: {class_path: Distill, init_args: {guidance: {class_path: NGD, init_args: {rounds:"
                " !!python/name:os.system }}}}"
            ),
            "constructor",
        ),
        (
            "model: {class_path: Distill, init_args: {options: {views: 1" + "0" * 5000 + "}}}",
            "see configs/distill.yaml",
        ),
        ("\x00", "see configs"),
    ],
)
def test_configurations_that_are_none_are_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "stage.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_distillation(str(tmp_path / "stage.yaml"))
    assert words in str(error.value) and str(error.value).isprintable()


def test_the_configuration_may_ask_for_score_distillation_and_for_the_decoder_alone(model, context, config):
    guidance = {"class_path": "SDS", "init_args": {"start": 0.9, "rounds": 3, "updates": 1}}

    def asked(rates: dict) -> Distilled:
        options = {**DISTILLATION["init_args"]["options"], **rates}
        return distilled(folder.load(model), str(write_distillation(config, guidance=guidance, options=options)))

    found = asked({"scene_lr": None, "decoder_lr": 1e-3})
    assert (
        found.guidance == SDS(start=0.9, end=0.02, rounds=3, updates=1)
        and json.loads(found.settings)["guidance"]["class"] == "SDS"
    )
    after, before = found.field(context), found.last.first
    assert found.last.updates == 3 and torch.equal(before.planes, after.planes)
    assert not all(
        torch.equal(a, b) for a, b in zip(before.decoder.parameters(), after.decoder.parameters(), strict=True)
    )
    with pytest.raises(UserError, match="nothing is left to finetune") as error:
        asked({"scene_lr": None})
    assert "\n" not in str(error.value)


def test_without_a_file_the_settings_are_those_of_the_shipped_configuration(model):
    system = folder.load(model)
    without, shipped = distilled(system, "default"), distilled(system, "configs/distill.yaml")
    assert type(without.guidance) is type(shipped.guidance) is NGD
    for ours, theirs in ((without.guidance, shipped.guidance), (without.options, shipped.options)):
        assert [(f.name, getattr(ours, f.name)) for f in fields(ours)] == [
            (f.name, getattr(theirs, f.name)) for f in fields(theirs)
        ]
    # What the file says, as plain YAML.
    stage = yaml.safe_load(Path("configs/distill.yaml").read_text())["model"]["init_args"]
    for ours, said in ((without.guidance, stage["guidance"]["init_args"]), (without.options, stage["options"])):
        assert {name: getattr(ours, name) for name in said} == said
    assert stage["guidance"]["init_args"].keys() == {field.name for field in fields(NGD)}


def test_the_data_of_another_stage_and_accumulated_gradients_are_refused(capsys, model, tmp_path):
    config = yaml.safe_load(Path("configs/distill.yaml").read_text())
    config["data"] = {"class_path": "ShardData", "init_args": {"train": "data/cars64/train"}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    line = refusal(capsys, vcgen("fit", tmp_path / "wrong.yaml", tmp_path / "run", model__model=model))
    assert "Distill does not learn from ShardData; set data to SceneData or ImageData" in line
    status = vcgen("fit", "configs/distill.yaml", tmp_path, model__model=model, trainer__accumulate_grad_batches=2)
    assert "set trainer.accumulate_grad_batches to 1" in refusal(capsys, status)


def test_a_field_that_could_not_be_kept_is_refused_before_it_is_distilled(capsys, model, tmp_path, monkeypatch):
    monkeypatch.delattr(TriplaneEncoder, "recipe")
    line = refusal(capsys, vcgen("fit", "configs/distill.yaml", tmp_path, model__model=model, **SMALL))
    assert "TriplaneEncoder cannot be kept" in line and not (tmp_path / "checkpoints").exists()


def test_an_image_is_distilled_as_a_training_run(capsys, model, tmp_path):
    image = Image.new("RGB", (90, 50), "white")
    ImageDraw.Draw(image).rectangle((20, 15, 45, 40), fill=(200, 30, 30))
    image.save(tmp_path / "car.png")

    def fit(out: Path) -> int:
        overlay = dict(
            config="configs/distill_image.yaml", trainer__default_root_dir=out, data__image=tmp_path / "car.png"
        )
        return vcgen("fit", "configs/distill.yaml", out, **overlay, model__model=model, **SMALL)

    assert fit(tmp_path / "run") == 0
    # The very view that `vcgen render` and `vcgen.load` would take from the file.
    data = ImageData(tmp_path / "car.png", model)
    data.setup("fit")
    expected = open_pipeline(model).context(tmp_path / "car.png")
    assert torch.equal(data.example.context.images, expected.images) and torch.equal(
        data.example.context.cameras.c2w, expected.cameras.c2w
    )
    cameras, system = expected.cameras, folder.load(model)
    with torch.no_grad():
        before = system.render(system.field(expected), cameras, (64, 64)).rgb
        alone = folder.load(tmp_path / "run" / "field")
        after = alone.render(alone.field(expected), cameras, (64, 64)).rgb
    truth = expected.on(1.0)
    assert (after - truth).square().mean() < (before - truth).square().mean()
    Image.new("RGB", (64, 64), "white").save(tmp_path / "car.png")
    assert "shows no object" in refusal(capsys, fit(tmp_path / "empty"))
    assert not (tmp_path / "empty" / "checkpoints").exists()


def test_tensorboard_shows_the_virtual_views_above_what_they_are_pulled_towards(model, context, tmp_path):
    """One sheet per round. Before the first update the upper row is the amortized field's; the lower is not, as the
    prior has its say.
    """
    run(tmp_path, model, model__images_every=1, model__guidance__start=0.6)  # by 0.98 the prior has next to no say
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    sheets = events.Images("virtual/renderings_above_targets")
    assert [sheet.step for sheet in sheets] == [0, 2, 4]
    first = np.asarray(Image.open(io.BytesIO(sheets[0].encoded_image_string)).convert("RGB")).astype(int)
    assert first.shape == (2 * 64 + 2, 2 * 64 + 2, 3)  # two virtual views, two white pixels between
    system = folder.load(model)
    with torch.no_grad():
        field = system.field(context)
        cameras = virtual_cameras(context.cameras[:, 0], field.center, 2, DistillOptions().elevations)
        seen = system.render(field, cameras, (64, 64)).rgb[0].permute(0, 2, 3, 1).numpy() * 255
    upper, lower = (
        [first[66 * row : 66 * row + 64, 66 * view : 66 * view + 64] for view in range(2)] for row in range(2)
    )
    for view in range(2):
        assert abs(upper[view] - seen[view]).max() < 5  # bfloat16 in training
        assert abs(lower[view] - seen[view]).mean() > 5


def test_the_saved_field_renders_without_the_model(model, tmp_path):
    run(tmp_path, model)
    alone = folder.load(tmp_path / "field")
    assert alone.prior is None
    example = FixedScenes(read_index("data/cars64/test"), 1, 2)[0]
    system = folder.load(model)
    with torch.no_grad():
        seen = alone.render(alone.field(example.context), example.target.cameras, (64, 64)).rgb
        before = system.render(system.field(example.context), example.target.cameras, (64, 64)).rgb
        field = finetuned(system.field(example.context), last_checkpoint(tmp_path))
        expected = system.render(field, example.target.cameras, (64, 64)).rgb
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(seen, before, atol=1e-3)


def finetuned(field: Finetunable, checkpoint: dict) -> Finetunable:
    """A model's field with the weights that a distillation's checkpoint holds."""
    weights, prefix = field.weights(), "state.weights."
    weights.load_state_dict(
        {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    )
    return field.with_weights(weights)


@torch.no_grad()
def test_a_hash_grid_is_distilled_saved_and_kept_as_planes_are(context, tmp_path):
    torch.manual_seed(0)
    arguments = {
        "grid": {"levels": 3, "log2_size": 10, "coarsest": 4, "finest": 16},
        "half_size": 0.56,
        "radius": 0.51,
        "hidden": 16,
    }
    encoder = SceneHashGrid(HashGrid(**arguments["grid"]), 0.56, 0.51, hidden=16)
    model = write_model(tmp_path / "model", encoder, "vcgen.encoders.scene_hashgrid.SceneHashGrid", arguments)
    checkpoint = run(tmp_path / "run", model, model__options__decoder_lr=0.01)
    alone, system, size = folder.load(tmp_path / "run" / "field"), folder.load(model), (64, 64)
    assert alone.prior is None
    saved, field = alone.field(context), finetuned(system.field(context), checkpoint)
    seen, expected, first = (system.render(f, context.cameras, size).rgb for f in (saved, field, system.field(context)))
    assert torch.equal(seen, expected) and not torch.allclose(seen, first, atol=1e-3)
    options = DistillOptions(views=2, rays=64, input_rays=16)
    stage = Distilled(system, NGD(rounds=2, updates=2), replace(options, decoder_lr=0.01), keep=tmp_path / "kept")
    seen, again = (system.render(stage.field(context), context.cameras, size).rgb for _ in range(2))
    assert torch.equal(seen, again) and len(list((tmp_path / "kept").iterdir())) == 1
    assert torch.equal(system.render(system.field(context), context.cameras, size).rgb, first)
    both = Views(
        torch.cat([context.images, context.images / 2]), context.cameras[[0, 0]], context.alpha.repeat(2, 1, 1, 1, 1)
    )
    with pytest.raises(UserError, match="one image at a time"):
        Distilled(system, NGD(rounds=2, updates=2), options, keep=tmp_path / "both").distill_together(both)
