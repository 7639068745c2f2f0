"""What the benchmark programs of scenes made of texts compute, and what they answer to a wrong folder."""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import common
import small_text_to_3d
import text_prior
import text_scenes
import text_to_3d
import text_variations
from vcgen.data.input_camera import InputCamera
from vcgen.systems.text_to_3d.outcome import save_field
from vcgen.visualization.mesh_files import write_mesh


@pytest.mark.parametrize("program", [text_prior, text_to_3d, text_variations])
def test_a_judge_that_is_none_is_one_line_before_anything_is_fitted(program, tmp_path, monkeypatch, capsys):
    name, out = program.__name__, tmp_path / "scenes"
    given = ["--judge", str(tmp_path / "none"), "--unfiled", *(["--out", str(out)] if name != "text_prior" else [])]
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *given])
    monkeypatch.setattr(text_scenes, "fitted", lambda *_: pytest.fail("it has begun to fit scenes"))
    assert common.answered(program.main) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: error: ") and "none" in line and not out.exists()


def test_scenes_of_a_text_are_summed_up_over_prompts_and_a_judge_that_guided_is_named():
    found = [text_to_3d.Score(f"a photo of a {name}", 0.5, name == "red car") for name in ("red car", "blue car")]
    judged = {"name": "dreamfields", **text_to_3d.summary("", found), **text_to_3d.summary("_textureless", found[1:])}
    assert judged["r_precision"] == judged["similarity"] == 0.5 and judged["r_precision_interval"] == (0, 1)
    judged |= {"shape": 0.25, "shape_interval": (0.0, 0.5)}
    judged |= {"guided_by_judge": True, "janus": 0.5, "seconds": 61.0, "steps": 200.0, "peak_gb": 1.25}
    chosen = argparse.Namespace(quick=False, seconds=60.0, judge=Path("clip64_guide"))
    ceiling = {"name": "ceiling", **text_to_3d.summary("", found)}
    first, *_, row, last = text_to_3d.table([judged, ceiling], 2, 88, chosen)
    assert "judge: clip64_guide; R-precision among 88 prompts (chance 0.011)" in first
    assert row.startswith(
        "| dreamfields (guided by the judge) | 0.50 [0.00, 1.00] | 0.00 | 0.25 [0.00, 0.50] | 0.500 | 0.50 |"
    )
    assert last == "| ceiling | 0.50 [0.00, 1.00] | - | - | 0.500 | - | - | - | - |"
    things = [text_scenes.thing(category, "orange") for category in ("car", "food item")]
    assert things == ["an orange car", "an orange food item"]


def test_a_change_to_scenes_of_texts_is_compared_prompt_by_prompt():
    before = {name: {"similarity": 0.25, "textureless": 0.125, "janus": 0.5, "sharpness": 8.0} for name in "ab"}
    after = {name: before[name] | {"similarity": 0.5, "janus": janus} for name, janus in (("a", 0.25), ("b", 0.75))}
    rows = {row["measure"]: row for row in text_variations.compared("Perp-Neg", before, after)}
    assert rows["similarity"]["difference"] == 0.25 and rows["similarity"]["improved"] == 1
    assert rows["janus"]["difference"] == 0 and rows["janus"]["improved"] == 0.5  # less is better
    assert rows["janus"]["interval"] == (-0.25, 0.25) and rows["janus"]["scenes"]["b"] == [0.5, 0.75]
    chosen = argparse.Namespace(quick=False, seconds=60.0, judge=Path("clip64_judge"))
    spread = [{"name": "dreamfusion", "lpips": 0.125, "interval": None}]
    lines = text_variations.table(list(rows.values()), spread, chosen)
    assert "| Perp-Neg | janus | 0.500 | 0.500 | 0.000 [-0.250, 0.250] | 1 of 2 |" in lines
    assert lines[-1] == "| dreamfusion | 0.125 |"


def test_priors_are_compared_on_the_same_prompts():
    first = {"a": {"r_precision": 0.0, "single": 0.25, "similarity": 0.5}, "b": dict.fromkeys(text_prior.MEASURES, 0.5)}
    second = {"a": {"r_precision": 1.0, "single": 0.5, "similarity": 0.75}, "b": first["b"]}
    one, two = text_prior.summary({"data/toys64": first, "outputs/text2image/pipeline": second})
    assert (one["name"], two["name"]) == ("toys64", "text2image") and "single_gain" not in one
    assert (two["r_precision"], two["r_precision_gain"], two["r_precision_gain_interval"]) == (0.75, 0.5, (0, 1))
    chosen = argparse.Namespace(samples=8, guidance_scale=7.5, judge=Path("clip64_judge"))
    *_, last = text_prior.table([one, two], 2, 88, chosen)
    assert last == "| text2image, gain | 0.500 [0.000, 1.000] | 0.125 [0.000, 0.250] | 0.125 [0.000, 0.250] |"


class Words:
    """A stand-in for CLIP: the brightness of an image, and what a text says of it."""

    def embed_images(self, images):
        bright = images.mean((1, 2, 3))
        return torch.stack([bright, 1 - bright], 1)

    def embed_texts(self, texts):
        return torch.tensor([[1.0, 0.0] if text == "white" else [0.0, 1.0] for text in texts])


def test_samples_are_judged_one_by_one_and_together():
    images = torch.tensor([1.0, 0.9, 0.2]).reshape(3, 1, 1, 1).expand(3, 3, 4, 4)
    found = text_prior.judged(Words(), images, "white", ["black", "white"])
    assert found == pytest.approx({"r_precision": 1.0, "single": 2 / 3, "similarity": 0.7})


def test_the_hard_surface_of_a_scene_is_measured_beside_it_without_a_refinement(tmp_path):
    """Its mesh covers what the scene does, and is as dark; the images of the two are not the same."""
    made, budget = (
        small_text_to_3d.system(scene=small_text_to_3d.hash_grid()),
        text_scenes.Budget(60, tmp_path, tmp_path),
    )
    with torch.no_grad():
        made.scene.grid.table.mul_(2000)
    folder = budget.folder(text_scenes.DREAMFUSION, "a blob")
    save_field(made, made.scene, made.reference, folder / "field")
    before = text_variations.measured(folder, "a blob", Words())
    found = text_variations.measured_surface("a blob", budget, Words())
    assert found.keys() == before.keys() == text_variations.MEASURES.keys()
    assert found["similarity"] == pytest.approx(before["similarity"], rel=0.3)  # whose outline is soft
    assert found["similarity"] > 0.01 and found["sharpness"] > 0
    assert found["sharpness"] != before["sharpness"] and [path.name for path in folder.iterdir()] == ["field"]


def test_a_mesh_is_looked_at_as_its_field_is(tmp_path):
    """A ball of one color: straight color, the opacity of a circle, and white lit from the camera."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    ball.visual.vertex_colors = np.tile(np.uint8([200, 100, 50, 255]), (len(ball.vertices), 1))
    write_mesh(tmp_path / "mesh.obj", ball)
    camera = InputCamera(focal=1.25, distance=2.0, elevation=15.0, near=1.0, far=3.0)
    color, alpha = text_scenes.mesh_looks(tmp_path / "mesh.obj", camera, (0.0, 90.0), 64)
    assert color[:, :, 32, 32].numpy() == pytest.approx(np.array([[200, 100, 50]] * 2) / 255, abs=0.01)
    # a ball of radius r at distance d covers a circle of radius f r / sqrt(d^2 - r^2)
    focal = 1.25 * 64
    assert alpha.sum((1, 2, 3)).numpy() == pytest.approx(math.pi * (focal * 0.5) ** 2 / (4 - 0.25), rel=0.01)
    white, _ = text_scenes.mesh_looks(tmp_path / "mesh.obj", camera, (0.0,), 64, "textureless")
    assert white[0, :, 32, 32].numpy() == pytest.approx(1, abs=0.01)  # faces the light
    assert 0.3 < float(white[0, 0, 32, 32 - int(focal * 0.5 / 2) + 1]) < 0.8
