"""RealFusion as a run: from photo to turntable, mesh and model folder, and on again bitwise."""

import io

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from small_realfusion import CONFIG, photo
from text_folder import tiny_folder
from training import assert_same_end, last_checkpoint, refusal, vcgen
from vcgen.checkpoints import model_folder
from vcgen.data.images.photo import load_photo
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.fields.hashgrid import HashGrid
from vcgen.systems.realfusion.system import RealFusion


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "realfusion.yaml"
    path.write_text(CONFIG)
    return path


def test_a_photo_becomes_a_turntable_a_mesh_and_a_model_folder(config, prior, tmp_path):
    assert vcgen("fit", config, tmp_path, model__prior=prior) == 0
    for name in (
        "views.png",
        "normals.png",
        "depth.png",
        "turntable.gif",
        "turntable.mp4",
        "mesh.glb",
        "mesh.obj",
        "photo.png",
    ):
        assert (tmp_path / name).stat().st_size > 100, name
    mesh = trimesh.load(tmp_path / "mesh.obj")
    assert len(mesh.faces) > 10 and abs(mesh.bounds).max() <= 0.75 + 0.15 and mesh.visual.kind == "vertex"
    state = last_checkpoint(tmp_path)["state_dict"]
    assert not any(name.startswith(("text_prior", "unet")) for name in state)
    alone, view = model_folder.load(tmp_path / "field"), photo().context
    field = alone.field(view)
    points = torch.rand(1, 200, 3) - 0.5
    made = RealFusion(
        "none", SceneHashGrid(HashGrid(4, 2, 10, 4, 16), 0.75, 0.75, hidden=8, depth=1, blob=(9.0, 0.2)), occupancy=12
    )
    made.load_state_dict(state)
    (density, color), expected = field(points, points), made.whole_field(points, points)[1]
    torch.testing.assert_close(density, made.field(view).density(points))
    torch.testing.assert_close(color, expected)


def test_a_run_goes_on_bitwise(config, prior, tmp_path):
    assert vcgen("fit", config, tmp_path / "whole", model__prior=prior) == 0
    halves = {"model__prior": prior, "trainer__callbacks__plus": "training.Witness"}
    assert vcgen("fit", config, tmp_path / "parts", **halves, trainer__callbacks__stop=2) == 0
    assert last_checkpoint(tmp_path / "parts")["global_step"] == 2
    assert vcgen("fit", config, tmp_path / "parts", model__prior=prior, ckpt_path="last") == 0
    whole = assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert whole["global_step"] == 4
    assert not torch.equal(whole["state_dict"]["occupancy.density"], torch.full((12, 12, 12), torch.inf))


def test_each_validation_puts_photo_and_four_sides_into_tensorboard(config, prior, tmp_path):
    """Rows of five: the photo over white and the sides; normals and depth below, with nothing under the photo."""
    assert (
        vcgen("fit", config, tmp_path, model__prior=prior, model__outcome="{frames: 0, mesh_resolution: 0, views: 4}")
        == 0
    )
    events = EventAccumulator(str(tmp_path)).Reload().Images("val/photo_and_four_sides")
    assert [event.step for event in events] == [2, 4]
    sheet = np.asarray(Image.open(io.BytesIO(events[-1].encoded_image_string)))
    assert sheet.shape == (3 * 16 + 2 * 2, 5 * 16 + 4 * 2, 3)
    taxi = load_photo("data/images/taxi.png", None, 16)
    over_white = (taxi.color * taxi.alpha[..., None] + 1 - taxi.alpha[..., None]) * 255
    assert np.abs(sheet[:16, :16] - over_white).max() <= 1
    assert (sheet[18:, :16] == 255).all() and all(sheet[top : top + 16, 18:34].std() > 1 for top in (0, 18, 36))
    assert np.array_equal(sheet[:16, 18:], np.asarray(Image.open(tmp_path / "views.png")))  # the run's last images


def test_several_photos_are_refused_and_the_line_leads_to_the_loop(config, prior, tmp_path, capsys):
    taxi = "data/images/taxi.png"
    line = refusal(capsys, vcgen("fit", config, tmp_path, model__prior=prior, data__image=f"[{taxi}, {taxi}]"))
    assert "one photo, here are 2" in line and "docs/realfusion.md" in line


@pytest.mark.integration
def test_half_a_prior_needs_mixed_precision(config, prior, tmp_path, capsys):
    options = {"model__prior": prior, "model__half_prior": "true"}
    assert "bf16-mixed" in refusal(capsys, vcgen("fit", config, tmp_path / "plain", **options))
    assert (
        vcgen("fit", config, tmp_path / "mixed", **options, trainer__precision="bf16-mixed", trainer__max_steps=1) == 0
    )


def test_an_empty_scene_ends_with_a_warning_instead_of_a_mesh(config, prior, tmp_path):
    with pytest.warns(UserWarning, match="no mesh was written"):
        assert (
            vcgen("fit", config, tmp_path, model__prior=prior, trainer__max_steps=1, model__scene__density_bias=-30)
            == 0
        )
    assert not (tmp_path / "mesh.glb").exists() and (tmp_path / "turntable.gif").exists()


def test_a_missing_prior_is_one_line(config, tmp_path, capsys):
    assert "text prior" in refusal(capsys, vcgen("fit", config, tmp_path, model__prior=tmp_path / "nowhere"))
