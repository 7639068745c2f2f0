"""Checkpoints are read by one reader, for export and for going on: what is damaged, padded or a trap is refused by
both.
"""

import io
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from stand_in import BallSystem
from training import equal
from vcgen.archives import damaged_part
from vcgen.checkpoints import model_folder as folder
from vcgen.checkpoints.files import FORMAT, CheckpointFiles
from vcgen.checkpoints.reader import read_checkpoint, rename_weights
from vcgen.cli.export import export_checkpoint
from vcgen.errors import UserError

ENTRY = {
    "class_path": "stand_in.BallSystem",
    "init_args": {"density": 50.0},
    "image_size": [16, 16],
    "version": "0.1.0",
    "camera": {"focal": 1.0254, "distance": 1.3, "elevation": 20.0, "near": 0.8, "far": 1.8},
}


def content(prefix: str = "") -> dict:
    """What training writes of a BallSystem. prefix: before the names of its weights."""
    weights = {prefix + name: value.clone() + 0.1 for name, value in BallSystem(density=50.0).state_dict().items()}
    averages = {name: value + 0.1 for name, value in weights.items() if not name.endswith("steps")}
    return {
        "format": FORMAT,
        "state_dict": weights,
        "vcgen": ENTRY,
        "callbacks": {"EMA": {"weights": averages, "updates": 1}},
        "global_step": 3,
    }


@pytest.fixture
def path(tmp_path) -> Path:
    torch.save(content(), tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def refusals(path: Path) -> list[str]:
    """How export and going on refuse a file."""
    lines = []
    for read in (
        lambda: export_checkpoint(path, path.parent / "model"),
        lambda: CheckpointFiles(BallSystem(), ENTRY).load_checkpoint(path),
    ):
        with pytest.raises(UserError) as error:
            read()
        lines.append(str(error.value))
    assert not (path.parent / "model").exists() and not any("\n" in line for line in lines)
    return lines


def parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def pack(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as file:
        for name, value in entries:
            file.writestr(name, value)
    return data.getvalue()


def test_a_whole_file_is_read_and_exported(path):
    assert damaged_part(path) == "" and equal(read_checkpoint(path), content())
    assert folder.load(export_checkpoint(path, path.parent / "model")).size.item() == pytest.approx(0.5)


def test_a_flipped_bit_is_refused_or_changes_nothing(path):
    """At 400 places: in weights, names, checksums and the archive's tables. Padding and dates mean nothing."""
    whole, place = path.read_bytes(), random.Random(0)
    outcomes = {"refused": 0, "same": 0}
    for _ in range(400):
        data = bytearray(whole)
        data[place.randrange(len(data))] ^= 1 << place.randrange(8)
        path.write_bytes(data)
        try:
            found = read_checkpoint(path)
        except UserError as error:
            assert "damaged or not a checkpoint" in str(error) and "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            assert equal(found, content())
            outcomes["same"] += 1
    assert outcomes["refused"] > 100


def test_a_flipped_bit_in_a_weight_is_refused_by_both(path):
    data = bytearray(path.read_bytes())
    offset = data.index(struct.pack("<f", 0.3 + 0.1))  # "size"
    data[offset] ^= 1
    path.write_bytes(data)
    # torch does not notice
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["size"], content()["state_dict"]["size"])
    assert all("is damaged" in line for line in refusals(path))


def traps(path: Path) -> dict[str, tuple[bytes, str]]:
    whole, entries = path.read_bytes(), list(parts(path).items())
    name = next(name for name, _ in entries if name.endswith("data/0"))
    end = whole.rindex(b"PK\x05\x06")
    return {
        "after": (whole + b"x", "before or after"),
        "before": (b"#!/bin/sh\n" + whole, "before or after"),
        "comment": (whole[:-2] + b"\x04\x00evil", "before or after"),
        "two archives": (whole + pack(entries), "before or after"),
        "compressed": (pack(entries, zipfile.ZIP_DEFLATED), "compressed"),
        "twice": (pack([*entries, (name, b"\0" * 4)]), "one name"),
        "bomb": (pack([*entries, ("last/data/9", b"\0" * (1 << 24))], zipfile.ZIP_DEFLATED), "compressed"),
        "other folder": (pack([*entries, ("evil/data.pkl", b"N.")]), "several archives"),
        "no pickle": (pack(entries[1:]), "no data.pkl"),
        "empty": (pack([]), "before or after"),
        "no table": (whole[:end], ""),
        "nothing": (b"", ""),
        "text": (b"hello", ""),
    }


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_training_does_not_write_is_refused_by_both(path):
    for name, (data, reason) in traps(path).items():
        path.write_bytes(data)
        for line in refusals(path):
            assert "damaged or not a checkpoint" in line and reason in line, name


def test_parts_that_share_bytes_are_refused(path):
    data = bytearray(pack([("a/data.pkl", b"\x80\x02N."), ("a/data/0", b"\0" * 100), ("a/data/1", b"\0" * 100)]))
    table, first = data.index(b"PK\x01\x02"), data.index(b"a/data/0") - 30
    last = data.rindex(b"PK\x01\x02", table)
    data[last + 42 : last + 46] = struct.pack("<I", first)  # the last part lies where the one before it does
    path.write_bytes(data)
    assert all("overlaps" in line for line in refusals(path))


def pickled(path: Path, code: bytes) -> None:
    """Replace the pickle of a checkpoint, all checksums right."""
    path.write_bytes(
        pack([(name, code if name.endswith("data.pkl") else value) for name, value in parts(path).items()])
    )


def test_names_that_take_memory_or_run_are_refused_unread(path):
    huge = (  # bytearray(2 ** 44), which torch's reader makes
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x10\x85R."
    )
    for code, name in (
        (huge, "builtins.bytearray"),
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", "os.system"),
        (b"\x80\x02ctorch.storage\nUntypedStorage\n.", "torch.storage.UntypedStorage"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
    ):
        pickled(path, code)
        assert all(name in line for line in refusals(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state_dict": [1]}, "damaged or not"),
        ({"state_dict": {"size": 1}}, "other things than weights"),
        ({"vcgen": [1]}, "no table"),
        ({"callbacks": [1]}, "no table"),
        ({"vcgen": {**ENTRY, "init_args": [1]}}, None),
        ({"vcgen": {**ENTRY, "image_size": [16, 1e9]}}, None),
        ({"vcgen": {**ENTRY, "version": "\x1b[2J"}}, None),
        ({"callbacks": {"EMA": [1]}}, None),
        ({"callbacks": {"EMA": {"weights": {"size": 1}}}}, None),
        ({"global_step": "3"}, None),
        ({"vcgen": {**ENTRY, "camera": {"focal": float("nan")}}}, None),
    ],
)
def test_parts_of_another_kind_are_one_line(path, changes, words):
    torch.save({**content(), **changes}, path)
    with pytest.raises(UserError, match=words) as error:
        export_checkpoint(path, path.parent / "model")
    assert str(error.value).isprintable()


def test_a_table_that_holds_itself_ends(path):
    endless = [0]
    for _ in range(40):
        endless = [endless] * 10
    for value in (endless, (cycle := {}) or cycle):
        cycle["again"] = cycle
        torch.save({**content(), "vcgen": {**ENTRY, "init_args": {"density": value}}}, path)
        assert all("damaged or not a checkpoint" in line or "none of vcgen's" in line for line in refusals(path)[:1])


def test_tensors_that_take_more_room_than_the_file_has_are_refused_by_both(path):
    shared = torch.zeros(1 << 16)
    for moments in (torch.zeros(1).expand(1 << 40), [shared] * 1000):
        torch.save({**content(), "optimizer_states": [{"state": {0: {"exp_avg": moments}}}]}, path)
        assert all("its tensors are larger than the file" in line for line in refusals(path))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model._orig_mod."])
def test_a_compiled_module_is_exported_and_goes_on(path, prefix):
    """torch.compile of the whole system, or of a part: the names of weights then are longer."""

    class Part(BallSystem):
        def state_dict(self, *args, **kwargs):
            return {
                prefix.replace("_orig_mod.", "") + name: value
                for name, value in super().state_dict(*args, **kwargs).items()
            }

    torch.save(content(prefix), path)
    if prefix == "_orig_mod.":
        assert folder.load(export_checkpoint(path, path.parent / "model")).size.item() == pytest.approx(0.5)
    found = CheckpointFiles(Part(), ENTRY).load_checkpoint(path)
    assert set(found["state_dict"]) == set(Part().state_dict())
    assert set(found["callbacks"]["EMA"]["weights"]) == set(Part().state_dict()) - {
        prefix.replace("_orig_mod.", "") + "steps"
    }


def test_a_compiled_run_goes_on_from_a_plain_one():
    checkpoint = content()
    rename_weights(checkpoint, [f"_orig_mod.{name}" for name in checkpoint["state_dict"]])
    assert set(checkpoint["state_dict"]) == {"_orig_mod.size", "_orig_mod.tint", "_orig_mod.steps"}
    with pytest.raises(UserError, match="compiled module and the same ones"):
        rename_weights({"state_dict": {"_orig_mod.size": 1, "size": 2}}, ["size"])
