"""Model folders, checkpoints and distillation files of strangers name classes of vcgen, or of the user's packages, and
run nothing.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import vcgen
from vcgen.checkpoints.build import CLASSES, build_system, class_of
from vcgen.cli.main import main
from vcgen.errors import UserError

CAMERA = {"focal": 1.0254, "distance": 1.3, "elevation": 20, "near": 0.8, "far": 1.8}
ROOT = Path(__file__).parents[1]
NERFDIFF = "vcgen.systems.nerfdiff.NerfDiff"
DECODER = {"class_path": "vcgen.fields.triplane.TriplaneDecoder", "init_args": {"channels": 4, "hidden": 8}}
ENCODER = {
    "class_path": "vcgen.encoders.triplane.TriplaneEncoder",
    "init_args": {
        "decoder": DECODER,
        "plane_size": 16,
        "plane_channels": 4,
        "channels": [16, 32],
        "layers": 1,
        "attention": [False, False],
    },
}


def shell(place: Path) -> dict:
    """What jsonargparse would call: a command that leaves a file."""
    return {"class_path": "os.system", "init_args": {"command": f"touch {place / 'sprung'}"}}


#: Where strangers have put a class; each makes the arguments of a NerfDiff of what is to be called.
PLACES = {
    "ParameterDict": lambda call: {
        "encoder": {"class_path": "torch.nn.ParameterDict", "init_args": {"parameters": call}}
    },
    "ModuleList": lambda call: {"encoder": {"class_path": "torch.nn.ModuleList", "init_args": {"modules": [call]}}},
    "Sequential": lambda call: {
        "encoder": {"class_path": "torch.nn.Sequential", "init_args": {}, "dict_kwargs": {"args": [call]}}
    },
    "itself": lambda call: {"encoder": call},
    "decoder": lambda call: {"encoder": {**ENCODER, "init_args": {**ENCODER["init_args"], "decoder": call}}},
    "prior": lambda call: {"encoder": ENCODER, "prior": call},
    "list": lambda call: {"encoder": {**ENCODER, "init_args": {**ENCODER["init_args"], "channels": [call]}}},
    "dict": lambda call: {"encoder": ENCODER, "loss_weights": {"rgb": call}},
    "dataclass": lambda call: {"encoder": ENCODER, "render": call},
    "dataclass's field": lambda call: {"encoder": ENCODER, "render": {"samples": call}},
    "path": lambda call: {"encoder": ENCODER, "pretrained": call},
    "dict_kwargs": lambda call: {"encoder": {**ENCODER, "dict_kwargs": {"patch": call}}},
    "argument that there is not": lambda call: {"encoder": ENCODER, "extra": [{"deep": (call,)}]},
}


def write_folder(place: Path, class_path: str, init_args: dict) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    config = {
        "format": 1,
        "class_path": class_path,
        "init_args": init_args,
        "image_size": [16, 16],
        "camera": CAMERA,
        "background": 1.0,
    }
    (place / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(1)}, place / "model.safetensors")
    return place


def write_checkpoint(path: Path, class_path: str, init_args: dict) -> Path:
    entry = {"class_path": class_path, "init_args": init_args, "image_size": [16, 16], "camera": CAMERA}
    entry["version"] = "0.1.0"
    torch.save({"state_dict": {}, "vcgen": entry, "callbacks": {"EMA": {"weights": {}}}}, path)
    return path


@pytest.fixture
def bait(tmp_path, monkeypatch):
    """A working folder with a model folder that is a package, and other modules that tell when they are imported."""
    trap = (
        "from pathlib import Path\nfrom vcgen.encoders.triplane import"
        f" TriplaneEncoder\nPath({str(tmp_path / 'sprung')!r}).touch()\n"
    )
    for name in ("m", "vcgen_plugin", "m/inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(trap)
    for name in ("m/extra.py", "beside.py", "vcgen_plugin/parts.py"):
        (tmp_path / name).write_text(trap + "class Model(TriplaneEncoder):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def sprung(place: Path, before: set[str]) -> list[str]:
    """What shows that something was run or imported that is not ours."""
    new = {name.partition(".")[0] for name in sys.modules.keys() - before}
    return [
        *(["file"] if (place / "sprung").exists() else []),
        *(new & {"m", "vcgen_plugin", "beside", "antigravity", "this", "nowhere"}),
    ]


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", PLACES)
def test_a_command_in_a_model_folder_or_checkpoint_is_not_run(bait, name, capsys):
    arguments, before = PLACES[name](shell(bait)), set(sys.modules)
    place = write_folder(bait / "m", NERFDIFF, arguments)
    line = refused(vcgen.load, place)
    assert "config.json" in line and "none of vcgen's" in line
    checkpoint = write_checkpoint(bait / "last.ckpt", NERFDIFF, arguments)
    assert main(["export", "--checkpoint", str(checkpoint), "--out", str(bait / "out")]) == 2
    assert "none of vcgen's" in capsys.readouterr().err and not (bait / "out").exists()
    assert sprung(bait, before) == []


@pytest.mark.parametrize("command", ["render", "evaluate"])
def test_commands_do_not_run_it_either(bait, command, capsys):
    place = write_folder(bait / "m", NERFDIFF, PLACES["ParameterDict"](shell(bait)))
    (bait / "car.png").write_bytes((ROOT / "data/images/taxi.png").read_bytes())
    words = {
        "render": ["--image", "car.png"],
        "evaluate": ["--data", "d", "--protocol", str(ROOT / "configs/protocols/cars64_view0.json")],
    }[command]
    assert main([command, "--model", str(place), "--out", str(bait / "out"), "--device", "cpu", *words]) == 2
    assert "none of vcgen's" in capsys.readouterr().err and sprung(bait, set(sys.modules)) == []


#: Names that are no class of ours: they exist, do not, or are reached through our modules.
NAMES = (
    "builtins.eval", "os.system", "functools.partial", "torch.nn.Linear", "torch.nn.ParameterDict",
    "lightning.pytorch.LightningModule", "lightning.pytorch.demos.boring_classes.BoringModel", "diffusers.UNet2DModel",
    "antigravity.fly", "this.s", "nowhere.Model", "m.extra.Model", "m.inner.Model", "beside.Model", "beside",
    "vcgen_plugin.parts.Model", "vcgen_plugin", "", ".", "vcgen", "vcgen.", ".os.system", "vcgen..os",
    "vcgen.training.fit.os.system", "vcgen.checkpoints.model_folder.load", "vcgen.training.fit.run",
    "vcgen.systems.nerfdiff.NerfDiff.load_from_checkpoint", "vcgen.systems.nerfdiff.TriplaneEncoder",
    "vcgen.systems.nerfdiff.nn.Linear", "vcgen.encoders.triplane.UNet2DModel", "vcgen.encoders.triplane",
    "vcgen.systems.nerfdiff.PriorOptions", "vcgen.systems.base.FieldSystem", "vcgen.training.fit.VcgenCLI",
    "vcgen.systems.nerfdiff.NerfDiff ", "vcgen/systems/nerfdiff.NerfDiff", "VCGEN.systems.nerfdiff.NerfDiff",
    "/etc/passwd", "config.yaml", "{class_path: os.system}", "nerfdiff",
)  # fmt: skip
OTHERS = (None, 1, True, ["os.system"], {"class_path": "os.system"}, {})


@pytest.mark.parametrize("name", [*NAMES, *OTHERS], ids=str)
def test_no_other_class_is_imported_as_a_model_or_as_its_part(bait, name):
    before = set(sys.modules)
    part = {"class_path": name}
    for class_path, arguments in ((name, {}), (NERFDIFF, {"encoder": part}), (NERFDIFF, {"encoder": name})):
        refused(build_system, class_path, arguments)
    assert sprung(bait, before) == []


def test_a_class_of_ours_stands_only_where_its_type_belongs():
    prior = {"class_path": "vcgen.diffusion.prior.ViewPrior", "init_args": {}}
    for arguments, words in (
        ({"encoder": prior}, "encoder: 'vcgen.diffusion.prior.ViewPrior' stands where an Encoder belongs"),
        ({"encoder": {"class_path": NERFDIFF, "init_args": {"encoder": ENCODER}}}, "stands where an Encoder belongs"),
        ({"encoder": ENCODER, "prior": ENCODER}, "stands where an ImagePrior belongs"),
        ({"encoder": ENCODER, "prior": {"class_path": "NGD"}}, "stands where an ImagePrior belongs"),
        ({"encoder": ENCODER, "loss_weights": {"rgb": prior}}, "loss_weights: no class belongs here"),
        ({"encoder": ENCODER, "pretrained": "x", "render": {"samples": prior}}, "samples: no class belongs here"),
        ({"encoder": {**ENCODER, "dict_kwargs": {}}}, "without dict_kwargs"),
        ({"encoder": "config.yaml"}, "none of vcgen's"),
        ({"encoder": ENCODER, "render": "config.yaml"}, "none of vcgen's"),
    ):
        assert words in refused(build_system, NERFDIFF, arguments)
    assert "stands where a FieldModel belongs" in refused(build_system, ENCODER["class_path"], ENCODER["init_args"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"encoder": ENCODER, "rays_per_view": "128"}, "rays_per_view: Expected `int`, got `str`"),
        ({"encoder": ENCODER, "rays_per_view": "@file.json"}, "rays_per_view"),
        ({"encoder": ENCODER, "train_field": 1}, "train_field: Expected `bool`"),
        ({"encoder": ENCODER, "background": "red"}, "background: Invalid enum value 'red'"),
        ({"encoder": ENCODER, "render": {"sample": 3}}, "render: RenderOptions has no argument sample"),
        ({"encoder": ENCODER, "render": [1]}, "render"),
        ({"encoder": {**ENCODER, "init_args": {}}}, "encoder: TriplaneEncoder lacks decoder"),
        ({"encoder": {**ENCODER, "init_args": [1]}}, "TriplaneEncoder takes named arguments"),
        ({"encoder": None}, "encoder"),
        ({}, "NerfDiff lacks encoder"),
        ({"encoder": ENCODER, "self": 1}, "no argument self"),
        ({"encoder": {**ENCODER, "init_args": {**ENCODER["init_args"], "channels": [-16]}}}, "do not fit"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, words):
    assert words in refused(build_system, NERFDIFF, arguments)


def test_endless_arguments_are_refused_before_memory_is_taken():
    cycle, wide = {"encoder": ENCODER}, [0]
    cycle["loss_weights"] = cycle
    for _ in range(40):
        wide = [wide] * 10
    for arguments in (cycle, {"encoder": ENCODER, "loss_weights": {"rgb": wide}}, {"encoder": list(range(20_000))}):
        assert "none of vcgen's" in refused(build_system, NERFDIFF, arguments)


def test_what_may_be_named_is_there_and_is_built():
    for path in CLASSES:
        assert class_of(path, (object,), ()).__name__ == path.rpartition(".")[2]
    system = build_system(
        NERFDIFF,
        {"encoder": ENCODER, "render": {"samples": 8}, "optimizer": {"betas": [0.8, 0.9]}, "render_eval": None},
    )
    assert (
        system.encoder.decoder.head.in_features == 8
        and system.render_options.samples == 8
        and system.optimizer_options.betas == (0.8, 0.9)
    )


def test_partial_options_keep_what_the_signature_gives():
    scene = {
        "class_path": "SceneHashGrid",
        "init_args": {"grid": {"class_path": "HashGrid", "init_args": {"levels": 2, "finest": 32}}},
    }
    system = build_system(
        "vcgen.systems.realfusion.system.RealFusion", {"prior": "p", "scene": scene, "render": {"max_points": 7}}
    )
    assert (system.render_options.samples, system.render_options.max_points, system.scene.grid.levels) == (48, 7, 2)


def test_starting_weights_are_paths_of_another_computer_and_not_opened(tmp_path):
    pixels = {"class_path": "PixelNerf", "init_args": {"width": 8, "pretrained": str(tmp_path / "resnet.pth")}}
    assert build_system(NERFDIFF, {"encoder": pixels, "pretrained": str(tmp_path / "start")}).pretrained is None


def test_a_package_that_the_user_names_is_imported_and_vouches_for_its_own_classes_alone(bait, monkeypatch):
    (bait / "own_parts").mkdir()
    (bait / "own_parts" / "__init__.py").write_text(
        "import os\nfrom collections import OrderedDict\nfrom vcgen.encoders.triplane import TriplaneEncoder\nclass"
        " Finer(TriplaneEncoder):\n    def __init__(self, decoder: 'Reader', fine: bool = False):\n       "
        " super().__init__(decoder.inner, 16, 4, [16, 32], 1, [False, False])\nfrom torch import nn\nfrom typing import"
        " Any\nfrom vcgen.fields.triplane import TriplaneDecoder\nclass Reader(nn.Module):\n    def __init__(self,"
        " width: int, notes: Any = None):\n        super().__init__()\n        self.inner = TriplaneDecoder(4, width)\n"
    )
    reader = {"class_path": "own_parts.Reader", "init_args": {"width": 8, "notes": {"a": 1}}}
    arguments = {"encoder": {"class_path": "own_parts.Finer", "init_args": {"decoder": reader}}}
    assert "VCGEN_PLUGINS" in refused(build_system, NERFDIFF, arguments) and "own_parts" not in sys.modules
    assert build_system(NERFDIFF, arguments, ["own_parts"]).encoder.decoder.head.in_features == 8
    assert "a FieldModel belongs" in refused(build_system, "own_parts.Reader", {"width": 8}, ["own_parts"])
    monkeypatch.setenv("VCGEN_PLUGINS", "other, own_parts")
    assert type(build_system(NERFDIFF, arguments).encoder).__name__ == "Finer"
    for name in (
        "own_parts.os.system",
        "own_parts.OrderedDict",
        "own_parts.nn",
        "own_parts.nothing",
        "own_parts.TriplaneEncoder ",
        "own_parts_too.X",
    ):
        refused(build_system, NERFDIFF, {"encoder": {"class_path": name}})
    notes = {
        "encoder": {
            "class_path": "own_parts.Finer",
            "init_args": {"decoder": {**reader, "init_args": {"width": 8, "notes": [DECODER]}}},
        }
    }
    assert "no class belongs here" in refused(build_system, NERFDIFF, notes)
    for wrong in ("os", "a.b", "../m", "builtins"):
        assert "packages of your own" in refused(build_system, NERFDIFF, arguments, [wrong])


def test_a_distillation_file_names_classes_of_ours_alone(bait):
    from vcgen.systems.distillation.distilled import read_distillation

    before = set(sys.modules)
    for arguments in (
        {"guidance": shell(bait)},
        {"options": {"views": shell(bait)}},
        {"guidance": "m.extra.Model"},
        {"guidance": ENCODER},
    ):
        (bait / "distill.yaml").write_text(yaml.safe_dump({"model": {"class_path": "Distill", "init_args": arguments}}))
        refused(read_distillation, str(bait / "distill.yaml"))
    (bait / "distill.yaml").write_text(
        "model: {class_path: Distill, init_args: {guidance: !!python/object/apply:os.system [touch sprung]}}"
    )
    refused(read_distillation, str(bait / "distill.yaml"))
    assert sprung(bait, before) == []
