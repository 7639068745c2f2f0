"""`vcgen evaluate --distill` and `vcgen render --distill`: fields that are kept, found again, and made several at a
time.
"""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image, ImageDraw

from small_distillation import make_folder, run, write_distillation
from training import refusal
from vcgen.api import open_pipeline
from vcgen.checkpoints import model_folder as folder
from vcgen.cli import main as cli
from vcgen.data.datamodules.single import SceneData
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.errors import UserError
from vcgen.guidance.ngd import NGD
from vcgen.systems.distillation import distilled as distilled_module
from vcgen.systems.distillation.distilled import distilled
from vcgen.systems.distillation.loop import DistillOptions
from vcgen.systems.distillation.system import Distill


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_distillation(tmp_path / "distill.yaml")


def evaluate(model: Path, config: Path, out: Path) -> list[str]:
    """The words of a command, the configuration last."""
    protocol = "configs/protocols/cars64_view0_sparse.json"
    words = f"evaluate --data data/cars64/test --protocol {protocol} --lpips none".split()
    return [*words, "--model", str(model), "--out", str(out), "--distill", str(config)]


@pytest.mark.integration
def test_evaluate_distills_keeps_the_fields_and_goes_on(model, config, tmp_path, capsys):
    words = evaluate(model, config, tmp_path / "out")
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
    write_distillation(config, guidance=guidance)
    words = [*evaluate(model, config, tmp_path / "out"), "--together", "4", "--shard", "0/3"]
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


@pytest.mark.parametrize(("mode", "size"), [("RGBA", (64, 64)), ("RGB", (90, 50))])
def test_render_distills_images_of_any_kind_and_size(model, config, tmp_path, mode, size):
    image = Image.new(mode, size, (255, 255, 255, 0)[: len(mode)])
    ImageDraw.Draw(image).rectangle((20, 15, 45, 40), fill=(200, 30, 30, 255)[: len(mode)])
    image.save(tmp_path / "car.png")
    words = [
        "render",
        "--model",
        str(model),
        "--image",
        str(tmp_path / "car.png"),
        "--views",
        "2",
        "--turntable-frames",
        "0",
        "--mesh-resolution",
        "0",
    ]
    assert cli.main([*words, "--out", str(tmp_path / "a"), "--distill", str(config)]) == 0
    assert cli.main([*words, "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/contact_sheet.png").read_bytes() != (tmp_path / "b/contact_sheet.png").read_bytes()
    field = open_pipeline(model).distill(tmp_path / "car.png", steps=1, config=config)
    assert field.planes.shape == (1, 3, 8, 16, 16)
    with pytest.raises(UserError, match="at least 1 step"):
        open_pipeline(model).distill(tmp_path / "car.png", steps=0)


def test_rendering_many_images_again_distills_none_of_them_again(model, config, tmp_path, monkeypatch):
    images = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path in images:
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).rectangle((20, 15, 45, 40), fill=path.stem)
        image.save(path)
    words = [
        "render",
        "--model",
        str(model),
        "--image",
        *map(str, images),
        "--turntable-frames",
        "0",
        "--mesh-resolution",
        "0",
    ]
    words += ["--out", str(tmp_path / "out"), "--distill", str(config)]
    assert cli.main([*words, "--views", "2"]) == 0
    assert len(list((tmp_path / "out" / "fields").glob("*.safetensors"))) == 2
    first_view = lambda path: min((tmp_path / "out" / path.stem / "views").iterdir()).read_bytes()
    before = [first_view(path) for path in images]
    distilled_again = []
    monkeypatch.setattr(distilled_module, "distill", lambda *given, **named: distilled_again.append(given))
    assert cli.main([*words, "--views", "3"]) == 0
    assert distilled_again == []
    assert [first_view(path) for path in images] == before and before[0] != before[1]


def test_an_image_without_an_object_is_refused_before_anything_is_distilled(model, config, tmp_path, capsys):
    Image.new("RGB", (64, 64), (255, 255, 255)).save(tmp_path / "empty.png")
    words = [
        "render",
        "--model",
        str(model),
        "--image",
        str(tmp_path / "empty.png"),
        "--out",
        str(tmp_path / "out"),
        "--distill",
        str(config),
    ]
    assert cli.main(words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not (tmp_path / "out" / "views").exists()


def test_together_without_distill_is_refused(capsys, model, tmp_path):
    words = [
        "evaluate",
        "--model",
        str(model),
        "--data",
        "data/cars64/test",
        "--protocol",
        "configs/protocols/cars64_view0_sparse.json",
        "--out",
        str(tmp_path / "out"),
        "--lpips",
        "none",
        "--together",
        "4",
    ]
    assert "--distill" in refusal(capsys, cli.main(words))


@pytest.mark.integration
def test_fit_ends_by_itself_resumes_exactly_and_gives_the_field_of_the_loop_without_a_trainer(model, tmp_path):
    """To the bit: with fresh noise in each round, images and validations in between, and a seed of its own."""
    options = {"seed_everything": 7, "model__images_every": 1}
    whole = run(tmp_path / "whole", model, **options)
    assert whole["global_step"] == 6
    run(tmp_path / "parts", model, trainer__max_steps=3, **options)
    resumed = run(tmp_path / "parts", model, ckpt_path="last", **options)
    assert resumed["global_step"] == 6
    context = FixedScenes(read_index("data/cars64/test"), 1, 1)[0].context
    stage = distilled(folder.load(model), str(tmp_path / "whole" / "config.yaml"), seed=7)
    assert stage.guidance.eta > 0 and stage.field(context)
    alone = {f"state.weights.{name}": value for name, value in stage.last.weights.state_dict().items()}
    assert alone and alone.keys() <= whole["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
        assert torch.equal(value, alone.get(name, value)), name
    with pytest.raises(UserError, match="the seed of a distillation is at least 0, not -1"):
        distilled(folder.load(model), "default", seed=-1)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")  # Lightning's, of what it was not told
def test_what_was_distilled_is_validated_by_the_same_trainer(model, tmp_path):
    """From Python: Lightning sets a system up again for each stage."""
    few = DistillOptions(views=2, rays=64, input_rays=16)
    made, data = Distill(model, NGD(rounds=1, updates=2), few), SceneData(Path("data/cars64/test"))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", **quiet, num_sanity_val_steps=0)
    trainer.fit(made, datamodule=data)
    before = {name: value.clone() for name, value in made.state.weights.state_dict().items()}
    trainer.validate(made, datamodule=data, verbose=False)
    assert trainer.callback_metrics["val/psnr"].isfinite() and made.global_step == 2
    assert all(torch.equal(made.state.weights.state_dict()[name], value) for name, value in before.items())
