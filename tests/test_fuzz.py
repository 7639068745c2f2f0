"""The fuzzer's first five hundred cases, and that it would find what it is there for. `make fuzz` tries twenty
thousand.
"""

import json
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

import fuzz
from fuzz_mutations import RAW, plain, png_is_whole, spoil_json, to_json
from fuzz_subject import Subject, by_rule, spoil_one
from scenes import noise, png
from vcgen.errors import UserError

WHOLE = {"a.json": b'{"a": [1, 2.5, "x"], "b": {"c": true}}'}


@pytest.fixture(scope="module")
def subjects():
    with fuzz.prepared() as made:
        yield made


@pytest.mark.integration
def test_five_hundred_spoiled_files_are_refused_in_one_line_or_mean_something_valid(subjects):
    outcomes = [fuzz.try_case(seed, subjects) for seed in range(500)]
    assert [
        f"{outcome} again: python tests/fuzz.py --case {outcome.seed}"
        for outcome in outcomes
        if outcome.result == fuzz.WRONG
    ] == []
    assert len({outcome.kind for outcome in outcomes}) >= len(subjects) - 2 and {
        fuzz.EQUAL,
        fuzz.VALID,
        fuzz.REFUSED,
    } <= {o.result for o in outcomes}


def test_whole_files_are_valid_by_the_fuzzers_own_rules(subjects):
    never = (
        "checkpoint bytes",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "model.safetensors",
        "weights of LPIPS",
        "nmr cameras.npz",
        "re10k chunk",
        "clevr3d metadata.npz",
    )
    found = {
        subject.name: subject.valid(subject.files)
        for subject in subjects
        if not subject.name.startswith(("srn", "image of"))
    }
    assert [name for name, valid in found.items() if not valid] == [name for name in found if name in never]


def loaded(tmp_path: Path, load) -> fuzz.Outcome:
    """What the fuzzer says of a reader, at a case that spoils the file."""
    subject = Subject(
        "a", WHOLE, lambda random, files: {"a.json": b'{"a": NaN}'}, lambda folder: "whole", by_rule("a.json")
    )
    subject.prepare(tmp_path)
    subject.load = load
    outcome = fuzz.try_case(1, [subject])
    assert (tmp_path / "a" / "a.json").read_bytes() == WHOLE["a.json"]  # restored
    return outcome


def refuse(line: str):
    raise UserError(line)


def busy() -> None:
    while True:
        time.process_time()


def refused_all(work):
    try:
        work()
    except Exception as error:
        raise UserError("damaged") from error


@pytest.mark.parametrize(
    ("load", "result", "words"),
    [
        (lambda folder: refuse("a.json: not JSON; mend it"), fuzz.REFUSED, "not JSON"),
        (lambda folder: "whole", fuzz.EQUAL, ""),
        (lambda folder: json.loads((folder / "a.json").read_bytes()), fuzz.WRONG, "means {'a': nan}"),
        (lambda folder: {}["a"], fuzz.WRONG, "KeyError"),
        (lambda folder: refuse("two\nlines"), fuzz.WRONG, "two"),
        (lambda folder: refuse("\x1b[2J"), fuzz.WRONG, ""),
        (lambda folder: np.float64(1e300) * np.float64(1e300), fuzz.WRONG, "overflow"),
        (lambda folder: print("hello") or refuse("a line"), fuzz.WRONG, "said, too: hello"),
        (lambda folder: np.ones(1 << 29), fuzz.WRONG, "MemoryError"),
        (lambda folder: busy(), fuzz.WRONG, "took more than 0.2 s"),
        (lambda folder: refused_all(busy), fuzz.WRONG, "took more than 0.2 s"),
        (lambda folder: refused_all(lambda: np.ones(1 << 29)), fuzz.WRONG, "damaged"),
    ],
)
def test_the_fuzzer_finds_readers_that_are_wrong(tmp_path, monkeypatch, load, result, words):
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 0.2)
    outcome = loaded(tmp_path, load)
    assert outcome.result == result and words in outcome.line


def test_what_is_tried_depends_on_the_seed_alone():
    spoil = spoil_one("a.json")
    once, again = ([spoil(Random(seed), WHOLE)["a.json"] for seed in range(200)] for _ in range(2))
    assert once == again and len(set(once)) > 150


def test_spoiled_documents_hold_what_python_cannot_write():
    assert (
        to_json({"a": RAW + "NaN", "b" + RAW: 1, "b": [RAW + "9" * 5000]})
        == b'{"a": NaN, "b": 1, "b": [' + b"9" * 5000 + b"]}"
    )
    texts = b"".join(spoil_json(Random(seed), WHOLE["a.json"]) for seed in range(2000))
    assert all(
        word in texts
        for word in (
            b"NaN",
            b"Infinity",
            b"1e999",
            b"[[[[[[[[",
            b"\\ud800",
            b"\\u001b",
            b"../../../etc/passwd",
            b"9" * 5000,
        )
    )
    for wrong in (b'{"a": NaN}', b"[", b"\xff"):
        with pytest.raises(ValueError):
            plain(wrong)


def test_a_png_file_is_whole_when_all_its_checksums_are_right():
    data = png(noise(0))
    assert png_is_whole(data) and not png_is_whole(data[:-1]) and not png_is_whole(data + b"0")
    assert not any(
        png_is_whole(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) for place in range(len(data))
    )
