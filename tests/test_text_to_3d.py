"""Text to 3D: what RealFusion does without its photo, bitwise, and as a run from words to turntable and mesh."""

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import yaml
from torch.nn import functional as F

import small_realfusion
from pages import ROOT
from small_text_to_3d import CONFIG, losses, system
from text_folder import tiny_folder
from training import assert_same_end, refusal, vcgen
from vcgen.cameras import Cameras
from vcgen.checkpoints import model_folder
from vcgen.data.datamodules.prompt import PromptData
from vcgen.data.viewpoints import ViewpointOptions, random_cameras, relative_angles
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.encoders.scene_voxels import SceneVoxels
from vcgen.errors import UserError
from vcgen.fields.hashgrid import HashGrid
from vcgen.guidance.clip import ClipGuidance
from vcgen.guidance.sds import SDS
from vcgen.guidance.vsd import VSD
from vcgen.losses.course import value_at
from vcgen.losses.scene import LossWeights, SceneWeights, depth_contrast, emptiness
from vcgen.systems.text_to_3d.draws import draw_color, draw_shading
from vcgen.systems.text_to_3d.monitor import WINDOW
from vcgen.systems.text_to_3d.options import Prompt, TextTo3DOptions
from vcgen.systems.text_to_3d.outcome import circle


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a prior and a configuration that names it."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "given.yaml").write_text(CONFIG.replace("prior: unused", f"prior: {tiny_folder(folder / 'prior')}"))
    return folder


def learned(made, find) -> list[torch.Tensor]:
    """Losses of three steps, the last two with light and the whole grid, and the scene after them."""
    optimizer, found = made.configure_optimizers(), []
    for made.at in (0, 6, 9):
        parts = find(made, made.at)
        optimizer.zero_grad()
        sum(made.loss_weights[name] * value for name, value in parts.items()).backward()
        optimizer.step()
        found += [value.detach() for value in parts.values()]
    return [*found, *made.state_dict().values()]


@pytest.mark.parametrize("background", ["network", "random"])
def test_realfusion_without_a_weight_of_its_photo_is_text_to_3d_bitwise(background):
    prompt, options = Prompt(template="a photo of {subject}, {view} view", subject="car"), {"background": background}
    alone = system(prompt=prompt, options=options)
    photo = small_realfusion.system(prompt=prompt, options=options, weights=LossWeights(rgb=0.0, mask=0.0))
    pairs = zip(learned(alone, losses), learned(photo, small_realfusion.losses), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert set(losses(photo)) == {"opacity", "entropy", "smoothness", "orientation", "sds"}


@pytest.mark.integration
def test_words_become_a_turntable_a_mesh_and_a_model_folder_and_go_on_bitwise(place, tmp_path):
    assert vcgen("fit", place / "given.yaml", tmp_path / "whole") == 0
    for name in ("views.png", "normals.png", "depth.png", "turntable.gif", "turntable.mp4", "mesh.glb", "mesh.obj"):
        assert (tmp_path / "whole" / name).stat().st_size > 100, name
    assert vcgen("fit", place / "given.yaml", tmp_path / "parts", trainer__callbacks="training.Witness",
                 trainer__callbacks__stop=2) == 0  # fmt: skip
    assert vcgen("fit", place / "given.yaml", tmp_path / "parts", ckpt_path="last") == 0
    whole = assert_same_end(tmp_path / "whole", tmp_path / "parts")["state_dict"]
    alone, view = model_folder.load(tmp_path / "whole" / "field"), small_realfusion.photo().context
    made, points = system(), torch.rand(1, 50, 3) - 0.5
    made.scene.decoder = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    made.load_state_dict(whole)
    (density, color), expected = alone.field(view)(points, points), made.whole_field(points, points)[1]
    torch.testing.assert_close(density, made.field(view).density(points))
    torch.testing.assert_close(color, expected)


def test_the_subject_is_the_datas_and_another_one_is_refused(place, tmp_path, capsys):
    assert Prompt(template="{subject}, {view} view").about("red car").of("back") == "red car, back view"
    with pytest.raises(UserError, match="leave the first out"):
        Prompt(subject="chair").about("red car")
    line = refusal(capsys, vcgen("fit", place / "given.yaml", tmp_path, data__prompt=" "))
    assert "data.prompt is empty" in line


def test_an_empty_scene_is_told_by_options_that_there_are():
    monitor = system().monitor
    for _ in range(WINDOW - 1):
        monitor.watch(0.001, 0.01, 0.1)
    with pytest.warns(UserWarning, match=r"the scene is empty .*: raise the blob, lower weights\.opacity or sds"):
        monitor.watch(0.001, 0.01, 0.1)


def test_the_emptiness_gives_way_at_ten_where_nothing_is_and_at_ten_elevenths_where_all_is():
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    emptiness(weights).backward()
    torch.testing.assert_close(2 * weights.grad, torch.tensor([10.0, 10 / 11], dtype=torch.float64))


@pytest.mark.parametrize(("middle", "pull"), [(1.4, 0.2148), (6.0 - 1e-9, 0.5 / 0.693147), (20.0, 1.0)])
def test_the_depths_pull_is_that_of_the_softplus_and_finite_behind_the_border(middle, pull):
    """Where the middle lies far behind, it comes to 1; the release's logarithm has no value there."""
    depth = torch.full((1, 64, 64), 6.0, dtype=torch.float64)
    depth[:, 7:-7, 7:-7] = middle
    depth.requires_grad_()
    depth_contrast(depth, torch.ones_like(depth)).backward()
    assert float(depth.grad[0, 7:-7, 7:-7].sum()) == pytest.approx(pull, rel=1e-3)
    assert float(depth.grad.sum()) == pytest.approx(0, abs=1e-9)
    nothing = torch.zeros(1, 64, 64)
    assert float(depth_contrast(nothing, nothing)) == pytest.approx(-math.log(math.log(2)))


def test_weights_follow_the_run_by_points():
    course = [(0.0, 1.0), (0.5, 1.0), (0.5, 20.0), (1.0, 40.0)]
    assert [value_at(course, at) for at in (0.0, 0.4, 0.5, 0.75, 1.0)] == [1, 1, 20, 30, 40]
    assert value_at(3.0, 0.7) == 3 and SceneWeights(emptiness=course).at(0.75)["emptiness"] == 30
    with pytest.raises(ValueError, match=r"emptiness: need points .* in order"):
        SceneWeights(emptiness=[(0.5, 1.0), (0.0, 2.0)])
    found = losses(system(weights=SceneWeights(emptiness=1.0, contrast=1.0)))
    assert 0 < float(found["emptiness"].detach()) < 1 and found["contrast"].isfinite()


def test_cameras_light_background_and_noise_follow_the_run():
    options = {
        "around": [(0.0, 0.25), (0.5, 1.0)], "noise_end": [(0.0, 0.9), (0.2, 0.9), (0.2, 0.5)], "ambient": (0.2, 0.8),
        "shading": (0.0, 1.0, 0.0), "background": "white", "random_background": 0.5,
    }  # fmt: skip
    made, noise = system(options=options), torch.Generator().manual_seed(0)
    reference, center = made.reference.cameras[0], made.scene.center
    for progress, widest in ((0.0, 45.0), (0.5, 180.0)):
        spread = value_at(made.options.around, progress)
        drawn = [random_cameras(reference, center, 0.75, ViewpointOptions(), noise, spread) for _ in range(60)]
        turns = torch.cat([relative_angles(camera, reference, center)[0].abs() for camera in drawn])
        assert 0.8 * widest < float(turns.max()) <= widest
    assert [made.annealed(at).start for at in (0.0, 0.1, 0.2, 1.0)] == [0.9, 0.9, 0.5, 0.5]
    eye = reference.centers[0]
    lights = [draw_shading(made.options, eye, 1.0, noise).ambient for _ in range(60)]
    assert 0.2 <= min(lights) < 0.3 < 0.7 < max(lights) <= 0.8
    colors = [draw_color(made.options, torch.device("cpu"), noise) for _ in range(60)]
    assert 15 < sum(color == 1.0 if isinstance(color, float) else False for color in colors) < 45


def test_the_lowest_noise_level_follows_the_run():
    low = {"noise_low": [(0.0, 0.9), (0.2, 0.9), (1.0, 0.3)]}
    made = system(options={**low, "noise_end": [(0.2, 0.98), (1.0, 0.7)]})
    found = [(made.annealed(at).start, made.annealed(at).end) for at in (0.0, 0.2, 0.6, 1.0)]
    assert found == [(0.98, 0.9), (0.98, 0.9), pytest.approx((0.84, 0.6)), pytest.approx((0.7, 0.3))]
    for guidance in (SDS(start=0.95), VSD(start=0.95)):
        kept = system(options={**low, "noise_end": None}, guidance=guidance).annealed(1.0)
        assert (kept.start, kept.end) == (0.95, 0.3) and type(kept) is type(guidance)
        with pytest.raises(ValueError, match="need end < start"):  # though not at the run's end
            system(options={**low, "noise_end": [(0.2, 0.8)]}, guidance=guidance)
    with pytest.raises(ValueError, match="need end < start"):  # at its beginning alone
        system(options={"noise_low": 0.985, "noise_end": 1.0})
    step = [(0.0, 0.02), (0.5, 1.0), (0.5, 0.02)]
    with pytest.raises(ValueError, match="need end < start"):  # before a step alone
        system(options={"noise_low": step, "noise_end": None})
    with pytest.raises(ValueError, match=r"noise_low: need points .* in order"):
        TextTo3DOptions(noise_low=[(0.5, 1.0), (0.0, 0.2)])


def test_the_turntable_shows_all_that_random_views_see():
    """The frame's corners reach 0.93 world units from the origin; a sphere of 1.3 reaches nearer to the camera."""
    data = PromptData("a ball", size=12)
    data.setup("fit")
    scene = SceneHashGrid(HashGrid(2, 2, 8, 4, 8), 1.3, 1.3, hidden=8, density_bias=-1.0)
    made = system(scene=scene)
    made.use_reference(data.example.context)
    camera = circle(made, made.reference, 1)[0]
    assert (float(camera.near), float(camera.far)) == (pytest.approx(0.5), pytest.approx(3.1))
    whole = replace(camera, near=torch.tensor(0.01), far=torch.tensor(9.0)).reshape(1, 1)
    with torch.no_grad():
        shown, all_of_it = (made.render(made.whole_field, c, (12, 12)) for c in (camera.reshape(1, 1), whole))
    torch.testing.assert_close(shown.alpha, all_of_it.alpha)
    smaller = system()
    smaller.use_reference(data.example.context)
    assert torch.equal(smaller.reference.cameras.near, data.example.context.cameras.near)
    assert torch.equal(smaller.reference.cameras.far, data.example.context.cameras.far)


class Counting(SDS):
    """Knows the numbers of its rounds."""

    numbers: ClassVar[list[int]] = []

    def step(self, number, *others):
        self.numbers.append(number)
        return super().step(number, *others)


def test_the_rounds_of_a_guidance_end_with_the_last():
    made, noise = system(guidance=Counting(rounds=4)), torch.Generator().manual_seed(0)
    for progress in (0.0, 0.5, 0.999, 1.0):  # the last where the run's time is over before its last step
        made.distill(torch.rand(1, 3, 16, 16), made.reference.cameras[0], progress, noise)
    assert Counting.numbers == [0, 2, 3, 3]


def test_decoded_targets_pull_pixels_past_the_encoder():
    made, images = system(options={"decoded": True}, guidance=SDS()), torch.rand(2, 3, 20, 20)
    cameras, noise = Cameras.cat([made.reference.cameras[0]] * 2), torch.Generator().manual_seed(0)
    wanted, given = [], images.clone().requires_grad_()
    decode, made.text_prior.decode = made.text_prior.decode, lambda x: wanted.append(3 * decode(x)) or wanted[0]
    loss = made.distill(given, cameras, 0.0, noise)
    goal = F.interpolate(wanted[0].clamp(-1, 1), (20, 20), mode="bilinear", antialias=True)
    assert float(loss.detach()) == pytest.approx(float(0.5 * (2 * images - 1 - goal).square().mean()), rel=1e-5)
    loss.backward()
    torch.testing.assert_close(given.grad, 2 * (2 * images - 1 - goal) / images.numel())
    assert not wanted[0].requires_grad and float(wanted[0].abs().max()) > 1


@pytest.mark.parametrize(
    ("name", "own"),
    [("dreamfusion_sd", ()), ("prolificdreamer_sd", ("guidance_scale", "noise_end", "random_background"))],
)
def test_stable_diffusion_gets_none_of_the_small_priors_schedule(name, own):
    """It states the defaults of the code for all that dreamfusion.yaml bends for its prior, but for its own."""
    small, large = (
        yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["model"]["init_args"]
        for name in ("dreamfusion", name)
    )
    assert set(small["options"]) <= set(large["options"]) and set(small["weights"]) == set(large["weights"])
    stated, default = TextTo3DOptions(**large["options"]), TextTo3DOptions()
    own = {key: getattr(default, key) for key in (*own, "guidance_scale")}
    assert replace(stated, **own) == default and set(large["options"]["guidance_scale"]) == {
        100.0 if len(own) == 1 else 7.5
    }
    assert SceneWeights(**large["weights"]) == SceneWeights()
    assert SDS(**small["guidance"]["init_args"]) == SDS()


def test_decoded_targets_are_refused_where_there_are_none():
    latent = SceneVoxels(8, 0.75, 0.75, colors="latent")
    with pytest.raises(ValueError, match=r"a scene of latents is compared with latents: set model\.options\.decoded"):
        system(scene=latent, options={"render_size": 8, "albedo_only": 1.0, "decoded": True})
    with pytest.raises(ValueError, match="ClipGuidance makes no targets that are compared with latents"):
        system(guidance=ClipGuidance("unused"), options={"decoded": True})


@pytest.mark.integration
def test_latents_and_a_student_go_on_bitwise_and_leave_a_scene_in_colors(place, tmp_path):
    given = yaml.safe_load((place / "given.yaml").read_text())
    voxels = {"size": 8, "half_size": 0.75, "radius": 0.75, "colors": "latent", "blob": [6.0, 0.2]}
    given["model"]["init_args"] |= {
        "scene": {"class_path": "SceneVoxels", "init_args": voxels},
        "guidance": {"class_path": "VSD", "init_args": {"student": {"rank": 2}}},
    }
    given["model"]["init_args"]["options"] |= {"render_size": 8, "albedo_only": 1.0}
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(given))
    assert vcgen("fit", tmp_path / "given.yaml", tmp_path / "whole") == 0
    stop = {"trainer__callbacks": "training.Witness", "trainer__callbacks__stop": 2}
    assert vcgen("fit", tmp_path / "given.yaml", tmp_path / "parts", **stop) == 0
    assert vcgen("fit", tmp_path / "given.yaml", tmp_path / "parts", ckpt_path="last") == 0
    whole = assert_same_end(tmp_path / "whole", tmp_path / "parts")["state_dict"]
    assert any(name.startswith("guidance.student.up") for name in whole)
    alone, points = model_folder.load(tmp_path / "whole" / "field"), torch.rand(1, 50, 3) - 0.5
    density, color = alone.field(small_realfusion.photo().context)(points, points)
    assert color.shape == (1, 50, 3) and 0 <= float(color.detach().min()) <= float(color.detach().max()) <= 1
    assert bool((density >= 0).all()) and bool((density > 0).any())
