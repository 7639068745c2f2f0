"""Files of an evaluation that somebody changed: what no evaluation can have written is refused in one line that names
the file.
"""

import json

import pytest

from scenes import set_at
from small_evaluation import PROTOCOL, gray_shards, run
from vcgen.errors import UserError
from vcgen.evaluation.records import Fingerprint, ImageScore, ObjectScore, RecordFolder
from vcgen.evaluation.results import RESULTS, collect, load_results

FINGERPRINT = Fingerprint("m", "p", "d", ("psnr", "lpips_vgg"))
SCORES = [
    ObjectScore(
        key, key[0], 1.0, tuple(ImageScore(v, f"{v}", {"psnr": 20.0 + v, "lpips_vgg": 0.1 * v}) for v in (1, 2))
    )
    for key in ("a1", "a2", "b1")
]


def test_a_record_comes_back_as_it_was_written(tmp_path):
    RecordFolder(tmp_path, FINGERPRINT).write(SCORES[0])
    assert (
        RecordFolder(tmp_path, FINGERPRINT).read("a1") == SCORES[0]
        and RecordFolder(tmp_path, FINGERPRINT).read("b1") is None
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("object", "a2"),
        ("object", "../a1"),
        ("object", ["a1"]),
        ("seconds", -1),
        ("seconds", "1"),
        ("group", "a\x1b[2J"),
        ("images", []),
        ("images.0.view", 2),
        ("images.0.view", True),
        ("images.0.view", 1e308),
        ("images.0.metrics.psnr", 101),
        ("images.0.metrics.psnr", "20"),
        ("images.0.metrics.psnr", ...),
        ("images.0.metrics.lpips_vgg", -0.1),
        ("images.0.metrics.fid", 1.0),
        ("images.0", 7),
        ("extra", 1),
        ("fingerprint.metrics", ["psnr"]),
        ("fingerprint", ...),
    ],
)
def test_a_record_that_no_evaluation_writes_is_refused(tmp_path, path, value):
    records = RecordFolder(tmp_path, FINGERPRINT)
    records.write(SCORES[0])
    content = json.loads((tmp_path / "a1.json").read_text())
    set_at(content, path, value)
    (tmp_path / "a1.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a1\.json: .* run again") as error:
        records.read("a1")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("path", ["images.0", "group"])
def test_records_of_other_views_or_groups_than_the_data_has_are_not_averaged(tmp_path, path):
    shards = gray_shards(tmp_path / "shards")
    run(shards, tmp_path / "out")
    record = tmp_path / "out" / "records" / "b1.json"
    content = json.loads(record.read_text())
    set_at(content, path, ... if path == "images.0" else "another")
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"b1\.json: is of other views"):
        run(shards, tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mean.psnr", 22.0),
        ("mean.psnr", "21.5"),
        ("mean", []),
        ("mean.lpips_vgg", ...),
        ("mean.ssim", 0.5),
        ("interval95.psnr", [3, 1]),
        ("interval95.psnr", [1]),
        ("interval95.psnr", ...),
        ("counts.images", 7),
        ("counts.images", -1),
        ("hashes.data", ...),
        ("hashes.data", 3),
        ("objects.1.psnr", 30.0),
        ("objects.0", ...),
        ("objects.0.object", {}),
        ("images.0", ...),
        ("images.0.psnr", 30.0),
        ("images.0.view", 5),
        ("images.0.group", "b"),
        ("images.0.psnr", None),
        ("images.0.psnr", ...),
        ("images", []),
        ("images", {}),
        ("name", ["m"]),
        ("name", "a\nb"),
        ("nome", "m"),
        ("images.1.object", "b1"),
    ],
)
def test_results_whose_parts_contradict_one_another_are_refused(tmp_path, path, value):
    results = collect("m", SCORES, PROTOCOL, versions={}, hashes={"protocol": "p", "data": "d"}, run={})
    results.save(tmp_path)
    assert load_results(tmp_path).images == results.images
    content = json.loads((tmp_path / RESULTS).read_text())
    set_at(content, path, value)
    (tmp_path / RESULTS).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"results\.json.*evaluate again"):
        load_results(tmp_path)


@pytest.mark.parametrize("rows", [slice(0, 2), slice(None)])
def test_results_without_psnr_are_refused(tmp_path, rows):
    collect("m", SCORES, PROTOCOL, versions={}, hashes={"protocol": "p", "data": "d"}, run={}).save(tmp_path)
    content = json.loads((tmp_path / RESULTS).read_text())
    for row in content["images"][rows]:
        del row["psnr"]
    (tmp_path / RESULTS).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"results\.json: holds .* have no psnr; .*evaluate again"):
        load_results(tmp_path)
