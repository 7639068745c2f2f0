"""The compact table of scenes: a plain list is the oracle, and a hundred thousand entries cost nothing to look into."""

import json
import tracemalloc

import pytest

from vcgen.data.shards.files import SampleEntry, ShardEntry, ShardIndex, read_index, write_index
from vcgen.data.shards.table import SceneTable

ENTRIES = [SampleEntry(f"scene_{i:0{1 + i % 7}d}", 512 * i, 512, 2 + i % 5, f"Gruppe ü{i // 3}") for i in range(50)]


def make_index(folder, per_shard: list[int], entries=ENTRIES) -> ShardIndex:
    """An index of shards with so many of the entries each; there are no tar files."""
    shards, first = [], 0
    for number, count in enumerate(per_shard):
        shards.append(ShardEntry(f"{number:06d}.tar", 1 << 30, "0" * 64, tuple(entries[first : first + count])))
        first += count
    return ShardIndex(folder, (8, 8), "s", "train", "l", tuple(shards))


def test_a_table_is_the_sequence_it_was_made_of():
    table = SceneTable.of(ENTRIES)
    assert list(table) == ENTRIES and table == ENTRIES and len(table) == 50
    assert [table[i] for i in (0, 7, -1)] == [ENTRIES[i] for i in (0, 7, -1)] and list(table[3:9]) == ENTRIES[3:9]
    assert table.column("views").tolist() == [entry.views for entry in ENTRIES]
    with pytest.raises(IndexError):
        table[50]
    assert list(SceneTable.of([])) == [] and SceneTable.of(ENTRIES[:1]) != SceneTable.of(ENTRIES[1:2])


@pytest.mark.parametrize("per_shard", [[50], [1] * 50, [17, 1, 32]])
def test_samples_are_found_in_their_shards(tmp_path, per_shard):
    expected = [(f"{shard:06d}.tar", i) for shard, count in enumerate(per_shard) for i in range(count)]
    samples = make_index(tmp_path, per_shard).samples
    plain = [(name, entry) for (name, _), entry in zip(expected, ENTRIES, strict=True)]
    assert list(samples) == plain and [samples[i] for i in range(50)] == plain and samples[-1] == plain[-1]
    assert samples.index(plain[20]) == 20 and samples.count(plain[20]) == 1
    with pytest.raises(IndexError):
        samples[50]


def test_an_index_comes_back_from_the_disk_byte_for_byte(tmp_path):
    index = read_index("data/cars64/train")
    write_index(ShardIndex(tmp_path, index.image_size, index.source, index.split, index.licence, index.shards))
    assert (tmp_path / "index.json").read_bytes() == (index.folder / "index.json").read_bytes()


def test_looking_a_scene_up_does_not_walk_through_all_of_them(tmp_path):
    """The least list of a hundred thousand pointers would take 800 kB."""
    many = [SampleEntry(f"{i:032x}", 512 * i, 512, 24, f"{i:032x}") for i in range(100_000)]
    index = make_index(tmp_path, [64] * (len(many) // 64 + 1), many)
    assert index.scenes.rows.nbytes < 100 * len(many)
    tracemalloc.start()
    try:
        for number in range(0, len(many), 1000):
            assert index.samples[number][1] == many[number]
        assert len(index.samples) == len(many) and index.shard_of(99_999).name == "001562.tar"
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_reading_an_index_keeps_no_objects_for_its_scenes(tmp_path):
    """Some twenty bytes of text and numbers each; as dictionaries, even for a moment, they would take several
    hundred.
    """
    many = [SampleEntry(f"{i:08d}", 512 * i, 512, 24, f"{i:08d}") for i in range(50_000)]
    write_index(make_index(tmp_path, [1000] * 50, many))
    for shard in json.loads((tmp_path / "index.json").read_text())["shards"]:
        with open(tmp_path / shard["name"], "wb") as file:
            file.truncate(shard["bytes"])
    size = (tmp_path / "index.json").stat().st_size
    tracemalloc.start()
    try:
        index = read_index(tmp_path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index.samples[-1][1] == many[-1]
    # the text of the file twice (bytes, then characters), the array, and one shard's dictionaries
    assert kept < 60 * len(many) and peak < 2 * size + 150 * len(many)
