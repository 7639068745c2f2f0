"""Tables of the documentation agree with the code: options and defaults, formats, messages, metrics."""

import ast
import inspect
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from pages import ROOT, table
from vcgen.cli.pack import FORMATS
from vcgen.data.datamodules.prompt import PromptData
from vcgen.data.images.photo_augment import PhotoAugmentation
from vcgen.data.shards.files import INDEX, read_index
from vcgen.data.viewpoints import ViewpointOptions
from vcgen.diffusion.feature_prior import FeaturePrior
from vcgen.diffusion.prior import ViewPrior
from vcgen.encoders.auto_decoder import AutoDecoder
from vcgen.encoders.epipolar import EpipolarEncoder
from vcgen.encoders.feature_volume import FeatureVolume
from vcgen.encoders.ibrnet import IbrNet
from vcgen.encoders.image_code import CodeEncoder
from vcgen.encoders.light_field import LightFieldDecoder
from vcgen.encoders.pixelnerf import PixelNerf
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.encoders.scene_shown import ShownScene
from vcgen.encoders.scene_triplane import SceneTriplane
from vcgen.encoders.scene_voxels import SceneVoxels
from vcgen.encoders.srn import SrnDecoder
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.evaluation.protocol import ProtocolFile
from vcgen.evaluation.results import Results
from vcgen.evaluation.view_lists import Format
from vcgen.fields.hashgrid import HashGrid
from vcgen.fields.ibrnet import IbrSampling
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.guidance.ngd import NGD
from vcgen.losses.scene import LossWeights
from vcgen.metrics.image import COLUMNS, column
from vcgen.metrics.lpips import SOURCES
from vcgen.personalization.textual_inversion import TextualInversion
from vcgen.rendering.patches import PatchOptions
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.distillation.loop import DistillOptions
from vcgen.systems.nerfdiff import NerfDiff, PriorOptions
from vcgen.systems.personalize import TEMPLATES
from vcgen.systems.realfusion.options import RealFusionOptions
from vcgen.systems.text_to_3d.options import Prompt
from vcgen.systems.text_to_3d.outcome import OutcomeOptions


def test_the_distillation_page_lists_every_option_with_its_default():
    page = ROOT / "docs" / "distillation.md"
    assert documented_defaults(table(page, "`model.guidance`, of `NGD`:")) == defaults(NGD)
    assert documented_defaults(table(page, "`model.options`:")) == defaults(DistillOptions)


def test_the_page_of_formats_has_a_row_for_each():
    page = ROOT / "docs" / "formats.md"
    heading = next(line for line in page.read_text().splitlines() if line.startswith("before you train"))
    assert table(page, heading).keys() == {form.name for form in FORMATS}


def test_the_personalization_page_lists_every_change_and_template_there_is():
    page = ROOT / "docs" / "personalization.md"
    assert documented_defaults(table(page, "Changes of the photo:")) == defaults(PhotoAugmentation)
    assert documented_defaults(table(page, "Options of `TextualInversion`, `model.method`:")) == defaults(
        TextualInversion
    )
    assert f"the {len(TEMPLATES)} short ones" in page.read_text()


@pytest.mark.parametrize(
    ("heading", "part"),
    [
        ("`model.prompt`:", Prompt),
        ("`model.weights`:", LossWeights),
        ("`model.viewpoints`:", ViewpointOptions),
        ("`model.options`:", RealFusionOptions),
        ("`model.outcome`:", OutcomeOptions),
    ],
)
def test_the_realfusion_page_lists_every_option_with_its_default(heading, part):
    assert documented_defaults(table(ROOT / "docs" / "realfusion.md", heading)) == defaults(part)


def test_the_page_of_texts_lists_every_option_of_the_data():
    assert documented_defaults(table(ROOT / "docs" / "text_to_3d.md", "## The data")) == defaults(PromptData)


OPTIONS = {
    "model.md": [NerfDiff, TriplaneEncoder, TriplaneDecoder, RenderOptions, PatchOptions, PriorOptions, ViewPrior],
    "fewshot_models.md": [
        PixelNerf,
        CodeEncoder,
        AutoDecoder,
        SrnDecoder,
        LightFieldDecoder,
        IbrNet,
        IbrSampling,
        EpipolarEncoder,
    ],
    "genvs.md": [FeatureVolume, FeaturePrior],
    "scenes.md": [SceneTriplane, SceneHashGrid, HashGrid, SceneVoxels, ShownScene],
}


@pytest.mark.parametrize(
    ("name", "part"),
    [(name, part) for name, parts in OPTIONS.items() for part in parts],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_page_of_a_model_lists_every_option_with_its_default(name, part):
    page = ROOT / "docs" / name
    (heading,) = re.findall(rf"^##+ {part.__name__}$", page.read_text(), re.MULTILINE)
    assert documented_defaults(table(page, heading)) == defaults(part)


def documented_defaults(rows: dict[str, list[str]]) -> dict[str, str]:
    return {name: cells[0].strip("`").replace('"', "'") for name, cells in rows.items()}


def defaults(part: type) -> dict[str, str]:
    """Option -> its default as Python prints it; dataclasses as a call, because their own defaults are listed
    elsewhere.
    """
    parameters = inspect.signature(part).parameters.values()
    return {
        p.name: "required" if p.default is p.empty else re.sub(r"^(\w+)\(\w+=.*\)$", r"\1()", repr(p.default))
        for p in parameters
    }


def test_the_shards_page_lists_the_fields_of_the_shard_format():
    page, bundled = ROOT / "docs" / "shards.md", ROOT / "data" / "cars64" / "test"
    assert table(page, "`KEY.cameras.json`, V views:").keys() == read_index(bundled).read(0).cameras_json().keys()
    index = json.loads((bundled / INDEX).read_bytes())
    shard = index["shards"][0]
    names = {name.split(".")[-1] for name in table(page, "`index.json`:")}
    assert names == index.keys() | shard.keys() | shard["samples"][0].keys()


def test_the_page_of_messages_quotes_messages_that_exist():
    texts = []
    for path in (path for part in ("data", "meshes", "cli") for path in (ROOT / "vcgen" / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            texts += [spoken(node)] if isinstance(node, (ast.JoinedStr, ast.Constant)) else []
    cells = re.findall(r"^\| [^|]+\|", (ROOT / "docs" / "messages.md").read_text(), re.MULTILINE)
    quoted = re.findall(r"`([^`]+)`", "".join(cells))
    assert len(quoted) > 20
    assert [text for text in quoted if not any(text in message for message in texts)] == []


def spoken(node: ast.JoinedStr | ast.Constant) -> str:
    """A string literal, the name of the index file filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    names = (part.value if isinstance(part, ast.Constant) else getattr(part.value, "id", None) for part in node.values)
    return "".join(INDEX if name == "INDEX" else str(name) for name in names)


def test_the_evaluation_page_lists_metrics_weights_protocol_and_results():
    page = ROOT / "docs" / "evaluation.md"
    metrics = table(page, "## Metrics", columns=3) | table(page, "Further columns, by name:", columns=3)
    assert {id(column(name)) for name in metrics} == {id(known) for known in COLUMNS.values()}
    assert all((cells[-1].strip("| ") == "higher") == column(name).higher_is_better for name, cells in metrics.items())
    weights = table(page, "## LPIPS weights")
    assert {name: re.findall(r"`([^`]+)`", cells[0]) for name, cells in weights.items()} == {
        name: [source.published, source.features] for name, source in SOURCES.items()
    }
    assert table(page, "## results.json").keys() == set(Results.__struct_fields__)
    protocols = sorted((ROOT / "configs" / "protocols").glob("*.json"))
    assert table(page, "## Protocol files").keys() == {path.name for path in protocols}
    assert table(page, "### Views of each object").keys() == set(get_args(Format))
    assert set(ProtocolFile.__struct_fields__) == set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", protocol_entries(page), re.MULTILINE)))
    )


def protocol_entries(page: Path) -> str:
    return page.read_text().split("| entry | meaning |")[1].split("\n\n")[0]
