"""The whole evaluation on tiny scenes with systems whose score is known beforehand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from small_evaluation import PROTOCOL, SETTINGS, SIZE, VIEWS, Oracle, gray_shards, level, numbers, record, run
from vcgen.data.shards.files import write_shards
from vcgen.errors import UserError
from vcgen.evaluation.baselines import CopyInput, MeanImage
from vcgen.evaluation.records import ImageScore, ObjectScore
from vcgen.evaluation.results import collect, load_results
from vcgen.evaluation.runner import Origin, evaluate_system
from vcgen.metrics.base import Column, Metric
from vcgen.types import Rendering


@pytest.fixture
def shards(tmp_path):
    return gray_shards(tmp_path / "shards")


def test_offset_of_a_fifth_scores_exactly_its_closed_form(shards, tmp_path):
    results, _ = run(shards, tmp_path / "out")
    assert results.mean["psnr"] == pytest.approx(-20 * np.log10(0.2), abs=1e-6)
    assert results.interval95["psnr"] == pytest.approx((results.mean["psnr"],) * 2, abs=1e-6)
    assert results.counts == {"objects": 4, "groups": 3, "images": 20, "psnr_capped": 0}


class Backdrop(Oracle):
    """Shows nothing but the background, which it takes for a fifth brighter than opaque images are."""

    def behind(self, truth, background=1.0):
        assert truth.alpha is None
        return truth.images + 0.2

    def render(self, field, cameras, size, background=1.0):
        return Rendering(background, *2 * [torch.zeros_like(background[:, :, :1])])


def test_what_a_model_has_learned_to_be_behind_opaque_images_is_scored(shards, tmp_path):
    results = evaluate_system(Backdrop(0), shards, PROTOCOL, tmp_path / "out", Origin("backdrop", {}), SETTINGS)
    assert results.mean["psnr"] == pytest.approx(-20 * np.log10(0.2), abs=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_scoring_what_was_trained_on_is_warned_of(tmp_path, capsys, split):
    run(gray_shards(tmp_path / "shards", split), tmp_path / "out")
    assert ("is of split train: what a model was trained on" in capsys.readouterr().err) == (split == "train")


def test_ssim_of_uniform_images_is_its_luminance_term(shards, tmp_path):
    results, _ = run(shards, tmp_path / "out")
    image = next(i for i in results.images if i["object"] == "b1" and i["view"] == 3)
    truth, prediction = level("b1", 3) / 255, (level("b1", 3) + 51) / 255
    assert image["ssim"] == pytest.approx((2 * truth * prediction + 1e-4) / (truth**2 + prediction**2 + 1e-4), abs=1e-6)


def test_perfect_predictions_are_capped_and_counted(shards, tmp_path):
    results, _ = run(shards, tmp_path / "out", offset=0)
    assert results.mean["psnr"] == 100 and results.counts["psnr_capped"] == 20


def test_every_view_but_the_input_is_scored_once_sorted_by_object_and_view(shards, tmp_path):
    results, _ = run(shards, tmp_path / "out")
    assert [(i["object"], i["view"]) for i in results.images] == [
        (key, v) for key in ("a1", "a2", "b1", "c1") for v in range(1, VIEWS)
    ]


def test_stored_results_equal_the_returned_ones_and_say_what_they_mean(shards, tmp_path):
    results, _ = run(shards, tmp_path / "out")
    stored = load_results(tmp_path / "out")
    assert (stored.mean, stored.images, stored.hashes) == (results.mean, results.images, results.hashes)
    assert set(stored.metrics) <= set(stored.definitions)
    assert {"weights", "protocol", "data"} <= set(stored.hashes)
    assert {"vcgen", "torch", "lpips"} <= set(stored.versions) and {"command", "seconds", "processor"} <= set(
        stored.run
    )


def test_two_runs_give_identical_numbers(shards, tmp_path):
    assert numbers(run(shards, tmp_path / "once", offset=7)[0]) == numbers(run(shards, tmp_path / "again", offset=7)[0])


def results_file(folder) -> dict:
    """results.json without the facts of the run: command, times, hardware."""
    content = json.loads((folder / "results.json").read_bytes())
    assert set(content.pop("run")) >= {"command", "finished", "seconds"}
    return content


def test_merged_shards_give_the_report_of_one_process(shards, tmp_path):
    run(shards, tmp_path / "whole", offset=7)
    for number in (2, 0, 1):
        assert run(shards, tmp_path / "shared", offset=7, settings=replace(SETTINGS, shard=(number, 3)))[0] is None
        # each writes its records only
        assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["records", "shards.json"]
    _, merger = run(shards, tmp_path / "shared", offset=7, settings=replace(SETTINGS, merge=True))
    assert len(merger.rendered) == 3 * 3  # the report's images, nothing else
    assert results_file(tmp_path / "shared") == results_file(tmp_path / "whole")
    pages = [(tmp_path / name / "report.html").read_text().split("Provenance")[0] for name in ("shared", "whole")]
    assert pages[0] == pages[1]


def test_a_merge_with_missing_objects_names_the_shards_to_run_again(shards, tmp_path):
    merge = replace(SETTINGS, merge=True)
    with pytest.raises(
        UserError,
        match=r"4 of 4 objects are not scored yet \(a1, a2, b1, ...\); run the evaluation, whole or with --shard",
    ):
        run(shards, tmp_path / "out", settings=merge)
    run(shards, tmp_path / "out", settings=replace(SETTINGS, shard=(1, 3)))
    with pytest.raises(
        UserError, match=r"3 of 4 objects are not scored yet .a1, b1, c1.; run --shard 0/3 and 2/3, then --merge"
    ):
        run(shards, tmp_path / "out", settings=merge)
    run(shards, tmp_path / "out", settings=replace(SETTINGS, shard=(0, 3)))
    with pytest.raises(UserError, match=r"1 of 4 objects are not scored yet .b1.; run --shard 2/3, then --merge"):
        run(shards, tmp_path / "out", settings=merge)
    _, last = run(shards, tmp_path / "out", settings=replace(SETTINGS, shard=(2, 3)))
    assert len(last.rendered) == 5  # b1 alone
    assert run(shards, tmp_path / "out", settings=merge)[0].counts["objects"] == 4


def test_views_per_call_does_not_change_the_numbers(shards, tmp_path):
    one, _ = run(shards, tmp_path / "one", settings=replace(SETTINGS, views_per_call=1))
    many, _ = run(shards, tmp_path / "many", settings=replace(SETTINGS, views_per_call=99))
    assert numbers(one) == numbers(many)


def test_what_macos_leaves_among_the_records_is_not_read(shards, tmp_path):
    first, _ = run(shards, tmp_path / "out")
    (tmp_path / "out" / "records" / "._b1.json").write_bytes(b"\0\5\x16\7")
    assert numbers(run(shards, tmp_path / "out")[0]) == numbers(first)


def test_resuming_renders_only_what_is_missing(shards, tmp_path):
    whole, complete = run(shards, tmp_path / "out")
    (tmp_path / "out" / "records" / "b1.json").unlink()
    resumed, rest = run(shards, tmp_path / "out")
    report_views = 3 * 3  # best, median and worst object, three views each
    assert len(complete.rendered) == 20 + report_views and len(rest.rendered) == 5 + report_views
    assert numbers(resumed) == numbers(whole)


@pytest.mark.parametrize("change", ["protocol", "model"])
def test_results_of_another_protocol_or_model_are_refused_unless_overwritten(shards, tmp_path, change):
    run(shards, tmp_path / "out")
    other = {"protocol": replace(PROTOCOL, sha256="other")} if change == "protocol" else {"offset": 30}
    with pytest.raises(UserError, match=f"another evaluation .other {change}.*--overwrite"):
        run(shards, tmp_path / "out", **other)
    results, _ = run(shards, tmp_path / "out", settings=replace(SETTINGS, overwrite=True), **other)
    assert numbers(load_results(tmp_path / "out"))[0] == numbers(results)[0]


class Brightness(Metric):
    """A metric with weights: those of a file."""

    name, column = "brightness", Column("brightness", "mean", higher_is_better=True, low=0.0, high=9.0)

    def __init__(self, weight: float):
        self.weight, self.sha256 = weight, f"hash of {weight}"

    def __call__(self, prediction, truth):
        return self.weight * prediction.mean((1, 2, 3))


def test_results_of_other_weights_of_a_metric_are_refused(shards, tmp_path):
    """They would be taken for those of the new ones, whose hash the results name."""
    first, second = (replace(SETTINGS, further=(Brightness(weight),)) for weight in (1.0, 2.0))
    found, _ = run(shards, tmp_path / "out", settings=first)
    with pytest.raises(UserError, match=r"results of another evaluation \(other weights\)"):
        run(shards, tmp_path / "out", settings=second)
    twice, _ = run(shards, tmp_path / "out", settings=replace(second, overwrite=True))
    assert twice.mean["brightness"] == pytest.approx(2 * found.mean["brightness"])


def test_shards_of_another_size_are_refused_before_any_rendering(shards, tmp_path):
    with pytest.raises(UserError, match=r"16 x 16.*wants 32 x 32"):
        run(shards, tmp_path / "out", protocol=replace(PROTOCOL, size=(32, 32)))
    assert not (tmp_path / "out").exists()


def test_view_out_of_range_names_the_object(shards, tmp_path):
    with pytest.raises(UserError, match=r"object c1: .*view 6"):
        run(shards, tmp_path / "out", protocol=replace(PROTOCOL, targets=(1, 6)))


def test_images_painted_on_white_are_not_scored_on_black(shards, tmp_path):
    with pytest.raises(UserError, match="lie on white"):
        run(shards, tmp_path / "out", protocol=replace(PROTOCOL, background=0.0))


def test_rendering_with_nan_names_object_and_view(shards, tmp_path):
    with pytest.raises(UserError, match=r"object a1, view 1: .*NaN"):
        run(shards, tmp_path / "out", offset=float("nan"))


def test_copying_the_input_scores_the_difference_to_view_zero(shards, tmp_path):
    system = CopyInput()
    results = evaluate_system(system, shards, PROTOCOL, tmp_path / "out", Origin(system.name, system.hashes), SETTINGS)
    expected = np.mean([-20 * np.log10(20 * v / 255) for v in range(1, VIEWS)])
    assert results.mean["psnr"] == pytest.approx(expected, abs=1e-6)


def test_mean_image_is_the_mean_over_views_composited_on_the_background(tmp_path):
    images = np.zeros((2, SIZE, SIZE, 4), np.uint8)
    images[0, ..., :3], images[0, ..., 3] = 200, 255  # opaque, level 200
    images[1, ..., 0], images[1, ..., 3] = 255, 51  # red at coverage 0.2
    write_shards([record("a1", images)], tmp_path / "shards", (SIZE, SIZE))
    image = MeanImage.of(tmp_path / "shards", PROTOCOL).image
    assert image[:, 3, 5].tolist() == pytest.approx(
        [(200 / 255 + 1) / 2, (200 / 255 + 0.8) / 2, (200 / 255 + 0.8) / 2], abs=1e-6
    )
    on_black = MeanImage.of(tmp_path / "shards", replace(PROTOCOL, background=0.0)).image
    assert on_black[:, 3, 5].tolist() == pytest.approx([(200 / 255 + 0.2) / 2, 100 / 255, 100 / 255], abs=1e-6)
    cut = MeanImage.of(tmp_path / "shards", replace(PROTOCOL, alpha="binary")).image
    assert cut[:, 3, 5].tolist() == pytest.approx([(200 / 255 + 1) / 2] * 3, abs=1e-6)


def test_the_mean_image_is_of_the_protocols_size_and_background(shards):
    with pytest.raises(UserError, match="shards: images are 16 x 16, protocol tiny wants 32 x 32"):
        MeanImage.of(shards, replace(PROTOCOL, size=(32, 32)))
    with pytest.raises(UserError, match="its images lie on white, protocol tiny scores on gray level 0"):
        MeanImage.of(shards, replace(PROTOCOL, background=0.0))


def test_comparison_is_paired_by_object(shards, tmp_path):
    worse, _ = run(shards, tmp_path / "worse", offset=51, name="worse")
    better, _ = run(shards, tmp_path / "better", offset=25, name="better", others=[worse])
    difference = better.baselines["worse"]["difference"]["psnr"]
    assert difference["mean"] == pytest.approx(20 * np.log10(51 / 25), abs=1e-6)
    assert difference["improved"] == 1.0
    with pytest.raises(UserError, match="used another protocol"):
        run(shards, tmp_path / "third", protocol=replace(PROTOCOL, sha256="other"), others=[worse])


def test_missing_lpips_weights_leave_the_other_metrics_and_a_reason(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    results, _ = run(shards, tmp_path / "out", settings=replace(SETTINGS, lpips=("vgg",), offline=True))
    assert results.metrics == ["psnr", "ssim", "ssim_gauss"]
    assert "vgg16-397923af.pth" in results.missing["lpips_vgg"] and "vgg16-397923af.pth" in capsys.readouterr().err
    assert "lpips_vgg is missing" in (tmp_path / "out" / "report.html").read_text()


def test_report_is_self_contained_and_shows_the_table_and_its_definitions(shards, tmp_path):
    results, _ = run(shards, tmp_path / "out", name="<model>")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 * 3 * 5
    assert not any(word in page for word in ("<script", "http://", "https://", "<model>"))
    text = (tmp_path / "out" / "report.md").read_text()
    for content in (page, text):
        assert "13.98 [13.98, 13.98]" in content
        assert all(name in content for name in results.definitions)


def test_mean_over_objects_weights_objects_alike_whatever_their_view_counts():
    scores = [
        ObjectScore("b", "b", 1.0, (ImageScore(1, "x", {"psnr": 10.0}),)),
        ObjectScore("a", "a", 1.0, tuple(ImageScore(v, "y", {"psnr": 20.0}) for v in range(9))),
    ]
    assert collect("m", scores, PROTOCOL, versions={}, hashes={}, run={}).mean["psnr"] == 15.0
