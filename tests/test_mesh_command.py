"""``vcgen data render``: mesh files to shards, the same bytes whoever works, and one line for what cannot be."""

import json

import numpy as np
import pytest
import trimesh

from mesh_files import four_colors, quad
from scenes import listing
from vcgen.cli import main as cli
from vcgen.data.shards import conversion
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views

FAST = ("--size", "16", "--views", "2", "--samples", "1", "--light", "none")


@pytest.fixture
def meshes(tmp_path):
    """A folder of three objects of several kinds, one deeper than the others."""
    folder = tmp_path / "meshes"
    (folder / "deep").mkdir(parents=True)
    trimesh.creation.box([1, 2, 3]).export(folder / "box.stl")
    trimesh.Scene(quad(baseColorTexture=four_colors())).export(folder / "quad.glb")
    trimesh.creation.icosphere(1).export(folder / "deep" / "ball.ply")
    return folder


def render(meshes, out, *options: str) -> int:
    return cli.main(["data", "render", str(meshes), str(out), *options])


def test_meshes_become_scenes_with_their_cameras(tmp_path, meshes, capsys):
    assert render(meshes, tmp_path / "out", "--size", "32", "--views", "3", "--name", "toys", "--licence", "CC0") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(
        "3 meshes, 3 views, cameras sphere; up is y of 1 .glb, z of 1 .ply, z of 1 .stl (of glTF by its standard, else"
        " guessed"
    )
    index = read_index(tmp_path / "out")
    assert [(sample.key, sample.group, sample.views) for _, sample in index.samples] == [
        ("box", "box", 3),
        ("deep_ball", "deep_ball", 3),
        ("quad", "quad", 3),
    ]
    record = index.read(1)
    assert (record.size, record.background, record.source, record.licence) == ((32, 32), "alpha", "toys", "CC0")
    assert (record.t_near, record.t_far) == pytest.approx((0.8, 1.8)) and record.scale == pytest.approx(0.5)
    color, alpha = decode_views(record, [0, 1, 2])
    assert 0.2 < alpha.mean() < 0.7 and color[:, :, 16, 16].min() > 0.3
    assert np.allclose(np.linalg.norm(record.c2w[:, :3, 3], axis=1), 1.3)


def test_pixels_are_square_in_images_of_any_shape(tmp_path, meshes, capsys):
    assert (
        render(meshes / "deep" / "ball.ply", tmp_path / "out", "--size", "32x64", "--views", "2", "--light", "none")
        == 0
    )
    assert "warning" not in capsys.readouterr().err
    record = read_index(tmp_path / "out").read(0)
    alpha = decode_views(record, [0])[1][0, 0]
    assert (record.size, record.K[0, 1, 1]) == ((32, 64), 2 * record.K[0, 0, 0])
    assert alpha[16].sum() > 40 and (alpha[0] > 0.9).sum() > 25, (
        "a ball as wide as in a square image, cut above and below"
    )


def test_variants_are_scenes_of_one_group(tmp_path, meshes):
    assert render(meshes / "quad.glb", tmp_path / "out", *FAST, "--variants", "3") == 0
    index = read_index(tmp_path / "out")
    assert [(sample.key, sample.group) for _, sample in index.samples] == [(f"quad_{k}", "quad") for k in range(3)]
    assert len({index.read(k).images[0] for k in range(3)}) == 3


def test_cameras_of_a_file_and_of_a_shard_are_taken(tmp_path, meshes):
    assert render(meshes / "box.stl", tmp_path / "first", *FAST, "--cameras", "turntable") == 0
    record = read_index(tmp_path / "first").read(0)
    (tmp_path / "cameras.json").write_text(json.dumps(record.cameras_json()))
    assert (
        render(
            meshes / "box.stl", tmp_path / "second", *FAST[:2], *FAST[4:], "--cameras", str(tmp_path / "cameras.json")
        )
        == 0
    )
    again = read_index(tmp_path / "second").read(0)
    assert (
        again.images == record.images
        and (again.c2w == record.c2w).all()
        and (again.t_near, again.t_far) == (record.t_near, record.t_far)
    )
    assert str(tmp_path) not in (tmp_path / "second" / "pack.json").read_text()


def test_an_interrupted_run_continues_and_ends_as_if_it_had_not_been(tmp_path, meshes, monkeypatch, capsys):
    options = (*FAST, "--samples-per-shard", "1")
    assert render(meshes, tmp_path / "whole", *options) == 0
    drawn = []

    def draw_some(read_scene, scene, settings, original=conversion.convert_one):
        if len(drawn) == 1:
            raise KeyboardInterrupt
        drawn.append(scene.key)
        return original(read_scene, scene, settings)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "convert_one", draw_some)
        assert render(meshes, tmp_path / "out", *options) == 2
    assert "the same command continues" in capsys.readouterr().err
    assert render(meshes, tmp_path / "out", *options) == 0 and listing(tmp_path / "out") == listing(tmp_path / "whole")
    assert render(meshes, tmp_path / "out", *options) == 0 and "already packed" in capsys.readouterr().out
    assert render(meshes, tmp_path / "out", *options, "--up", "z") == 2 and "--overwrite" in capsys.readouterr().err


@pytest.mark.slow  # two processes that import PyTorch
def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path, meshes):
    options = ("--size", "32", "--views", "3", "--samples-per-shard", "2", "--variants", "2")
    assert render(meshes, tmp_path / "one", *options) == 0
    assert render(meshes, tmp_path / "two", *options, "--workers", "2") == 0
    assert listing(tmp_path / "one") == listing(tmp_path / "two")


def test_bytes_do_not_depend_on_pytorchs_threads(tmp_path, meshes):
    import torch

    before = torch.get_num_threads()
    try:
        for name, threads in (("one", 1), ("two", 2)):
            torch.set_num_threads(threads)
            assert (
                render(meshes / "quad.glb", tmp_path / name, "--size", "16", "--views", "2") == 0
                and torch.get_num_threads() == threads
            )
    finally:
        torch.set_num_threads(before)
    assert listing(tmp_path / "one") == listing(tmp_path / "two")


def test_a_changed_texture_beside_a_mesh_is_another_source(tmp_path, meshes, capsys):
    (meshes / "a.mtl").write_text("newmtl a\nKd 1 0 0\n")
    (meshes / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\n")
    from vcgen.meshes import views

    assert render(meshes / "a.obj", tmp_path / "out", *FAST) == 0
    (meshes / "a.mtl").write_text("newmtl a\nKd 1 0.5 0\n")
    views._contents.cache_clear()
    assert render(meshes / "a.obj", tmp_path / "out", *FAST) == 2 and "another source" in capsys.readouterr().err


def test_broken_meshes_are_named_one_by_one_and_may_be_left_out(tmp_path, meshes, capsys):
    (meshes / "empty.obj").write_text("")
    assert render(meshes, tmp_path / "out", *FAST) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        error.startswith("vcgen: error: ")
        and "1 of 4 scenes are broken" in error
        and "empty.obj: has no faces" in error
    )
    assert not (tmp_path / "out").exists()
    assert render(meshes, tmp_path / "out", *FAST, "--skip-broken") == 0
    assert "  empty: " in capsys.readouterr().out and len(read_index(tmp_path / "out").samples) == 3


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--cameras", "gso31"), "--cameras gso31: unknown (did you mean gso30?)"),
        (("--cameras", "gso30", "--views", "3"), "--views 3: the cameras gso30 are 16"),
        (("--views", "1"), "--views must lie between 2 and 10000, not 1"),
        (("--samples", "9"), "--samples must lie between 1 and 8, not 9"),
        (("--size", "4"), "--size must be at least 8, not 4"),
        (("--size", "4096"), "--size must lie between 8 and 2048, not 4096"),
        (("--variants", "0"), "--variants must lie between 1 and 100"),
        (("--kinds", "fbx"), "--kinds: 'fbx' is not known"),
        (("--up", "w"), "--up must be one of auto, x, y, z, not w"),
        (("--light", "sun"), "--light must be one of sky, varied, none, not sun"),
        (("--elevation", "40"), "--elevation '40': give two numbers"),
        (("--elevation", "30,10"), "--elevation 30,10: the first must be less"),
        (("--elevation", "0,10", "--cameras", "gso30"), "--elevation: the cameras gso30 have their own"),
        (("--max-faces", "0"), "--max-faces must lie between 1"),
        (("--workers", "0"), "must be at least 1"),
        (("--kinds", "gltf"), "no mesh file (.gltf)"),
    ],
)
def test_a_bad_value_is_one_line(options, line, tmp_path, meshes, capsys):
    assert render(meshes, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_what_holds_no_mesh_is_refused(tmp_path, capsys):
    for place, reason in ((tmp_path / "absent", "is missing"), (tmp_path, "no mesh file")):
        assert render(place, tmp_path / "out", *FAST) == 2 and reason in capsys.readouterr().err


def test_equal_names_are_refused(tmp_path, meshes, capsys):
    trimesh.creation.box().export(meshes / "quad.stl")
    assert render(meshes, tmp_path / "out", *FAST) == 2 and "would both be called 'quad'" in capsys.readouterr().err
    assert render(meshes, tmp_path / "out", *FAST, "--kinds", "glb,ply") == 0
