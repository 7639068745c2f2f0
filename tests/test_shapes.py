"""Shapes as types: with CHECK_SHAPES, calls of geometry, fields and the renderer are checked; see conftest.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from vcgen.cameras import Cameras, look_at, orbit, pinhole
from vcgen.fields.lookup import sample_planes
from vcgen.rays import Rays
from vcgen.rendering.volume import composite
from vcgen.types import Views

HERE = Path(__file__).parent
#: Tests that call what has shapes as types, and pass in a few minutes. Not here: tests whose stand-ins are no whole
#: fields (nerfdiff, not_finite), those of files, packing and commands, which have no shapes, and those that train.
CALLERS = """
    antialias auto_decoder cameras contracts distillation epipolar evaluate feature_prior feature_volume framing
    genvs geometry guidance hashgrid ibrnet input_views janus joint learned_scene light_field lookup maps mesh
    mesh_cameras mesh_command mesh_files mesh_truth mesh_views meshes model pixelnerf plausible prior rasterizer
    ray_scene rays realfusion realfusion_monitor render render_command render_options samples score_distillation
    shaded shading shapes signed_distance source_views srn_scene statistics synthesis synthesized_objects tetrahedra
    textures triplane types upright validation viewpoints
""".split()
checked = pytest.mark.skipif("CHECK_SHAPES" not in os.environ, reason="run by test_all_shapes_are_kept")


@pytest.mark.slow
@pytest.mark.skipif("CHECK_SHAPES" in os.environ, reason="this is its run")
def test_all_shapes_are_kept():
    files = [f"{HERE}/test_{name}.py" for name in CALLERS]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    command += ["-m", "not slow and not integration"]
    done = subprocess.run(
        command, env={**os.environ, "CHECK_SHAPES": "1"}, capture_output=True, text=True, cwd=HERE.parent
    )
    assert done.returncode == 0, done.stdout[-4000:]


@checked
def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(TypeCheckError):
        Rays(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(4), torch.ones(5))
    camera = orbit(torch.zeros(2), torch.zeros(2), 2.0, pinhole(1.0), 1.0, 3.0)
    with pytest.raises(TypeCheckError):
        Views(torch.zeros(2, 3, 8, 8), camera, torch.zeros(2, 8, 8))
    with pytest.raises(TypeCheckError):
        Cameras(camera.c2w[:, :3], camera.K, camera.near, camera.far)


@checked
def test_arguments_of_another_shape_or_kind_are_refused():
    with pytest.raises(TypeCheckError):
        look_at(torch.zeros(4), torch.ones(4), torch.ones(4))
    with pytest.raises(TypeCheckError):
        look_at(torch.zeros(3, dtype=torch.int64), torch.ones(3), torch.tensor([0.0, 0.0, 1.0]))
    with pytest.raises(TypeCheckError):
        sample_planes(torch.zeros(1, 3, 4, 8, 9), torch.zeros(1, 5, 3, 2), True)
    with pytest.raises(TypeCheckError):  # as many edges as intervals, one too few
        composite(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4))


@checked
def test_right_shapes_pass():
    weights = composite(torch.ones(1, 2, 4), torch.ones(1, 2, 4, 3), torch.linspace(0, 1, 5).expand(1, 2, 5))[1]
    assert weights.shape == (1, 2, 4)
