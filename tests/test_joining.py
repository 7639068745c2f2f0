"""Several shard folders in one data module: every scene once, objects held out of each, no folder that does not fit."""

from pathlib import Path

import pytest

from scenes import make_record, noise, png
from vcgen.data.datamodules.shards import ShardData
from vcgen.data.shards.files import read_index, write_shards
from vcgen.data.shards.joining import joined
from vcgen.errors import UserError


def folder(place: Path, name: str, count: int = 4, size: tuple[int, int] = (8, 8), split: str = "train") -> Path:
    image = png(noise(0, *size))
    records = [make_record(f"{name}{i}", 4, images=[image] * 4, size=size, split=split) for i in range(count)]
    write_shards(records, place / name, size, samples_per_shard=2, source=name, split=split, licence="CC0-1.0")
    return place / name


@pytest.fixture
def folders(tmp_path):
    return [folder(tmp_path, "beds"), folder(tmp_path / "deep", "cups", 6)]


def test_scenes_of_all_folders_are_read_as_from_their_own(folders):
    parts = [read_index(path) for path in folders]
    whole = joined(parts)
    assert [e.key for _, e in whole.samples] == [e.key for part in parts for _, e in part.samples]
    assert (whole.source, whole.licence, whole.split) == ("beds + cups", "CC0-1.0", "train")
    assert all(whole.read(4 + number).images == parts[1].read(number).images for number in range(6))
    whole.verify_checksums()
    assert joined(parts[:1]) is parts[0]


def test_objects_are_held_out_of_each_folder_and_the_rest_comes_once_an_epoch(folders, tmp_path):
    (tmp_path / "beds.json").write_text('[["beds0", "beds1", "beds2"]]')
    (tmp_path / "cups.json").write_text('[["cups0", "cups1"]]')
    families = [tmp_path / "beds.json", tmp_path / "cups.json"]
    data = ShardData([str(path) for path in folders], hold_out=1, families=families, batch_size=2, targets=2)
    data.setup("fit")
    held = {entry.key for _, entry in data.val_index.samples}
    assert {key[:4] for key in held} == {"beds", "cups"} and len(held) == 2 and not held & {"beds0", "beds1", "beds2"}
    assert {e.key for _, e in data.train_index.samples} | held == {f"beds{i}" for i in range(4)} | {
        f"cups{i}" for i in range(6)
    }
    assert len(data.train_index.samples) == 8


def drawn_twice(place: Path) -> list[Path]:
    """Two folders that share the object m1, and of which each has one of the near-copies m2 and m2b."""
    image = png(noise(0, 8, 8))
    folders = []
    for name, groups in (("A", ("m1", "m2", "m3")), ("B", ("m4", "m1", "m2b"))):
        records = [make_record(f"{name}_{g}", 4, images=[image] * 4, size=(8, 8), group=g) for g in groups]
        write_shards(records, place / name, (8, 8))
        folders.append(place / name)
    (place / "families.json").write_text('[["m2", "m2b"]]')
    return folders


def keys(index) -> set[str]:
    return {entry.key for _, entry in index.samples}


@pytest.mark.parametrize(
    ("hold_out", "held"),
    [([1, 0], {"A_m2", "B_m2b"}), ([0, 1], {"A_m1", "B_m1"}), ([1, 1], {"A_m1", "B_m1", "A_m2", "B_m2b"})],
)
def test_what_one_folder_holds_out_no_other_trains_on(tmp_path, hold_out, held):
    data = ShardData(
        [str(path) for path in drawn_twice(tmp_path)], hold_out=hold_out, families=tmp_path / "families.json"
    )
    data.setup("fit")
    assert keys(data.val_index) == held
    assert keys(data.train_index) == {"A_m1", "A_m2", "A_m3", "B_m4", "B_m1", "B_m2b"} - held
    assert all(data.val_index.read(number).key in held for number in range(len(held)))


def test_parts_of_several_folders_share_no_object(tmp_path):
    paths = [str(path) for path in drawn_twice(tmp_path)]
    parts = [ShardData(paths, part=(number, 2), families=tmp_path / "families.json") for number in (0, 1)]
    for data in parts:
        data.setup("fit")
    first, second = (keys(data.train_index) for data in parts)
    assert (first, second) == ({"A_m1", "A_m3", "B_m4", "B_m1"}, {"A_m2", "B_m2b"})


def test_several_folders_are_validated_on(folders):
    data = ShardData(str(folders[0]), [str(folders[1])])
    data.setup("validate")
    assert [e.key[:4] for _, e in data.val_index.samples] == ["cups"] * 6


def test_a_folder_that_does_not_fit_is_refused(folders, tmp_path):
    with pytest.raises(UserError, match="pack or render them in one --size"):
        joined([read_index(folders[0]), read_index(folder(tmp_path, "large", size=(16, 16)))])
    with pytest.raises(UserError, match="the scene beds0 is in more than one"):
        joined([read_index(folders[0]), read_index(folders[0])])
    data = ShardData([str(folders[0]), f"pipe:cat {folders[1]}/{{}}"], cache=tmp_path / "cache")
    with pytest.raises(UserError, match="shards that lie elsewhere are a data set alone"):
        data.setup("fit")


def test_a_test_split_among_several_is_warned_of(folders, tmp_path, capsys):
    tested = folder(tmp_path, "tested", split="test")
    ShardData([str(folders[0]), str(tested)]).setup("fit")
    assert "tested is of split test" in capsys.readouterr().err
