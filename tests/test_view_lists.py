"""Views of each object: listed in the protocol, in the files that others have published, or drawn by a seed."""

import hashlib
import json
from pathlib import Path

import pytest

from small_evaluation import SIZE
from vcgen.errors import UserError
from vcgen.evaluation.protocol import SUPPORTED_METRICS, SUPPORTED_QUANTISATION, Protocol, load_protocol
from vcgen.evaluation.selection import Draw, Task

# As pixel-nerf's viewlist/src_dvr.txt and pixelSplat's evaluation_index_re10k.json begin, and as the frames of CO3D v2
# stand in its eval_batches: the file has no line break at its end, a scene may have null, a target may be an input.
PIXELNERF = "03691459 101354f9d8dede686f7b08d9de913afe 20\n02958343 1079efee042629d4ce28f0f1b509eda 15"
PIXELSPLAT = {
    "5aca87f95a9412c6": {"context": [58, 133], "target": [84, 102, 129]},
    "debc3490ba0bd84b": {"context": [34, 81], "target": [53, 66, 81]},
    "e74ceac9043aa1b8": None,
}
CO3D = [
    [["106_12648_23157", n, f"hydrant/106_12648_23157/images/frame{f:06d}.jpg"] for n, f in frames]
    for frames in ([(7, 8), (1, 2), (3, 4)], [(5, 6), (3, 4)])
]
FRAMES = tuple(f"frame{number:06d}" for number in range(1, 11))


def write(folder: Path, lists: object = None, /, **entries) -> Path:
    """A protocol file, and views.txt beside it."""
    content = {"version": 2, "name": "test", "context": "listed", "targets": "all others", "size": [SIZE, SIZE]}
    content |= {"background": 1.0, "quantisation": SUPPORTED_QUANTISATION, "metrics": SUPPORTED_METRICS}
    (folder / "protocol.json").write_text(json.dumps(content | entries))
    if lists is not None:
        (folder / "views.txt").write_text(lists if isinstance(lists, str) else json.dumps(lists))
    return folder / "protocol.json"


def published(folder: Path, lists: object, kind: str, **entries) -> Protocol:
    return load_protocol(write(folder, lists, lists={"file": "views.txt", "format": kind}, **entries))


def test_views_of_each_object_stand_in_the_protocol(tmp_path):
    objects = {"a1": {"context": [3, 1], "targets": [0]}, "b1": {"context": [2], "targets": [5, 4]}}
    protocol = load_protocol(write(tmp_path, targets="listed", objects=objects))
    assert protocol.tasks("a1", 6) == [Task((3, 1), (0,))]
    assert protocol.tasks("b1", 6) == [Task((2,), (4, 5))]
    assert protocol.most_context == 2


def test_one_side_may_be_listed_and_the_other_not(tmp_path):
    protocol = load_protocol(write(tmp_path, context=[0], targets="listed", objects={"a1": {"targets": [2]}}))
    assert protocol.tasks("a1", 6) == [Task((0,), (2,))]


def test_pixelnerfs_list_gives_the_input_of_each_object_by_category_and_name(tmp_path):
    protocol = published(tmp_path, PIXELNERF, "pixelnerf")
    key = "101354f9d8dede686f7b08d9de913afe"
    (task,) = protocol.tasks(f"03691459_{key}", 24)
    assert task.context == (20,) and task.targets == tuple(v for v in range(24) if v != 20)
    assert protocol.tasks(key, 24) == [task]  # a data set of one category has it not in its keys


def test_an_object_of_two_categories_must_say_which(tmp_path):
    protocol = published(tmp_path, "c1 x 1\nc2 x 2\n", "pixelnerf")
    assert protocol.tasks("c2_x", 6)[0].context == (2,)
    with pytest.raises(UserError, match=r"object x: views.txt lists c1_x, c2_x; pack the data with the category"):
        protocol.tasks("x", 6)


def test_pixelsplats_index_gives_both_leaves_out_null_and_may_score_an_input(tmp_path):
    protocol = published(tmp_path, PIXELSPLAT, "pixelsplat", targets="listed", score_context=True)
    assert protocol.tasks("5aca87f95a9412c6", 200) == [Task((58, 133), (84, 102, 129))]
    assert protocol.tasks("debc3490ba0bd84b", 200) == [Task((34, 81), (53, 66, 81))]
    assert protocol.tasks("e74ceac9043aa1b8", 200) == []
    assert protocol.most_context == 2


def test_co3ds_batches_predict_their_first_frame_from_the_others_by_name(tmp_path):
    protocol = published(tmp_path, CO3D, "co3d", targets="listed")
    tasks = [Task((1, 3), (7,)), Task((3,), (5,))]  # frame000002 is view 1 of those that begin with frame000001
    assert protocol.by_name and protocol.most_context == 2
    assert protocol.tasks("hydrant_106_12648_23157", 10, FRAMES) == tasks
    assert protocol.tasks("106_12648_23157", 10, FRAMES) == tasks


def test_a_draw_is_the_least_hashes_of_seed_object_and_view_whoever_draws():
    protocol = Protocol("test", Draw(2, 7), Draw(3, 7), (8, 8))
    (task,) = protocol.tasks("teapot", 24)

    def least(what: str, views: list[int], count: int) -> tuple[int, ...]:
        order = sorted(views, key=lambda view: hashlib.sha256(f"7 {what} teapot {view}".encode()).hexdigest())
        return tuple(sorted(order[:count]))

    assert task.context == least("context", list(range(24)), 2) == (18, 22)
    assert task.targets == least("target", [v for v in range(24) if v not in task.context], 3)
    assert protocol.tasks("teapot", 24) == [task]


def test_draws_differ_between_objects_and_seeds_and_reach_every_view():
    draws = [
        Protocol("test", Draw(1, seed), "all others", (8, 8)).tasks(f"o{number}", 6)[0].context
        for seed in (0, 1)
        for number in range(100)
    ]
    assert set(draws) == {(view,) for view in range(6)} and draws[:100] != draws[100:]


def test_all_views_may_be_targets_the_input_among_them():
    assert Protocol("test", (1,), "all", (8, 8), score_context=True).tasks("a", 3) == [Task((1,), (0, 1, 2))]
    with pytest.raises(UserError, match=r"object a: protocol test: view 1 occurs twice; .*score_context"):
        Protocol("test", (1,), "all", (8, 8)).tasks("a", 3)


def test_objects_that_are_not_listed_are_refused_or_left_out(tmp_path):
    entries = {"objects": {"a1": {"context": [0]}}}
    with pytest.raises(UserError, match=r"object b1: not in its objects, .*leave it out of the data, or set"):
        load_protocol(write(tmp_path, **entries)).tasks("b1", 6)
    assert load_protocol(write(tmp_path, **entries, unlisted="left out")).tasks("b1", 6) == []


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"objects": {"a1": {"context": [6]}}}, "wants view 6, but it has only views 0 to 5"),
        ({"objects": {"a1": {"context": [1, 1]}}}, "view 1 occurs twice"),
        ({"objects": {"a1": {"context": [1], "targets": [2, 1]}}, "targets": "listed"}, "view 1 occurs twice"),
        ({"objects": {"a1": {"context": [1]}}, "targets": "listed"}, "leaves no view to predict"),
        ({"objects": {"a1": {"targets": [1]}}}, "gives it no input view"),
        ({"context": {"draw": 7, "seed": 0}}, "draws 7 context views, but only 6 are left"),
        ({"context": {"draw": 4, "seed": 0}, "targets": {"draw": 3, "seed": 0}}, "draws 3 target views, but only 2"),
    ],
)
def test_views_that_an_object_does_not_have_are_refused_in_one_line(tmp_path, entries, words):
    with pytest.raises(UserError) as error:
        load_protocol(write(tmp_path, **entries)).tasks("a1", 6)
    assert str(error.value).startswith("object a1: protocol test") and words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_frame_that_was_not_packed_is_named(tmp_path):
    protocol = published(tmp_path, CO3D, "co3d", targets="listed")
    with pytest.raises(UserError, match="wants the view named frame000004, which it does not have"):
        protocol.tasks("106_12648_23157", 9, [name for name in FRAMES if name != "frame000004"])


def test_a_view_that_two_batches_predict_would_count_twice(tmp_path):
    protocol = published(tmp_path, [CO3D[0], CO3D[0][:2]], "co3d", targets="listed")
    with pytest.raises(UserError, match="predicts view 7 from several inputs"):
        protocol.tasks("106_12648_23157", 10, FRAMES)


@pytest.mark.parametrize(
    ("kind", "lists", "words"),
    [
        ("pixelnerf", "c x 1\nc y\n", "line 2: 'c y' is not CATEGORY OBJECT VIEW"),
        ("pixelnerf", "c x -1\n", "line 1: 'c x -1' is not"),
        ("pixelnerf", "c x 1\nc x 2\n", "line 2: c_x is listed twice"),
        ("pixelsplat", "{", "truncated"),
        ("pixelsplat", {"a": {"context": [0]}}, "missing required field `target`"),
        ("pixelsplat", {"a": {"context": [0], "target": [-1]}}, ">= 0"),
        ("co3d", {}, "Expected `array`"),
        ("co3d", [[["s", 1, "c/s/images/f.jpg"], ["t", 1, "c/t/images/f.jpg"]]], "batch 0: should be frames of one"),
        ("co3d", [[]], "batch 0: should be frames of one sequence"),
        ("co3d", [[["s", 1, "."]]], "batch 0"),
        ("co3d", [[["s", 1, "c/t/images/f.jpg"]]], "batch 0"),
    ],
)
def test_damaged_lists_are_refused_with_their_name(tmp_path, kind, lists, words):
    with pytest.raises(UserError) as error:
        published(tmp_path, lists, kind, targets="listed" if kind != "pixelnerf" else "all others")
    assert str(error.value).startswith(f"{tmp_path / 'views.txt'}") and words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_changed_list_says_where_the_published_one_is(tmp_path):
    digest = hashlib.sha256(PIXELNERF.encode()).hexdigest()
    entry = {"file": "views.txt", "format": "pixelnerf", "sha256": digest, "address": "https://example.org/views.txt"}
    with pytest.raises(UserError, match=r"views.txt is missing, .*; get it from https://example.org/views.txt"):
        load_protocol(write(tmp_path, lists=entry))
    assert load_protocol(write(tmp_path, PIXELNERF, lists=entry)).tasks("1079efee042629d4ce28f0f1b509eda", 24)
    with pytest.raises(UserError, match=r"not the published list, its SHA-256 is another; get it from https"):
        load_protocol(write(tmp_path, PIXELNERF + "6", lists=entry))


def test_the_hash_of_a_protocol_is_of_its_list_too(tmp_path):
    hashes = {published(tmp_path, text, "pixelnerf").sha256 for text in ("c x 1\n", "c x 2\n", "c x 1\n")}
    assert len(hashes) == 2


@pytest.mark.parametrize("name", ["../views.txt", "/etc/passwd", "a/b", ".views", ""])
def test_a_list_lies_beside_the_protocol(tmp_path, name):
    with pytest.raises(UserError, match=r"at `\$.lists.file`"):
        load_protocol(write(tmp_path, lists={"file": name, "format": "pixelnerf"}))
