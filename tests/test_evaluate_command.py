"""The command `vcgen evaluate`, its options and shards, and objects that cannot be read."""

import json
import math
from dataclasses import replace

import pytest
import torch
from msgspec import structs

from small_evaluation import METRICS, PROTOCOL, SETTINGS, SIZE, Oracle, gray_shards, numbers, run
from vcgen.cli import evaluate as command
from vcgen.data.shards.files import INDEX, read_index
from vcgen.errors import UserError
from vcgen.evaluation.protocol import SUPPORTED_METRICS, SUPPORTED_QUANTISATION
from vcgen.evaluation.records import Fingerprint, RecordFolder
from vcgen.evaluation.results import compare, load_results, told_apart
from vcgen.evaluation.sharing import merged, parse_shard
from vcgen.io import file_sha256


@pytest.fixture
def shards(tmp_path):
    return gray_shards(tmp_path / "shards")


def test_command_scores_a_model_folder_with_baselines(shards, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    monkeypatch.setattr("vcgen.checkpoints.model_folder.load", lambda folder, device, plugins: Oracle(51))
    entries = {
        "version": 2,
        "name": "file",
        "context": [0],
        "targets": "all others",
        "size": [SIZE, SIZE],
        "background": 1.0,
    }
    entries |= {"quantisation": SUPPORTED_QUANTISATION, "metrics": SUPPORTED_METRICS}
    (tmp_path / "protocol.json").write_text(json.dumps(entries))
    places = {
        "model": model,
        "data": shards,
        "train": shards,
        "protocol": tmp_path / "protocol.json",
        "out": tmp_path / "out",
    }
    arguments = [word for name, path in places.items() for word in (f"--{name}", str(path))]
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    missing = "--metrics", "fid_inception", "--offline", "true"
    command.main([*arguments, "--lpips", "none", "--device", "cpu", "--views-per-call", "3", "--baselines", *missing])
    results, said = load_results(tmp_path / "out"), capsys.readouterr()
    assert set(results.baselines) == {"copy the input view", "mean training image"}
    assert "13.98" in said.out and list(results.missing) == ["fid_inception"]
    assert said.err.count("going on without it") == 1, "of three evaluations one says what is missing"

    # most models lie in a folder called "model"
    for name, offset in (("bright", 77), ("brighter", 102)):
        monkeypatch.setattr("vcgen.checkpoints.model_folder.load", lambda *_, offset=offset: Oracle(offset))
        others = ("--compare", str(tmp_path / "out"), str(tmp_path / "bright")) if name == "brighter" else ()
        arguments[-1] = str(tmp_path / name)
        command.main([*arguments[:4], *arguments[6:], "--lpips", "none", "--device", "cpu", *others])
    found = load_results(tmp_path / "brighter").baselines
    shown = {name: other["difference"]["psnr"]["mean"] for name, other in found.items()}
    assert shown == {
        f"model ({tmp_path / folder})": pytest.approx(-20 * math.log10(102 / offset), abs=1e-6)
        for folder, offset in (("out", 51), ("bright", 77))
    }


def test_rows_that_would_hide_one_another_are_refused(shards, tmp_path):
    results, _ = run(shards, tmp_path / "out")
    with pytest.raises(UserError, match="two of the results to compare with are named"):
        compare(results, [results, results])
    (alone,) = told_apart({"a": results}, ["another"])
    assert alone.name == results.name


def test_objects_left_out_do_not_shift_the_shards_to_run_again(shards, tmp_path):
    run(shards, tmp_path / "out", settings=replace(SETTINGS, shard=(0, 3)))
    records = RecordFolder(
        tmp_path / "out" / "records", Fingerprint("offset 51", PROTOCOL.sha256, file_sha256(shards / INDEX), METRICS)
    )
    with pytest.raises(UserError, match=r"1 of 3 objects are not scored yet .b1.; run --shard 2/3, then --merge"):
        merged(tmp_path / "out", records, ["a1", "b1", "c1"], dealt=["a1", "a2", "b1", "c1"])  # a2 is left out


@pytest.mark.parametrize("text", ["1", "2/2", "-1/3", "a/b", "/2"])
def test_shards_that_do_not_exist_are_refused(text):
    with pytest.raises(UserError, match="--shard"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--merge", "--shard", "0/2"], "give it without --shard"),
        (["--shard", "0/2", "--baselines"], "give it with --merge"),
        (["--shard", "0/2", "--overwrite"], "--overwrite cannot be given"),
        (["--merge", "--overwrite"], "--overwrite cannot be given"),
    ],
)
def test_options_that_contradict_one_another_are_refused(options, line):
    with pytest.raises(UserError, match=line):
        command.main(["--model", "a", "--data", "b", "--protocol", "c", "--out", "d", *options])


def spoil(shards, number: int) -> str:
    """Break the first image of a scene; returns its key."""
    index = read_index(shards)
    name, sample = index.samples[number]
    data = bytearray((shards / name).read_bytes())
    start = data.index(b"IDAT", sample.offset)
    data[start : start + 12] = bytes(12)
    (shards / name).write_bytes(data)
    return sample.key


def test_an_unreadable_object_stops_the_evaluation_or_is_left_out_by_name(shards, tmp_path):
    whole, _ = run(shards, tmp_path / "whole", offset=7)
    bad = spoil(shards, 2)
    with pytest.raises(UserError, match=f"scene {bad}, view 000000"):
        run(shards, tmp_path / "stop", offset=7)
    skip = replace(SETTINGS, on_error="skip")
    results, _ = run(shards, tmp_path / "skip", offset=7, settings=skip)
    assert (
        results.objects == [entry for entry in whole.objects if entry["object"] != bad]
        and results.counts["objects"] == 3
    )
    assert load_results(tmp_path / "skip").skipped.keys() == {bad}
    for report in ("report.md", "report.html"):
        assert f"cannot be read: 1 objects, {bad}." in (tmp_path / "skip" / report).read_text()
    with pytest.raises(UserError, match="scored other objects"):
        run(shards, tmp_path / "skip", offset=7, settings=skip, others=[whole])
    for shard in ((0, 2), (1, 2)):
        run(shards, tmp_path / "shared", offset=7, settings=replace(skip, shard=shard))
    merged, _ = run(shards, tmp_path / "shared", offset=7, settings=replace(skip, merge=True))
    assert numbers(merged) == numbers(results) and merged.skipped == results.skipped


def test_too_many_unreadable_objects_are_refused(shards, tmp_path):
    spoil(shards, 0)
    spoil(shards, 2)
    with pytest.raises(UserError, match="2 of 4 scenes cannot be read"):
        run(shards, tmp_path / "out", settings=replace(SETTINGS, on_error="skip"))


@pytest.mark.parametrize("columns", [3, 6])
def test_the_table_is_readable_at_80_columns(shards, tmp_path, monkeypatch, capsys, columns):
    """No name is broken inside a word, and no number at all."""
    monkeypatch.setenv("COLUMNS", "80")
    results, _ = run(shards, tmp_path / "out", name="cars64_prior, distilled")
    names = ["psnr", "ssim", "ssim_gauss", "lpips_vgg", "lpips_squeeze", "lpips_alex"][:columns]
    mean, interval = dict.fromkeys(names, 0.8123), dict.fromkeys(names, (0.7881, 0.8345))
    others = {"copy the input view": {"mean": mean, "interval95": interval, "difference": {}}}
    command._announce(structs.replace(results, mean=mean, interval95=interval, baselines=others), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    words = " ".join(lines).split()
    assert {"method", "cars64_prior,", "distilled", "copy", "input"} <= set(words)
    numbers = [word.strip("[],") for word in words if word.strip("[],")[:1].isdigit()]
    printed = [f"{value:.{2 if name == 'psnr' else 3}f}" for name in names for value in (0.8123, 0.7881, 0.8345)] * 2
    assert sorted(number for number in numbers if "." in number) == sorted(printed)
