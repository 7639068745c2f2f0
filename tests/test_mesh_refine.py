"""Refinement of a mesh: it begins as its coarse scene, moves by gradients, goes on bitwise, and ends in files."""

import shutil
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import yaml
from jsonargparse import ArgumentParser

from small_realfusion import photo
from small_text_to_3d import hash_grid
from text_folder import tiny_folder, tiny_prior
from training import assert_same_end, refusal, vcgen
from vcgen.errors import UserError
from vcgen.guidance.sds import SDS
from vcgen.guidance.vsd import VSD
from vcgen.metrics.geometry import volume_iou
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.base import System
from vcgen.systems.mesh_refine.coarse import field_of, of_checkpoint, of_folder, to_keep
from vcgen.systems.mesh_refine.scene import SceneTetrahedra
from vcgen.systems.mesh_refine.system import MeshRefine, write_textured
from vcgen.systems.nerfdiff import save_scene
from vcgen.systems.text_to_3d.options import TextTo3DOptions

CONFIG = """
seed_everything: 0
trainer: {max_steps: 4, accelerator: cpu, val_check_interval: 2, check_val_every_n_epoch: null, num_sanity_val_steps: 0,
          log_every_n_steps: 1}
data:
  class_path: PromptData
  init_args: {prompt: red car, size: 16}
model:
  class_path: MeshRefine
  init_args:
    prior: PRIOR
    coarse: COARSE
    cells: 12
    options: {render_size: 16, guidance_scale: [5.0, 5.0], albedo_only: 0.0}
    outcome: {frames: 3, views: 4}
    texture_size: 512
checkpoint: {monitor: val/janus, mode: min}
ema: {decay: 0.0}
samples: {scenes: 0, turntable: 0}
"""
CAMERA = {"focal": 1.0254, "distance": 1.8, "elevation": 20, "near": 0.8, "far": 2.6}


@cache
def begun() -> SceneTetrahedra:
    made = SceneTetrahedra(14)
    made.start_from(hash_grid().scene())
    return made


def scene() -> SceneTetrahedra:
    """One of its own: to begin takes a second."""
    return deepcopy(begun())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a prior, the folder of a coarse run, and a configuration that names both."""
    folder = tmp_path_factory.mktemp("refine")
    grid, render = hash_grid(), RenderOptions(8)
    config = {"image_size": [16, 16], "background": 1.0, "camera": CAMERA}
    save_scene(folder / "run" / "field", grid.recipe(grid.scene(), grid.arguments), render, render, config)
    given = CONFIG.replace("PRIOR", str(tiny_folder(folder / "prior"))).replace("COARSE", str(folder / "run"))
    (folder / "given.yaml").write_text(given)
    return folder


@pytest.mark.integration
def test_it_begins_as_the_coarse_scene_with_its_colors():
    field, made = hash_grid().scene(), scene()
    mesh = made.mesh()
    whole = trimesh.Trimesh(mesh.vertices.detach().numpy(), mesh.faces.numpy(), process=False)
    assert whole.is_watertight and whole.euler_number == 2
    assert volume_iou(whole, extract_mesh(field, 64).mesh, 48) > 0.93  # of a coarser grid
    points = mesh.vertices.detach()
    with torch.no_grad():
        torch.testing.assert_close(made.colors_at(points, points), field(points[None], points[None])[1][0])
    assert set(dict(made.named_parameters())) >= {"distances", "moves", "colors.scene.table"}


def test_a_mesh_that_grows_to_the_border_stays_closed():
    made = scene()
    made.distances.data.fill_(-1.0)
    mesh = made.mesh()
    assert (mesh.edges.of_faces.reshape(-1).bincount() == 2).all()


def refiner(prior=None, **changes) -> MeshRefine:
    torch.manual_seed(0)
    options = {"render_size": 16, "guidance_scale": (5.0, 5.0), "grid_lr": 0.05, **changes.pop("options", {})}
    made = MeshRefine("none", Path("none"), 12, options=TextTo3DOptions(**options), **changes)
    made.scene = scene()
    made.use_reference(photo().context)
    made.use_prior(prior or tiny_prior())
    made.progress = lambda step: 0.5
    return made


@pytest.mark.parametrize("background", ["network", "random", "white"])
def test_every_part_of_it_gets_a_gradient(background):
    made = refiner(options={"background": background, "views": 2, "shading": (0.0, 1.0, 0.0)}, guidance=SDS(start=0.5))
    losses = made.losses(photo(), torch.Generator().manual_seed(0))
    assert set(losses) == {"sds", "consistency"} and 0 < float(losses["consistency"].detach()) < 0.2
    sum(made.loss_weights[name] * value for name, value in losses.items()).backward()
    for name, parameter in made.scene.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert (made.background.layers[0].weight.grad is not None) == (background == "network")


def test_a_student_learns_beside_a_mesh():
    made = refiner(guidance=VSD(lr=0.01))
    optimizer = made.configure_optimizers()
    for _ in range(2):  # at first the student is the prior, and the mesh gets no gradient
        losses = made.losses(photo(), torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert set(losses) == {"sds", "consistency", "student"}
    assert made.scene.distances.grad.any() and made.guidance.student.up[0].any()


def test_consistency_alone_makes_a_rough_surface_smoother():
    made = refiner()
    made.scene.distances.data += 0.2 * torch.randn(made.scene.distances.shape)
    optimizer = made.configure_optimizers()
    rough = []
    for _ in range(15):
        loss = 1 - made.scene.mesh().edge_cosines().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rough.append(float(loss.detach()))
    assert rough[-1] < 0.6 * rough[0]


@pytest.mark.integration
def test_a_run_refines_a_scene_into_a_textured_mesh_and_goes_on_bitwise(place, tmp_path):
    assert vcgen("fit", place / "given.yaml", tmp_path / "whole") == 0
    for name in ("views.png", "normals.png", "depth.png", "turntable.gif", "turntable.mp4", "mesh.glb", "mesh.png"):
        assert (tmp_path / "whole" / name).stat().st_size > 100, name
    for name in ("mesh.glb", "mesh.obj"):
        mesh = trimesh.load(tmp_path / "whole" / name, force="mesh", process=False)
        image = mesh.visual.material.baseColorTexture if name == "mesh.glb" else mesh.visual.material.image
        assert image.size == (512, 512) and np.isfinite(mesh.visual.uv).all()
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        assert mesh.is_watertight and mesh.volume > 0
    shutil.copytree(place / "run", tmp_path / "run")
    given = {"model__coarse": tmp_path / "run"}
    stopped = {"trainer__callbacks": "training.Witness", "trainer__callbacks__stop": 2}
    assert vcgen("fit", place / "given.yaml", tmp_path / "parts", **stopped, **given) == 0
    shutil.rmtree(tmp_path / "run")  # the coarse scene is in the checkpoint
    assert vcgen("fit", place / "given.yaml", tmp_path / "parts", ckpt_path="last", **given) == 0
    assert "scene.distances" in assert_same_end(tmp_path / "whole", tmp_path / "parts")["state_dict"]


def test_the_coarse_scene_comes_back_from_a_checkpoint_whole_or_with_one_line(place, tmp_path):
    model, path = of_folder(place / "run"), tmp_path / "last.ckpt"

    def stored(**content) -> Path:
        torch.save({"state_dict": {}, "vcgen": {"class_path": "MeshRefine", "init_args": {}}, **content}, path)
        return path

    assert of_checkpoint(stored()) is None  # as an older one
    kept, points = of_checkpoint(stored(coarse=to_keep(model))), torch.rand(1, 50, 3) - 0.5
    for found, expected in zip(*(field_of(one, model.device)(points, points) for one in (kept, model)), strict=True):
        assert torch.equal(found, expected)
    weights = dict(list(model.state_dict().items())[1:])
    for coarse in (1, {"config": {}, "weights": weights}, {**to_keep(model), "weights": weights}):
        with pytest.raises(UserError, match=r"^[^\n]*last\.ckpt[^\n]*$"):
            of_checkpoint(stored(coarse=coarse))


def test_a_texture_that_is_too_small_does_not_lose_the_mesh(tmp_path, monkeypatch):
    monkeypatch.setattr("vcgen.rendering.atlas.charts_at_hand", lambda: False)
    with pytest.warns(UserWarning, match="model.texture_size: a texture of 16 texels a side is too small for"):
        write_textured(scene(), tmp_path, 16)
    assert trimesh.load(tmp_path / "mesh.glb", force="mesh").visual.material.baseColorTexture.size == (1024, 1024)


@pytest.mark.integration
def test_what_cannot_be_refined_is_refused_in_one_line(place, tmp_path, capsys):
    line = refusal(capsys, vcgen("fit", place / "given.yaml", tmp_path / "a", model__coarse=tmp_path))
    assert "is not a model folder" in line
    shipped = Path(__file__).parents[1] / "data" / "pretrained" / "cars64"
    line = refusal(capsys, vcgen("fit", place / "given.yaml", tmp_path / "b", model__coarse=shipped))
    assert "holds no single scene: give the folder of a run of TextTo3D, RealFusion or Distill" in line
    empty = hash_grid()
    empty.blob = (0.0, 0.2)
    with pytest.raises(UserError, match=r"^no surface: [^\n]*$"):
        SceneTetrahedra(8).start_from(empty.scene())


def test_distances_stay_within_a_cell_so_that_the_surface_can_move_on():
    made = refiner()
    assert made.scene.distances.abs().max() == 1
    before = made.scene.mesh().vertices.detach()
    made.scene.distances.data.mul_(torch.where(made.scene.distances.abs() == 1, 4.0, 1.0))
    made.losses(photo(), torch.Generator().manual_seed(0))
    assert made.scene.distances.abs().max() == 1
    torch.testing.assert_close(made.scene.mesh().vertices.detach(), before)


def test_defaults_are_what_was_measured_also_where_a_file_gives_other_options():
    """docs/rasterizer.md says by what; the configuration for Stable Diffusion states the same, and nothing of what the
    small prior needs is left in it."""
    root = Path(__file__).parents[1]
    small, large = (
        yaml.safe_load((root / "configs" / f"{name}.yaml").read_text())["model"]["init_args"]
        for name in ("magic3d", "magic3d_sd")
    )
    plain = MeshRefine("none", Path("none"))
    assert (plain.consistency, plain.options.grid_lr) == (0.01, 0.1) and large["consistency"] == 0.01
    assert set(small["options"]) <= set(large["options"])
    own = {"render_size": 64, "guidance_scale": (100.0, 100.0), "noise_end": 0.5, "albedo_only": 0.2}
    assert replace(TextTo3DOptions(**large["options"]), **own) == plain.options
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(System, "model")
    given = {"class_path": "MeshRefine", "init_args": {"prior": "p", "coarse": "c", "options": {"render_size": 32}}}
    read = parser.instantiate_classes(parser.parse_object({"model": given})).model
    assert (read.consistency, read.options) == (plain.consistency, replace(plain.options, render_size=32))


def test_a_mesh_of_which_nothing_is_left_ends_the_run():
    made = refiner()
    made.scene.distances.data.fill_(1.0)
    with pytest.raises(UserError, match=r"nothing is left of the mesh: lower model\.options\.grid_lr"):
        made.losses(photo(), torch.Generator().manual_seed(0))
