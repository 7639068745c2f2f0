"""Distillation from the command line: evaluate --distill, render --distill, fit -c configs/distill.yaml, and Model.distill."""

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
from torch import nn
from training import load, refusal, vcgen

from vcgen import cli
from vcgen.data.shards import read_index
from vcgen.data.stream import FixedScenes
from vcgen.diffusion.guidance import NGD, SDS
from vcgen.diffusion.prior import ViewPrior
from vcgen.errors import UserError
from vcgen.export import folder
from vcgen.export.model import open_model
from vcgen.nerf.encoder import TriplaneEncoder
from vcgen.nerf.hashgrid import HashGrid, SceneHashGrid
from vcgen.nerf.render import RenderOptions
from vcgen.nerf.triplane import TriplaneDecoder
from vcgen.systems import distilled as distilled_module
from vcgen.systems.distillation import DistillOptions, virtual_cameras
from vcgen.systems.distilled import Distilled, distilled
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.systems.picture_data import PictureData
from vcgen.types import Finetunable, Views

CAMERA = {"focal": 1.0254, "distance": 1.3, "elevation": 20.0, "near": 0.8, "far": 1.8}
PRIOR = {"class_path": "vcgen.diffusion.prior.ViewPrior", "init_args": {
    "channels": [32, 32], "attention": [False, False], "input_attention": False, "patch": 4,
}}
ARGUMENTS = {
    "decoder": {"channels": 8, "hidden": 16}, "plane_size": 16, "plane_channels": 8, "channels": [32, 32], "layers": 1,
    "attention": [False, False],
}
STAGE = {"class_path": "Distill", "init_args": {
    "model": "unused", "guidance": {"class_path": "NGD", "init_args": {"rounds": 2, "updates": 2}},
    "options": {"views": 2, "rays": 64, "input_rays": 16},
}}


def make_folder(path: Path, prior: bool = True) -> Path:
    torch.manual_seed(0)
    encoder = TriplaneEncoder(TriplaneDecoder(8, 16), 16, 8, channels=(32, 32), layers=1, attention=(False, False))
    return write_model(path, encoder, "vcgen.nerf.encoder.TriplaneEncoder", ARGUMENTS, prior)


def write_model(path: Path, encoder: nn.Module, class_path: str, arguments: dict, prior: bool = True) -> Path:
    """A model folder of an untrained model with this encoder."""
    network = ViewPrior(**PRIOR["init_args"]) if prior else None
    system = NerfDiff(encoder, RenderOptions(8), prior=network)
    given = {"encoder": {"class_path": class_path, "init_args": arguments}, "render": {"samples": 8}, "prior": PRIOR if prior else None}
    config = {
        "class_path": "vcgen.systems.nerfdiff.NerfDiff", "init_args": given,
        "image_size": [64, 64], "camera": CAMERA, "background": 1.0,
    }
    return folder.save(path, system.state_dict(), config, prior=system.prior)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "distill.yaml"
    path.write_text(yaml.safe_dump({"model": STAGE}))
    return path


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
    for other in (Distilled(system, NGD(rounds=2, updates=2), options, seed=1, keep=tmp_path), Distilled(system, SDS(rounds=4), options, keep=tmp_path)):
        other.field(context)
    assert len(list(tmp_path.iterdir())) == 3
    file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        Distilled(system, NGD(rounds=2, updates=2), options, keep=tmp_path).field(context)


def test_the_configuration_gives_the_guidance_and_only_a_distillation_will_do(model, config, tmp_path):
    system = folder.load(model)
    found = distilled(system, str(config))
    assert found.guidance == NGD(rounds=2, updates=2) and found.options.views == 2
    for wrong, words in (("configs/cars64.yaml", "not Distill"), (str(tmp_path / "absent.yaml"), "see configs/distill.yaml")):
        with pytest.raises(UserError, match=words):
            distilled(system, wrong)
    config.write_text(yaml.safe_dump({"model": {**STAGE, "init_args": {**STAGE["init_args"], "guidance": {"class_path": "NGD", "init_args": {"round": 2}}}}}))
    with pytest.raises(UserError, match="round"):
        distilled(system, str(config))
    with pytest.raises(UserError, match="no diffusion prior"):
        distilled(folder.load(make_folder(tmp_path / "bare", prior=False)), "default")


def test_the_configuration_may_ask_for_score_distillation_and_for_the_decoder_alone(model, context, config):
    guidance = {"class_path": "SDS", "init_args": {"start": 0.9, "rounds": 3, "updates": 1}}

    def asked(rates: dict) -> Distilled:
        options = {**STAGE["init_args"]["options"], **rates}
        stage = {"class_path": "Distill", "init_args": {"model": "unused", "guidance": guidance, "options": options}}
        config.write_text(yaml.safe_dump({"model": stage}))
        return distilled(folder.load(model), str(config))

    found = asked({"scene_lr": None, "decoder_lr": 1e-3})
    assert found.guidance == SDS(start=0.9, end=0.02, rounds=3, updates=1) and json.loads(found.settings)["guidance"]["class"] == "SDS"
    after, before = found.field(context), found.last.first
    assert found.last.updates == 3 and torch.equal(before.planes, after.planes)
    assert not all(torch.equal(a, b) for a, b in zip(before.decoder.parameters(), after.decoder.parameters(), strict=True))
    with pytest.raises(UserError, match="nothing is left to finetune") as error:
        asked({"scene_lr": None})
    assert "\n" not in str(error.value)


def test_without_a_file_the_settings_are_those_of_the_shipped_configuration(model):
    system = folder.load(model)
    without, shipped = distilled(system, "default"), distilled(system, "configs/distill.yaml")
    assert type(without.guidance) is type(shipped.guidance) is NGD
    for ours, theirs in ((without.guidance, shipped.guidance), (without.options, shipped.options)):
        assert [(f.name, getattr(ours, f.name)) for f in fields(ours)] == [(f.name, getattr(theirs, f.name)) for f in fields(theirs)]
    # What the file says, as plain YAML.
    stage = yaml.safe_load(Path("configs/distill.yaml").read_text())["model"]["init_args"]
    for ours, said in ((without.guidance, stage["guidance"]["init_args"]), (without.options, stage["options"])):
        assert {name: getattr(ours, name) for name in said} == said
    assert stage["guidance"]["init_args"].keys() == {field.name for field in fields(NGD)}


def test_evaluate_distils_keeps_the_fields_and_goes_on(model, config, tmp_path, capsys):
    words = [
        "evaluate", "--model", str(model), "--data", "data/cars64/test", "--protocol", "configs/protocols/cars64_view0_sparse.json",
        "--out", str(tmp_path / "out"), "--lpips", "none", "--distill", str(config),
    ]
    assert cli.main(words) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["counts"]["objects"] == 15 and "NGD" in results["hashes"]["distillation"]
    fields = sorted((tmp_path / "out" / "fields").iterdir())
    assert len(fields) == 15
    times = [file.stat().st_mtime_ns for file in fields]
    (next(iter((tmp_path / "out" / "records").glob("*.json")))).unlink()
    assert cli.main(words) == 0  # the object's score is made anew, from the kept field
    assert json.loads((tmp_path / "out" / "results.json").read_text())["mean"] == results["mean"]
    assert [file.stat().st_mtime_ns for file in fields] == times
    assert cli.main(words[:-2]) == 2 and "another" in capsys.readouterr().err.replace("different", "another")


def test_objects_distilled_together_are_scored_from_what_was_kept(model, config, tmp_path):
    guidance = {"class_path": "NGD", "init_args": {"rounds": 2, "updates": 2, "eta": 0.0, "gamma": 0.0, "start": 0.6}}
    config.write_text(yaml.safe_dump({"model": {**STAGE, "init_args": {**STAGE["init_args"], "guidance": guidance}}}))
    words = [
        "evaluate", "--model", str(model), "--data", "data/cars64/test", "--protocol", "configs/protocols/cars64_view0_sparse.json",
        "--out", str(tmp_path / "out"), "--lpips", "none", "--distill", str(config), "--together", "4", "--shard", "0/3",
    ]
    assert cli.main(words) == 0
    fields = list((tmp_path / "out" / "fields").iterdir())
    assert len(fields) == 5 and len(list((tmp_path / "out" / "records").glob("*.json"))) == 5
    # Alone, an object meets the same noise where none is fresh, but other rays: nearly the same field.
    system = folder.load(model)
    context = FixedScenes(read_index("data/cars64/test"), 1, 1)[0].context
    alone, grouped = distilled(system, str(config)), distilled(system, str(config), keep=tmp_path / "out" / "fields")
    assert grouped.path_of(context).is_file()
    before, a, b = (f.planes for f in (system.field(context), alone.field(context), grouped.field(context)))
    assert (a - b).norm() < (a - before).norm()


@pytest.mark.parametrize("mode, size", [("RGBA", (64, 64)), ("RGB", (90, 50))])
def test_render_distils_pictures_of_any_kind_and_size(model, config, tmp_path, mode, size):
    picture = Image.new(mode, size, (255, 255, 255, 0)[: len(mode)])
    ImageDraw.Draw(picture).rectangle((20, 15, 45, 40), fill=(200, 30, 30, 255)[: len(mode)])
    picture.save(tmp_path / "car.png")
    words = ["render", "--model", str(model), "--image", str(tmp_path / "car.png"), "--views", "2", "--turntable-frames", "0", "--mesh-resolution", "0"]
    assert cli.main([*words, "--out", str(tmp_path / "a"), "--distill", str(config)]) == 0
    assert cli.main([*words, "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/contact_sheet.png").read_bytes() != (tmp_path / "b/contact_sheet.png").read_bytes()
    field = open_model(model).distill(tmp_path / "car.png", steps=1, config=config)
    assert field.planes.shape == (1, 3, 8, 16, 16)
    with pytest.raises(UserError, match="at least 1 step"):
        open_model(model).distill(tmp_path / "car.png", steps=0)


def test_rendering_many_pictures_again_distils_none_of_them_again(model, config, tmp_path, monkeypatch):
    pictures = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path in pictures:
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).rectangle((20, 15, 45, 40), fill=path.stem)
        picture.save(path)
    words = ["render", "--model", str(model), "--image", *map(str, pictures), "--turntable-frames", "0", "--mesh-resolution", "0"]
    words += ["--out", str(tmp_path / "out"), "--distill", str(config)]
    assert cli.main([*words, "--views", "2"]) == 0
    assert len(list((tmp_path / "out" / "fields").glob("*.safetensors"))) == 2
    first_view = lambda path: sorted((tmp_path / "out" / path.stem / "views").iterdir())[0].read_bytes()  # noqa: E731
    before = [first_view(path) for path in pictures]
    distilled_again = []
    monkeypatch.setattr(distilled_module, "distil", lambda *given, **named: distilled_again.append(given))
    assert cli.main([*words, "--views", "3"]) == 0
    assert distilled_again == []
    assert [first_view(path) for path in pictures] == before and before[0] != before[1]


def test_a_picture_without_an_object_is_refused_before_anything_is_distilled(model, config, tmp_path, capsys):
    Image.new("RGB", (64, 64), (255, 255, 255)).save(tmp_path / "empty.png")
    words = ["render", "--model", str(model), "--image", str(tmp_path / "empty.png"), "--out", str(tmp_path / "out"), "--distill", str(config)]
    assert cli.main(words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not (tmp_path / "out" / "views").exists()


SMALL = dict(
    model__guidance__rounds=3, model__guidance__updates=2, model__options__views=2, model__options__rays=64, trainer__accelerator="cpu",
    trainer__val_check_interval=2, samples__turntable=0,
)


def run(out: Path, model: Path, **options) -> dict:
    assert vcgen("fit", "configs/distill.yaml", out, model__model=model, **SMALL, **options) == 0
    return load(out / "checkpoints" / "last.ckpt")


def test_the_data_of_another_stage_is_refused(capsys, model, tmp_path):
    config = yaml.safe_load(Path("configs/distill.yaml").read_text())
    config["data"] = {"class_path": "ShardData", "init_args": {"train": "data/cars64/train"}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    line = refusal(capsys, vcgen("fit", tmp_path / "wrong.yaml", tmp_path / "run", model__model=model))
    assert "SceneData or PictureData, not ShardData" in line


def test_a_picture_is_distilled_as_a_training_run(capsys, model, tmp_path):
    picture = Image.new("RGB", (90, 50), "white")
    ImageDraw.Draw(picture).rectangle((20, 15, 45, 40), fill=(200, 30, 30))
    picture.save(tmp_path / "car.png")

    def fit(out: Path) -> int:
        overlay = dict(config="configs/distill_picture.yaml", trainer__default_root_dir=out, data__image=tmp_path / "car.png")
        return vcgen("fit", "configs/distill.yaml", out, **overlay, model__model=model, **SMALL)

    assert fit(tmp_path / "run") == 0
    # The very view that `vcgen render` and `vcgen.load` would take from the file.
    data = PictureData(tmp_path / "car.png", model)
    data.setup("fit")
    expected = open_model(model).context(tmp_path / "car.png")
    assert torch.equal(data.example.context.images, expected.images) and torch.equal(data.example.context.cameras.c2w, expected.cameras.c2w)
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
    """One sheet per round. Before the first update the upper row is the amortised field's; the lower is not, as the prior has its say."""
    run(tmp_path, model, model__pictures_every=1, model__guidance__start=0.6)  # by 0.98 the prior has next to no say
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
    upper, lower = ([first[66 * row : 66 * row + 64, 66 * view : 66 * view + 64] for view in range(2)] for row in range(2))
    for view in range(2):
        assert abs(upper[view] - seen[view]).max() < 5  # bfloat16 in training
        assert abs(lower[view] - seen[view]).mean() > 5


def test_together_without_distill_is_refused(capsys, model, tmp_path):
    words = [
        "evaluate", "--model", str(model), "--data", "data/cars64/test", "--protocol", "configs/protocols/cars64_view0_sparse.json",
        "--out", str(tmp_path / "out"), "--lpips", "none", "--together", "4",
    ]
    assert "--distill" in refusal(capsys, cli.main(words))


def test_the_saved_field_renders_without_the_model(model, tmp_path):
    run(tmp_path, model)
    alone = folder.load(tmp_path / "field")
    assert alone.prior is None
    example = FixedScenes(read_index("data/cars64/test"), 1, 2)[0]
    system = folder.load(model)
    with torch.no_grad():
        seen = alone.render(alone.field(example.context), example.target.cameras, (64, 64)).rgb
        before = system.render(system.field(example.context), example.target.cameras, (64, 64)).rgb
        field = finetuned(system.field(example.context), load(tmp_path / "checkpoints" / "last.ckpt"))
        expected = system.render(field, example.target.cameras, (64, 64)).rgb
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(seen, before, atol=1e-3)


def finetuned(field: Finetunable, checkpoint: dict) -> Finetunable:
    """A model's field with the weights that a distillation's checkpoint holds."""
    weights, prefix = field.weights(), "state.weights."
    weights.load_state_dict({k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)})
    return field.with_weights(weights)


@torch.no_grad()
def test_a_hash_grid_is_distilled_saved_and_kept_as_planes_are(context, tmp_path):
    torch.manual_seed(0)
    arguments = {"grid": {"levels": 3, "log2_size": 10, "coarsest": 4, "finest": 16}, "half_size": 0.56, "radius": 0.51, "hidden": 16}
    encoder = SceneHashGrid(HashGrid(**arguments["grid"]), 0.56, 0.51, hidden=16)
    model = write_model(tmp_path / "model", encoder, "vcgen.nerf.hashgrid.SceneHashGrid", arguments)
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
    both = Views(torch.cat([context.images, context.images / 2]), context.cameras[[0, 0]], context.alpha.repeat(2, 1, 1, 1, 1))
    with pytest.raises(UserError, match="one picture at a time"):
        Distilled(system, NGD(rounds=2, updates=2), options, keep=tmp_path / "both").distil_together(both)


def test_fit_ends_by_itself_and_resumes_exactly(model, tmp_path):
    whole = run(tmp_path / "whole", model)
    assert whole["global_step"] == 6
    run(tmp_path / "parts", model, trainer__max_steps=3)
    resumed = run(tmp_path / "parts", model, ckpt_path="last")
    assert resumed["global_step"] == 6
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
