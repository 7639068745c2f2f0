"""Evaluations in which objects have views of their own, several input views, or several reconstructions; and which
pixels count."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from small_evaluation import PROTOCOL, SETTINGS, SIZE, Oracle, gray_shards, level, numbers, record, run
from test_evaluate import results_file
from vcgen.data.shards.files import write_shards
from vcgen.errors import UserError
from vcgen.evaluation.baselines import CopyInput
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.runner import Origin, evaluate_system
from vcgen.evaluation.selection import Draw
from vcgen.evaluation.view_lists import Listed, ViewLists
from vcgen.types import Rendering

ORIGIN = Origin("copy", {"predictor": "copy"})


@pytest.fixture
def shards(tmp_path):
    return gray_shards(tmp_path / "shards")


def listed(lists: dict[str, list[tuple]], **changes) -> Protocol:
    """A protocol with (context, targets) of each object's reconstructions."""
    found = {(key,): tuple(Listed(*views) for views in tasks) for key, tasks in lists.items()}
    return replace(
        PROTOCOL, **{"context": "listed", "targets": "listed", "lists": ViewLists.of(found, "my list")} | changes
    )


def copied(key: str, given: int, view: int) -> float:
    """PSNR of copying one gray view for another."""
    return -20 * np.log10(abs(level(key, given) - level(key, view)) / 255)


def scores(results) -> dict[tuple[str, int], float]:
    return {(image["object"], image["view"]): image["psnr"] for image in results.images}


def test_each_object_is_scored_on_its_own_views(shards, tmp_path):
    protocol = listed({"a1": [((0,), (2, 5))], "a2": [((4,), (1,))], "b1": [((1,), (0,))], "c1": [((2,), (3,))]})
    results = evaluate_system(CopyInput(), shards, protocol, tmp_path / "out", ORIGIN, SETTINGS)
    expected = {("a1", 2): 0, ("a1", 5): 0, ("a2", 1): 4, ("b1", 0): 1, ("c1", 3): 2}
    assert scores(results) == pytest.approx(
        {(key, view): copied(key, given, view) for (key, view), given in expected.items()}, abs=1e-6
    )
    assert results.protocol["summary"] == "input view listed in my list, targets listed in my list"
    assert results.protocol["summary"] in (tmp_path / "out" / "report.md").read_text()


def test_of_several_input_views_copying_takes_the_nearest_of_each_object(shards, tmp_path):
    protocol = listed({key: [((0, 5), (1, 4))] for key in ("a1", "a2", "b1", "c1")})
    results = evaluate_system(CopyInput(), shards, protocol, tmp_path / "out", ORIGIN, SETTINGS)
    near = {1: 0, 4: 5}
    assert scores(results) == pytest.approx(
        {(key, view): copied(key, near[view], view) for key in ("a1", "a2", "b1", "c1") for view in near}, abs=1e-6
    )


def test_reconstructions_of_one_object_each_see_their_own_input(shards, tmp_path):
    protocol = listed({"b1": [((0,), (5,)), ((3, 1), (4, 2))]}, unlisted="left out")
    results = evaluate_system(CopyInput(), shards, protocol, tmp_path / "out", ORIGIN, SETTINGS)
    assert [image["view"] for image in results.images] == [2, 4, 5]
    assert scores(results)["b1", 5] == pytest.approx(copied("b1", 0, 5), abs=1e-6)
    assert scores(results)["b1", 4] == pytest.approx(copied("b1", 3, 4), abs=1e-6)


def test_a_system_sees_all_input_views_in_the_order_of_the_protocol(shards, tmp_path):
    class Watching(Oracle):
        def field(self, context):
            seen.append(context.cameras.centers[..., 0].tolist())
            return super().field(context[:, 1:])

    seen = []
    protocol = replace(PROTOCOL, context=(3, 0))
    results = evaluate_system(Watching(0), shards, protocol, tmp_path / "out", ORIGIN, SETTINGS)
    assert seen[:4] == [[[3.0, 0.0]]] * 4 and results.mean["psnr"] == 100


def test_a_system_that_looks_at_one_view_refuses_several(shards, tmp_path):
    system = Oracle(0)
    system.most_views = 1
    protocol = listed({"a1": [((0, 5), (1,))]}, unlisted="left out")
    with pytest.raises(UserError, match="protocol tiny gives 2 input views, copy looks at 1: use a protocol with 1"):
        evaluate_system(system, shards, protocol, tmp_path / "out", ORIGIN, SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "protocol",
    [
        replace(PROTOCOL, context=Draw(1, 3), targets=Draw(2, 3)),
        listed({"a1": [((0,), (2, 5))], "b1": [((1,), (0,)), ((2, 3), (4,))]}, unlisted="left out"),
    ],
    ids=["drawn", "listed"],
)
def test_shards_of_the_objects_give_the_numbers_of_one_process(shards, tmp_path, protocol):
    def score(out, **changes):
        return evaluate_system(CopyInput(), shards, protocol, out, ORIGIN, replace(SETTINGS, **changes))

    whole = score(tmp_path / "whole")
    for number in (1, 0):
        assert score(tmp_path / "shared", shard=(number, 2)) is None
    assert numbers(score(tmp_path / "shared", merge=True)) == numbers(whole)
    assert results_file(tmp_path / "shared") == results_file(tmp_path / "whole")


def test_objects_left_out_and_absent_ones_are_told(shards, tmp_path, capsys):
    protocol = listed({"a1": [((0,), (2,))], "z9": [((0,), (1,))], "z8": []}, unlisted="left out")
    assert run(shards, tmp_path / "out", protocol=protocol)[0].counts["objects"] == 1
    assert "1 of the 2 objects of my list are not in it: the mean is over fewer objects" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lists", "changes", "words"),
    [
        ({"a1": [((0,), (1,))]}, {}, "object c1: not in my list"),
        ({"z": [((0,), (1,))]}, {"unlisted": "left out"}, "holds none of the 1 objects of my list; pack the data"),
        ({key: [((0,), (6,))] for key in ("a1", "a2", "b1", "c1")}, {}, "wants view 6, but it has only views 0 to 5"),
        ({key: [((0,), (0,))] for key in ("a1", "a2", "b1", "c1")}, {}, "view 0 occurs twice"),
        ({key: [(("x",), (0,))] for key in ("a1", "a2", "b1", "c1")}, {}, "wants the view named x"),
    ],
)
def test_lists_that_do_not_fit_the_data_are_refused_before_any_rendering(shards, tmp_path, lists, changes, words):
    with pytest.raises(UserError) as error:
        run(shards, tmp_path / "out", protocol=listed(lists, **changes))
    assert words in str(error.value) and "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_views_may_be_listed_by_name(shards, tmp_path):
    protocol = listed({"b1": [(("000003",), ("000001", "000005"))]}, unlisted="left out")
    results = evaluate_system(CopyInput(), shards, protocol, tmp_path / "out", ORIGIN, SETTINGS)
    assert list(scores(results)) == [("b1", 1), ("b1", 5)]
    assert scores(results)["b1", 1] == pytest.approx(copied("b1", 3, 1), abs=1e-6)


class Gray:
    """Renders a gray level, with a column of other pixels at the left."""

    def __init__(self, level: float, left: float):
        self.level, self.left = level, left

    def field(self, context):
        self.seen = context
        return context

    def render(self, field, cameras, size, background=1.0):
        rgb = torch.full((*cameras.shape, 3, *size), self.level)
        rgb[..., :, 0] = self.left
        return Rendering(rgb, rgb[..., :1, :, :], rgb[..., :1, :, :])


def half_covered(tmp_path):
    """Gray 102 (0.4), of which the left half is covered fully, the right by 51 of 255 (0.2), the last column not."""
    images = np.full((3, SIZE, SIZE, 4), 102, np.uint8)
    images[..., : SIZE // 2, 3], images[..., SIZE // 2 :, 3], images[..., -1, 3] = 255, 51, 0
    write_shards([record("a1", images)], tmp_path / "half", (SIZE, SIZE))
    return tmp_path / "half"


def psnr_of(system, tmp_path, **changes) -> float:
    protocol = replace(PROTOCOL, background=1.0, **changes)
    return evaluate_system(system, half_covered(tmp_path), protocol, tmp_path / "out", ORIGIN, SETTINGS).mean["psnr"]


@pytest.mark.parametrize(
    ("rule", "right", "last"),
    # over white: 0.4 x 0.2 + 1 x 0.8 where coverage is blended, the background where it is cut, the color where ignored
    [("blend", 0.88, 1.0), ("binary", 1.0, 1.0), ("ignore", 0.4, 0.4)],
)
def test_alpha_is_blended_cut_or_ignored_in_input_and_truth(tmp_path, rule, right, last):
    system, half = Gray(0.4, 0.4), SIZE // 2
    errors = [0.0] * half + [round(right * 255) / 255 - 0.4] * (half - 1) + [last - 0.4]
    mse = np.mean(np.square(errors))
    expected = 100 if mse < 1e-12 else -10 * np.log10(mse)
    assert psnr_of(system, tmp_path, alpha=rule) == pytest.approx(expected, abs=1e-5)
    input_view = system.seen.on(1.0)[0, 0, 0, 0]
    assert input_view[[0, half, -1]].tolist() == pytest.approx([0.4, right, last], abs=1e-6)


def test_outside_the_object_nothing_counts_with_its_mask(tmp_path):
    # the last column of the truth is not covered: what is rendered there counts without the mask alone
    right = round(0.88 * 255) / 255 - 0.4
    inside = np.square([0.0] * (SIZE // 2) + [right] * (SIZE // 2 - 1))
    assert psnr_of(Gray(0.4, 0.4), tmp_path, mask="object") == pytest.approx(
        -10 * np.log10(inside.sum() / SIZE), abs=1e-5
    )


def test_a_mask_needs_alpha(shards, tmp_path):
    with pytest.raises(UserError, match="object a1: its images have no alpha, by which protocol tiny tells the object"):
        run(shards, tmp_path / "out", protocol=replace(PROTOCOL, mask="object"))


def test_what_lies_outside_the_crop_does_not_count(tmp_path):
    system = Gray(0.4, 0.8)  # its first column is wrong
    whole = psnr_of(system, tmp_path, alpha="ignore")
    assert whole == pytest.approx(-10 * np.log10((0.8 - 0.4) ** 2 / SIZE), abs=1e-5)
    protocol = replace(PROTOCOL, alpha="ignore", crop=(2, 1, 12, 15), sha256="cropped")
    results = evaluate_system(system, tmp_path / "half", protocol, tmp_path / "crop", ORIGIN, SETTINGS)
    assert results.mean["psnr"] == 100
    assert "of each image, 12 x 15 pixels from row 2, column 1 on" in (tmp_path / "crop" / "report.md").read_text()


@pytest.mark.parametrize("crop", [(0, 0, 17, 12), (5, 0, 12, 12), (0, 5, 12, 12), (0, 0, 10, 12)])
def test_a_crop_lies_in_the_image_and_holds_a_window(crop):
    with pytest.raises(UserError, match=r"protocol tiny: the crop .* must lie in 16 x 16 pixels and have sides of 11"):
        replace(PROTOCOL, crop=crop)
