"""How many modules of vcgen one must read to follow a piece of work: those that it loads, without packages."""

import sys
from pathlib import Path

import pytest
import torch

DATA = Path(__file__).parents[1] / "data"
MODEL = DATA / "pretrained" / "cars64"


@pytest.fixture
def unloaded():
    """As if nothing of vcgen had been imported; what had been is put back afterwards."""

    def ours() -> dict:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "vcgen"}

    before = ours()
    for name in before:
        del sys.modules[name]
    yield ours
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def files(modules: dict) -> list[str]:
    return sorted(name for name, module in modules.items() if not hasattr(module, "__path__"))


def test_a_photo_becomes_views_in_few_modules(unloaded, tmp_path):
    from vcgen.cli.main import main

    few = "--views 1 --turntable-frames 0 --mesh-resolution 0"
    assert main(f"render --model {MODEL} --image {DATA / 'images/taxi.png'} --out {tmp_path} {few}".split()) == 0
    assert "vcgen.rendering.volume" in (loaded := files(unloaded()))
    assert len(loaded) <= 47, loaded


@torch.no_grad()
def test_a_stored_scene_becomes_a_rendering_in_few_modules(unloaded):
    from vcgen.checkpoints.model_folder import load
    from vcgen.data.shards.files import read_index
    from vcgen.data.views import scene_views

    system, views = load(MODEL), scene_views(read_index(DATA / "cars64/test").read(0), (0, 1))[None]
    assert system.render(system.field(views[:, :1]), views.cameras[:, 1:], (16, 16)).rgb.shape[-2:] == (16, 16)
    assert "vcgen.rendering.volume" in (loaded := files(unloaded()))
    assert len(loaded) <= 44, loaded
