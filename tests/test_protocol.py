"""Protocol files: what is accepted, what is refused and in which words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vcgen.data.shards.files import read_index
from vcgen.errors import UserError
from vcgen.evaluation.protocol import SUPPORTED_METRICS, SUPPORTED_QUANTISATION, Protocol, ProtocolFile, load_protocol
from vcgen.evaluation.scope import scored
from vcgen.evaluation.selection import Task
from vcgen.evaluation.sharing import objects_of
from vcgen.io import parse_json

SHIPPED = sorted((Path(__file__).parents[1] / "configs" / "protocols").glob("*.json"))


def make(**changes) -> Protocol:
    return Protocol(**({"name": "test", "context": (0,), "targets": "all others", "size": (8, 8)} | changes))


def content(**changes) -> dict:
    entries = {"version": 2, "name": "test", "context": [0], "targets": "all others", "size": [8, 8], "background": 1.0}
    return entries | {"quantisation": SUPPORTED_QUANTISATION, "metrics": SUPPORTED_METRICS} | changes


def write(folder: Path, entries: object) -> Path:
    path = folder / "protocol.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return path


def test_with_input_64_of_251_views_exactly_view_64_is_missing_from_250_targets():
    (task,) = make(context=(64,)).tasks("car", 251)
    targets = task.targets
    assert len(targets) == 250
    assert set(range(251)) - set(targets) == {64}


def test_listed_targets_come_in_ascending_order():
    assert make(targets=(5, 2, 9)).tasks("car", 10) == [Task((0,), (2, 5, 9))]


@pytest.mark.parametrize("indices", [{"context": (3,), "targets": (1, 3)}, {"targets": (1, 1)}, {"context": (2, 2)}])
def test_input_view_among_the_targets_or_view_named_twice_is_refused(indices):
    with pytest.raises(UserError, match="occurs twice"):
        make(**indices)


@pytest.mark.parametrize("indices", [{"context": (-1,)}, {"targets": (0.5,)}, {"context": ()}, {"targets": ()}])
def test_indices_that_are_no_views_are_refused(indices):
    with pytest.raises(UserError):
        make(**indices)


@pytest.mark.parametrize("indices", [{"context": (64,)}, {"targets": (1, 24)}])
def test_index_out_of_range_names_the_object(indices):
    with pytest.raises(UserError, match=r"object teapot: .* only views 0 to 23"):
        make(**indices).tasks("teapot", 24)


def test_object_with_another_number_of_views_than_promised_is_named():
    with pytest.raises(UserError, match=r"object teapot: has 250 views.*251"):
        make(views=251).tasks("teapot", 250)


def test_object_without_any_view_left_is_refused():
    with pytest.raises(UserError, match="leaves no view to predict"):
        make(context=(0, 1)).tasks("teapot", 2)


def test_other_resolution_says_at_which_size_to_pack():
    with pytest.raises(UserError, match=r"64 x 64.*128 x 128.*--size 128"):
        make(size=(128, 128)).check_data((64, 64), "test", Path("shards"))
    with pytest.raises(UserError, match=r"wants 360 x 640; .*--size 360x640$"):
        make(size=(360, 640)).check_data((64, 64), "test", Path("shards"))


def test_other_split_is_refused_and_no_split_accepts_any():
    with pytest.raises(UserError, match="holds split 'train'"):
        make(split="test").check_data((8, 8), "train", Path("shards"))
    assert make().check_data((8, 8), "train", Path("shards")) is None


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("{", "truncated"),
        ([], "Expected `object`, got `array`"),
        (content(version=1), "1 - at `$.version`"),
        (content(contxt=[0]), "unknown field `contxt`"),
        (
            {key: value for key, value in content().items() if key != "background"},
            "missing required field `background`",
        ),
        (content(metrics={"psnr": "pooled"}), "other metric definitions"),
        (content(metrics=SUPPORTED_METRICS | {"ssim_valid": "other"}), "other metric definitions"),
        (content(quantisation="8-bit-truncated"), "other metric definitions"),
        (content(size=[8]), "of length 2 - at `$.size`"),
        (content(size=[[8], [8]]), "Expected `int`, got `array` - at `$.size"),
        (content(size=[8, 10**9]), "<= 16384 - at `$.size"),
        (content(targets="some"), "at `$.targets`"),
        (content(targets=[-1]), ">= 0 - at `$.targets"),
        (content(background=255), "<= 1.0 - at `$.background`"),
        (content(split=["test"]), "at `$.split`"),
        (content(context=[1, 1]), "view 1 occurs twice"),
        (content(name="a\x1b[31m"), "matching regex"),
        (content(name=""), "length >= 1 - at `$.name`"),
    ],
)
def test_bad_files_are_refused_with_their_name(tmp_path, entries, words):
    path = write(tmp_path, entries)
    with pytest.raises(UserError) as error:
        load_protocol(path)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


def test_missing_file_points_to_the_shipped_ones(tmp_path):
    with pytest.raises(UserError, match="configs/protocols"):
        load_protocol(tmp_path / "absent.json")


def test_hash_follows_the_file(tmp_path):
    first = load_protocol(write(tmp_path, content())).sha256
    assert load_protocol(write(tmp_path, content())).sha256 == first
    assert load_protocol(write(tmp_path, content(background=0.0))).sha256 != first


def test_further_metrics_are_named_with_their_definitions(tmp_path):
    assert load_protocol(write(tmp_path, content())).metrics == ()
    metrics = {"ssim_valid": "gaussian-11-valid"} | SUPPORTED_METRICS
    assert load_protocol(write(tmp_path, content(metrics=metrics))).metrics == ("ssim_valid",)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_protocols_load_and_are_named_after_their_file(path):
    file = parse_json(path.read_bytes(), ProtocolFile, str(path))
    assert file.name == path.stem
    if file.lists is None:
        assert load_protocol(path).name == path.stem
    else:
        with pytest.raises(UserError, match=rf"{file.lists.file} is missing, .*; get it from {file.lists.address}"):
            load_protocol(path)


def shipped(name: str) -> Protocol:
    return load_protocol(next(path for path in SHIPPED if path.stem == name))


def with_list(folder: Path, name: str, text: str) -> Protocol:
    """A shipped protocol with a list of our own in place of the published one."""
    entries = json.loads(next(path for path in SHIPPED if path.stem == name).read_text())
    entries["lists"].pop("sha256", None)
    (folder / entries["lists"]["file"]).write_text(text)
    return load_protocol(write(folder, entries))


def test_srn_protocols_are_the_published_ones():
    one, two = shipped("srn128"), shipped("srn128_2views")
    assert (one.context, one.size, one.background, one.views) == ((64,), (128, 128), 1.0, 251)
    assert replace(two, context=one.context, name=one.name, description=one.description, sha256=one.sha256) == one
    assert two.context == (64, 104) and len(two.tasks("car", 251)[0].targets) == 249


def test_protocols_of_several_views_predict_the_same_thirty():
    contexts = {1: (0,), 3: (0, 12, 24), 5: (0, 8, 16, 24, 32), 10: tuple(range(0, 40, 4))}
    for count, context in contexts.items():
        assert shipped(f"cars64_views{count}").tasks("car", 40) == [
            Task(context, tuple(view for view in range(40) if view % 4))
        ]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cars64_view0", "cars64"),
        ("cars64_views5", "cars64"),
        ("cars64_foreign", "cars64"),
        ("objects64_view0", "furniture64"),
        ("objects64_view0", "kits64"),
    ],
)
def test_protocols_of_bundled_sets_fit_them(name, data):
    protocol = shipped(name)
    index = read_index(SHIPPED[0].parents[2] / "data" / data / protocol.split)
    protocol.check_data(index.image_size, index.split, index.folder)
    objects = objects_of(index)
    assert scored(index, objects, protocol) == objects


def test_gso30_scores_all_sixteen_views_with_the_ssim_of_its_script():
    assert shipped("gso30").tasks("chicken", 16) == [Task((0,), tuple(range(16)))]
    assert shipped("gso30").metrics == ("ssim_valid_inferred",)


def test_protocols_with_published_lists_take_their_views_from_them(tmp_path):
    nmr = with_list(tmp_path, "nmr64", "02958343 1079efee042629d4ce28f0f1b509eda 15\n")
    assert nmr.tasks("02958343_1079efee042629d4ce28f0f1b509eda", 24)[0].context == (15,)
    clips = with_list(tmp_path, "re10k_2views", '{"debc": {"context": [34, 81], "target": [53, 66, 81]}, "e74c": null}')
    assert clips.tasks("debc", 100) == [Task((34, 81), (53, 66, 81))]
    assert clips.tasks("e74c", 100) == clips.tasks("other", 100) == []
    frames = [["1_2_3", n, f"hydrant/1_2_3/images/frame{n:06d}.jpg"] for n in (3, 1, 2)]
    sequences = with_list(tmp_path, "co3d_fewview", json.dumps([frames]))
    assert sequences.tasks("hydrant_1_2_3", 3, ["frame000001", "frame000002", "frame000003"]) == [Task((0, 1), (2,))]


def test_abo_draws_one_view_of_each_object():
    contexts = [shipped("abo128").tasks(f"table_{number}", 91)[0].context for number in range(20)]
    assert {len(context) for context in contexts} == {1} and len(set(contexts)) > 10
