"""CLIP similarity and R-precision of scenes: by hand, and through the command."""

import json

import pytest
import torch
from torch.nn import functional as F

from small_text_to_3d import hash_grid, system
from text_folder import tiny_clip, tiny_folder
from training import refusal
from vcgen.checkpoints import model_folder
from vcgen.cli import main as cli
from vcgen.data.input_camera import InputCamera
from vcgen.diffusion.clip import Clip
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.evaluation.retrieval import Score, as_read, score, summary, untrained, views_of
from vcgen.fields.hashgrid import HashGrid
from vcgen.systems.text_to_3d.outcome import circle, save_field

PROMPTS = ["a photo of a red car", "a photo of a blue chair", "a photo of a green fish"]


class Colors(torch.nn.Module):
    """Sees an image's mean color, and reads red, blue or green out of a text."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(images.mean((1, 2)), dim=-1)

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(word in text) for word in ("red", "green", "blue")] for text in texts])


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A scene of random colors, as a model folder."""
    made = system(scene=hash_grid())
    with torch.no_grad():
        for parameter in made.scene.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return save_field(made, made.scene, made.reference, tmp_path_factory.mktemp("scene") / "field")


def test_views_are_averaged_before_the_prompts_are_ranked():
    """Two of three views look blue; on the average the scene is red."""
    images = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.6], [0.5, 0.0, 0.6]])[:, None, None].expand(-1, 4, 4, -1)
    found = score(Colors(), images, PROMPTS[0], PROMPTS)
    expected = (1 + 2 * 0.5 / (0.25 + 0.36) ** 0.5) / 3
    assert found.similarity == pytest.approx(expected) and found.found
    assert not score(Colors(), images, PROMPTS[1], PROMPTS).found
    assert not score(Colors(), torch.zeros_like(images), PROMPTS[0], PROMPTS).found  # all alike: nothing is told


def test_prompts_that_are_read_alike_are_one(tmp_path):
    clip = Clip.from_folder(tiny_clip(tmp_path / "clip"))
    images, prompts = torch.rand(2, 24, 24, 3), ["a red car", "a blue chair", "A  Red car", "a blue chair"]
    first = as_read(prompts, clip)
    assert first == {"a red car": "a red car", "a blue chair": "a blue chair", "A  Red car": "a red car"}
    assert any(score(clip, images, prompt, list(dict.fromkeys(first.values()))).found for prompt in first.values())
    assert not any(score(clip, images, prompt, list(first)).found for prompt in ("a red car", "A  Red car"))


def test_the_average_and_its_interval_are_over_prompts():
    scores = [
        ("colored", Score("a", 0.2, True)),
        ("colored", Score("b", 0.4, False)),
        ("floor", Score("a", 0.0, False)),
    ]
    found = summary(scores)
    assert found["colored"]["similarity"] == pytest.approx(0.3) and found["colored"]["r_precision"] == 0.5
    assert found["colored"]["r_precision_interval"] == (0.0, 1.0) and found["floor"]["r_precision_interval"] is None


def test_textureless_views_have_no_color_and_the_floor_is_another_scene(field):
    made = model_folder.load(field)
    seen = {kind: views_of(made, kind, 3, 12) for kind in ("albedo", "textureless")}
    assert seen["albedo"].shape == (3, 12, 12, 3)
    gray = seen["textureless"]
    torch.testing.assert_close(gray, gray.mean(-1, keepdim=True).expand_as(gray))
    assert float(gray.std()) > 0.01 and float((seen["albedo"] - seen["albedo"].mean(-1, keepdim=True)).std()) > 1e-3
    before = untrained(made)
    assert not torch.equal(views_of(before, "albedo", 1, 12), seen["albedo"][:1])
    assert torch.equal(views_of(before, "albedo", 1, 12), views_of(untrained(made), "albedo", 1, 12))


def test_a_scene_beside_the_origin_is_judged_by_the_views_of_its_run_and_keeps_its_camera(tmp_path):
    torch.manual_seed(0)
    made = system(scene=SceneHashGrid(HashGrid(4, 2, 10, 4, 16), 0.75, 0.75, (0.3, 0.0, 0.2), 16, blob=(9.0, 0.2)))
    loaded = model_folder.load(save_field(made, made.scene, made.reference, tmp_path / "field"))
    cameras = circle(made, made.reference, 3)
    with torch.no_grad():
        own = [made.render(made.whole_field, cameras[i : i + 1].reshape(1, 1), (12, 12)).rgb[0, 0] for i in range(3)]
    torch.testing.assert_close(views_of(loaded, "albedo", 3, 12).movedim(-1, 1), torch.stack(own), atol=1e-4, rtol=0)
    camera = InputCamera.of(loaded.config)
    stored = camera.cameras([0.0], camera.elevation)
    torch.testing.assert_close(stored.c2w, made.reference.cameras[0].c2w)


def test_the_floor_is_as_opaque_as_a_run_begins(tmp_path):
    """Of random weights the density's bias alone matters: without it all of the sphere is fog."""
    made = system(scene=hash_grid())
    points = torch.tensor([[[0.6, 0.0, 0.0], [0.0, 0.0, -0.5], [0.0, 0.0, 0.0]]])
    begun = made.scene.scene().density(points).detach()
    before = untrained(model_folder.load(save_field(made, made.scene, made.reference, tmp_path / "field")))
    found = before.encoder.scene().density(points).detach()
    assert begun[0, :2].max() < 0.1 < begun[0, 2]
    torch.testing.assert_close(found.log(), begun.log(), atol=1.0, rtol=0)


@pytest.mark.integration
def test_the_command_writes_a_table_with_floor_and_ceiling(field, tmp_path, capsys):
    tiny_clip(tmp_path / "clip")
    tiny_folder(tmp_path / "prior")
    (tmp_path / "scenes.json").write_text(json.dumps({str(field): PROMPTS[0]}))
    (tmp_path / "prompts.txt").write_text("\n".join([*PROMPTS, PROMPTS[0].upper()]))
    words = ["evaluate-text", "--scenes", str(tmp_path / "scenes.json"), "--judge", str(tmp_path / "clip")]
    words += ["--prompts", str(tmp_path / "prompts.txt"), "--prior", str(tmp_path / "prior"), "--views", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "out"), "--size", "12"]) == 0
    written = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert list(written["results"]) == ["colored", "textureless", "floor", "ceiling"] and written["prompts"] == PROMPTS
    assert (tmp_path / "out" / "retrieval.md").read_text().strip() in capsys.readouterr().out
    assert cli.main([*words, "--out", str(tmp_path / "scenes.json"), "--judge", "absent"]) == 2
    assert "scenes.json: cannot create this folder" in capsys.readouterr().err  # before anything is loaded
    (tmp_path / "scenes.json").write_text("{}")
    assert "names no scenes" in refusal(capsys, cli.main([*words, "--out", str(tmp_path / "out")]))
    (tmp_path / "scenes.json").write_text('{"data/pretrained/cars64": "a car"}')
    assert "makes its scenes of images" in refusal(capsys, cli.main([*words, "--out", str(tmp_path / "out")]))
