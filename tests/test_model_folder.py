"""Model folders: what is damaged, foreign, too large or not a number is refused by name."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_model import CAMERA, CONFIG, trained_system
from stand_in import BallSystem
from vcgen.checkpoints import model_folder as folder
from vcgen.errors import UserError


@pytest.fixture
def model(tmp_path):
    return folder.save(tmp_path / "model", trained_system().state_dict(), CONFIG)


def test_tied_weights_are_written(tmp_path):
    shared = torch.ones(3)
    folder.save(tmp_path / "tied", {"a": shared, "b": shared}, CONFIG)
    assert set(load_file(tmp_path / "tied" / "model.safetensors")) == {"a", "b"}


def test_a_training_starts_from_all_of_a_folder(tmp_path):
    """A parameter of the system itself, as a learned background, is one of no part."""

    def system(value):
        made = torch.nn.Module()
        made.part, made.color = torch.nn.Linear(1, 1), torch.nn.Parameter(torch.full((3,), value))
        return made

    stored, begun = system(0.7), system(0.0)
    place = folder.save(tmp_path / "model", stored.state_dict(), CONFIG)
    folder.start_from(begun, place)
    for name, value in stored.state_dict().items():
        assert torch.equal(begun.state_dict()[name], value), name
    begun.color = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(UserError, match=r"does not fit this configuration: 1 of another shape \(color"):
        folder.start_from(begun, place)


def changed(**entries) -> bytes:
    """config.json with other entries."""
    return json.dumps({"format": 1, **CONFIG, "dtype": "float32", **entries}).encode()


def damage(model, name, content):
    path = model / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "not a model folder"),
        ("config.json", b"{", "truncated"),
        ("config.json", b'{"model_type": "bert"}', "not of vcgen's model format 1"),
        ("config.json", b'{"format": 1, "class_path": "a.B"}', "missing required field `init_args`"),
        ("config.json", changed(format=9), "found 9"),
        ("config.json", changed(image_size=[10**9, 16]), r"<= 4096 - at `\$.image_size\[0\]`"),
        ("config.json", changed(image_size=[[16], 16]), r"at `\$.image_size\[0\]`"),
        ("config.json", changed(background=1.5), r"at `\$.background`"),
        ("config.json", changed(camera={**CAMERA, "far": 0.8}), "near 0.8 is not below far 0.8"),
        ("config.json", changed(camera={**CAMERA, "far": 1e300}), r"at `\$.camera.far`"),
        ("config.json", changed(camera={**CAMERA, "near": -0.1}), r"at `\$.camera.near`"),
        ("config.json", changed(camera={**CAMERA, "focal": -1}), r"at `\$.camera.focal`"),
        ("config.json", changed(camera={**CAMERA, "elevation": 91}), r"at `\$.camera.elevation`"),
        ("config.json", changed(init_args=["density"]), r"at `\$.init_args`"),
        ("config.json", changed(dtype="float16"), "holds weights of float32, config.json says float16"),
        ("model.safetensors", None, "is missing"),
        ("model.safetensors", b"", "damaged"),
        ("model.safetensors", b"not tensors", "damaged"),
    ],
)
def test_a_damaged_folder_is_refused(model, name, content, message):
    damage(model, name, content)
    with pytest.raises(UserError, match=message) as error:
        folder.load(model)
    assert "\n" not in str(error.value) and str(model) in str(error.value)


def test_a_truncated_weight_file_is_refused(model):
    damage(model, "model.safetensors", (model / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(UserError, match="damaged"):
        folder.load(model)


def test_foreign_weights_are_named(model):
    save_file({"size": torch.zeros(1), "tint": torch.zeros(4), "steps": torch.zeros(1)}, model / "model.safetensors")
    with pytest.raises(UserError, match=re.escape("tint (4,) instead of (3,)")):
        folder.load(model)


def test_one_changed_bit_of_the_weights_is_found(model):
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="does not hold what was written"):
        folder.load(model)


def test_weights_that_are_no_numbers_are_neither_written_nor_read(model, tmp_path):
    odd = {**trained_system().state_dict(), "tint": torch.tensor([0.1, float("nan"), 0.2])}
    with pytest.raises(UserError, match="tint: NaN or infinite weights"):
        folder.save(tmp_path / "other", odd, CONFIG)
    save_file(odd, model / "model.safetensors")
    with pytest.raises(UserError, match="tint holds NaN"):
        folder.load(model)


def test_weights_of_another_kind_of_number_are_refused(model):
    save_file({**trained_system().state_dict(), "tint": torch.ones(3, dtype=torch.int32)}, model / "model.safetensors")
    with pytest.raises(UserError, match=r"1 of another type \(tint\)"):
        folder.load(model)


class Grower(BallSystem):
    """Asks for as much memory, or as many parts, as its arguments say."""

    def __init__(self, density: float = 50.0, width: int = 3, parts: int = 0):
        super().__init__(density)
        self.wide = torch.nn.Linear(width, width)
        self.many = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(parts))


@pytest.mark.parametrize(
    ("arguments", "message"), [({"width": 10**9}, "of another shape"), ({"parts": 10**12}, "more than 1010 parameters")]
)
def test_a_model_larger_than_its_weights_is_refused_before_it_takes_memory(tmp_path, arguments, message):
    config = {**CONFIG, "class_path": "test_model_folder.Grower"}
    model = folder.save(tmp_path / "model", Grower().state_dict(), config)
    assert folder.load(model, plugins=["test_model_folder"]).wide.weight.shape == (3, 3)
    folder.save(model, Grower().state_dict(), {**config, "init_args": arguments})
    with pytest.raises(UserError, match=message):
        folder.load(model, plugins=["test_model_folder"])


def test_an_absent_device_is_refused(model):
    with pytest.raises(UserError, match="device 'nonsense'"):
        folder.load(model, "nonsense")
