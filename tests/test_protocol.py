"""Protocol files: what is accepted, what is refused and in which words."""

import json
from pathlib import Path

import pytest

from vcgen.errors import UserError
from vcgen.evaluation.protocol import SUPPORTED_METRICS, SUPPORTED_QUANTISATION, Protocol, load_protocol
from vcgen.evaluation.selection import Task

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
    assert load_protocol(path).name == path.stem


def test_srn_protocol_is_the_published_one():
    protocol = load_protocol(next(path for path in SHIPPED if path.stem == "srn128"))
    assert (protocol.context, protocol.size, protocol.background, protocol.views) == ((64,), (128, 128), 1.0, 251)
