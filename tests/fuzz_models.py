"""What the fuzzer spoils of model folders: their configuration, their weights, and what lies there for diffusers."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from fuzz_mutations import plain, spoil_tensors
from fuzz_specs import INPUT_CAMERA, UNIT, ascending, fixed, one_of, real, table, whole
from fuzz_subject import Files, Subject, by_rule, spoil_one
from prior_folder import entry, trained
from scenes import listing
from vcgen.checkpoints import model_folder
from vcgen.data.input_camera import InputCamera
from vcgen.types import Views

POSITIVE = real(1e-6, 1e6)
DECODER = table(
    class_path=one_of("vcgen.fields.triplane.TriplaneDecoder", "TriplaneDecoder"),
    init_args=table(
        channels_=one_of(8),
        hidden_=one_of(8),
        depth_=one_of(1),
        aggregate_=one_of("sum"),
        density_bias_=real(-1e12, 1e12),
        density_scale_=real(1e-320, 1e12),
    ),
)
ENCODER = table(
    class_path=one_of("vcgen.encoders.triplane.TriplaneEncoder", "TriplaneEncoder"),
    init_args=table(
        decoder=DECODER,
        plane_size_=whole(2, 1024),
        plane_channels_=one_of(8),
        channels_=one_of([32, 32]),
        layers_=one_of(1),
        attention_=one_of([False, False]),
        patch_=one_of(2),
        distance_=POSITIVE,
        radius_=POSITIVE,
        half_size_=POSITIVE,
        projection_=one_of("orthographic", "perspective"),
    ),
)
RENDER = table(samples_=whole(1, 16384), importance_=whole(0, 16384))
CONFIG = table(
    others=True,
    format=one_of(1),
    class_path=one_of("vcgen.systems.nerfdiff.NerfDiff", "NerfDiff"),
    image_size=fixed(whole(1, 4096), whole(1, 4096)),
    camera=INPUT_CAMERA,
    background=UNIT,
    init_args=table(
        encoder=ENCODER,
        render_=RENDER,
        rays_per_view_=whole(1, 1 << 31),
        background_=one_of("white", "random"),
        prior_=one_of(None),
    ),
    dtype_=one_of("float32", None),
    diffusers_=one_of(False),
)


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    torch.manual_seed(0)
    about = entry()
    encoder = about["init_args"]["encoder"]["init_args"]
    encoder |= {"patch": 2, "distance": 1.3, "radius": 0.51, "half_size": 0.56, "projection": "orthographic"}
    encoder["decoder"]["init_args"] |= {"depth": 1, "aggregate": "sum", "density_scale": 10.0}
    about["init_args"] |= {"render": {"samples": 4, "importance": 0}, "rays_per_view": 16, "background": "white"}
    for name, arguments in (("plain", {**about["init_args"], "prior": None}), ("prior", about["init_args"])):
        system = trained({**about, "init_args": arguments})
        config = {
            **{key: about[key] for key in ("class_path", "image_size", "camera")},
            "init_args": arguments,
            "background": 1.0,
            "vcgen": "0.1",
        }
        model_folder.save(folder / name, system.state_dict(), config, system.prior)
    files, weights = listing(folder / "plain"), [system_shapes(folder / "plain"), system_shapes(folder / "prior")]
    yield Subject("config.json", files, spoil_one("config.json"), seen, by_rule("config.json", config_holds), 3)
    yield Subject(
        "model.safetensors",
        files,
        spoil_one("model.safetensors", spoil_tensors),
        seen,
        functools.partial(tensors_hold, "model.safetensors", weights[0], {}),
        2,
    )
    files = listing(folder / "prior")
    for name in (model_folder.UNET_CONFIG, model_folder.SCHEDULER_CONFIG):
        yield Subject(name, files, spoil_one(name), opened, fraction=0.3)


def opened(folder: Path) -> Any:
    """The system's weights and configuration."""
    system = model_folder.load(folder)
    return system.config, dict(system.state_dict())


def seen(folder: Path) -> Any:
    """A rendering by the model of a folder, of numbers in [0, 1]."""
    system = model_folder.load(folder)
    input_camera = InputCamera.of(system.config)
    if getattr(system.encoder, "plane_size", 0) > 64:  # as large as it may be, which takes seconds
        return input_camera
    image = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 1, 3, 16, 16)
    with torch.no_grad():
        field = system.field(Views(image, input_camera.cameras([0.0], min(max(input_camera.elevation, -89), 89))[None]))
        found = system.render(field, input_camera.cameras([40.0], 10.0)[None], (6, 6), system.config["background"])
    if not all(torch.isfinite(part).all() for part in found) or found.rgb.min() < -0.01 or found.rgb.max() > 1.01:
        raise AssertionError(f"renders colors from {found.rgb.min():g} to {found.rgb.max():g}")
    return input_camera, list(found)


def system_shapes(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model folder's own file."""
    return load_tensors((folder / "model.safetensors").read_bytes())


def config_holds(tree: Any) -> bool:
    """Whether the weights of the small model can be those of a model so described."""
    return CONFIG(tree) and ascending(tree["camera"]["near"], tree["camera"]["far"])


def tensors_hold(name: str, expected: dict[str, Tensor], places: dict[str, int], files: Files) -> bool:
    """Files that lost their checksum may hold other numbers, in the same shapes."""
    end = 8 + int.from_bytes(files[name][:8], "little")
    if "vcgen_sha256" in plain(files[name][8:end]).get("__metadata__", {}):
        return False
    found = load_tensors(files[name])
    alike = all(
        found[key].shape == value.shape and found[key].dtype == value.dtype
        for key, value in expected.items()
        if key in found
    )
    return (
        found.keys() == expected.keys() and alike and all(bool(torch.isfinite(value).all()) for value in found.values())
    )
