"""The model folder of a fitted scene shows what its run showed: haze that the run skipped is not in it."""

import pytest
import torch

from small_text_to_3d import hash_grid, system
from vcgen.checkpoints import model_folder
from vcgen.encoders.scene_shown import ShownScene
from vcgen.evaluation.retrieval import untrained, views_of
from vcgen.systems.mesh_refine.coarse import field_of, of_folder
from vcgen.systems.text_to_3d.outcome import OutcomeOptions, save_field, write_outcome
from vcgen.types import Finetunable


@pytest.fixture(scope="module")
def made():
    """A blob in a haze of density exp(-4), below the threshold of 0.05."""
    scene = system(scene=hash_grid())
    with torch.no_grad():
        for parameter in scene.scene.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    scene.occupancy.refresh(scene.whole_field)
    assert 0.05 < float(scene.occupancy.fraction()) < 0.6
    return scene


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    target = tmp_path_factory.mktemp("shown")
    write_outcome(made, made.reference, target, OutcomeOptions(frames=0, mesh_resolution=16, views=2))
    return target / "field"


def test_a_scenes_folder_shows_what_its_run_showed(made, folder, tmp_path):
    loaded = model_folder.load(folder)
    with torch.no_grad():
        own = made.render(made.field(made.reference), made.reference.cameras, (16, 16))
        shown = loaded.render(loaded.field(made.reference), made.reference.cameras, (16, 16))
    for stored, expected in zip(shown, own, strict=True):
        torch.testing.assert_close(stored, expected, atol=1e-5, rtol=0)
    before = model_folder.load(save_field(made, made.scene, made.reference, tmp_path / "before"))  # as older ones are
    with torch.no_grad():
        haze = before.render(before.field(made.reference), made.reference.cameras, (16, 16)).alpha
    assert float(haze[shown.alpha == 0].max()) > 0.01


def test_it_is_a_scene_like_others(made, folder):
    """To judge, to finetune and to keep again, to refine, and for batches; its colors are also there beside it."""
    loaded, points = model_folder.load(folder), 1.4 * torch.rand(1, 200, 3) - 0.7
    assert views_of(loaded, "textureless", 2, 12).shape == (2, 12, 12, 3)
    assert bool(untrained(loaded).encoder.seen.all())
    field = loaded.field(made.reference)
    assert isinstance(field, Finetunable) and isinstance(field_of(of_folder(folder), made.device), Finetunable)
    changed = field.with_weights(field.weights())
    with torch.no_grad():
        (density, color), (whole, expected) = changed(points, points), made.whole_field(points, points)
        torch.testing.assert_close(color, expected)
        empty = density == 0
        torch.testing.assert_close(density, whole.masked_fill(empty, 0))
        assert 0.2 < float(empty.float().mean()) < 0.99 and float(whole[empty].max()) < 0.05
        torch.testing.assert_close(field.density(points), density)
        two = loaded.encoder.scene(2)
        torch.testing.assert_close(two.density(torch.cat([points, -points]))[1:], field.density(-points))
        torch.testing.assert_close(two[:1].density(points), density)
    recipe = loaded.encoder.recipe(changed, loaded.encoder.arguments)
    assert recipe.kind is ShownScene and recipe.init_args == loaded.config["init_args"]["encoder"]["init_args"]
    assert all(torch.equal(value, loaded.encoder.state_dict()[name]) for name, value in recipe.weights.items())
    assert recipe.weights.keys() == loaded.encoder.state_dict().keys()
