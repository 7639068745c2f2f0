import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from scenes import listing, make_record, noise, png, set_at
from vcgen.data.shards.files import read_index, read_sample, write_shards
from vcgen.data.shards.overlap import read_families
from vcgen.data.shards.tar import read_members
from vcgen.errors import UserError


@pytest.fixture
def index(tmp_path):
    return write_shards(
        (make_record(f"k{i}", count=2 + i) for i in range(5)), tmp_path / "out", (8, 6), samples_per_shard=2, source="s"
    )


def test_scenes_come_back_as_they_were_written(index):
    assert [sample.key for _, sample in index.samples] == [f"k{i}" for i in range(5)]
    assert [len(shard.samples) for shard in index.shards] == [2, 2, 1]
    for number in range(5):
        written, read = make_record(f"k{number}", count=2 + number), index.read(number)
        assert read.images == written.images and read.views == written.views
        assert np.array_equal(read.c2w, written.c2w) and np.array_equal(read.K, written.K)


def test_webdataset_reads_the_same_scenes(index):
    samples = webdataset.WebDataset([str(index.folder / shard.name) for shard in index.shards], shardshuffle=False)
    found = {sample["__key__"]: sample for sample in samples}
    assert sorted(found) == [f"k{i}" for i in range(5)]
    assert found["k3"]["004.png"] == index.read(3).images[4]


def test_tar_tools_read_the_shards(index):
    with tarfile.open(index.folder / "000000.tar") as tar:
        k0 = ["k0.cameras.json", "k0.000.png", "k0.001.png"]
        assert tar.getnames() == [*k0, "k1.cameras.json", "k1.000.png", "k1.001.png", "k1.002.png"]


def test_bytes_depend_on_the_records_alone(index, tmp_path):
    write_shards(
        (make_record(f"k{i}", count=2 + i) for i in range(5)),
        tmp_path / "again",
        (8, 6),
        samples_per_shard=2,
        source="s",
    )
    assert listing(tmp_path / "again") == listing(index.folder)


def test_more_than_a_thousand_views_keep_their_order(tmp_path):
    images = [png(np.full((1, 1, 3), i % 256, dtype=np.uint8)) for i in range(1002)]
    record = make_record(count=1002, images=images, size=(1, 1), background="none")
    assert write_shards([record], tmp_path / "out", (1, 1)).read(0).images == images


def test_nothing_is_left_behind_when_a_record_is_bad(tmp_path):
    records = [make_record("a"), make_record("b", t_near=-1.0)]
    with pytest.raises(UserError, match="scene b"):
        write_shards(records, tmp_path / "out", (8, 6))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([], "no scene"),
        ([make_record("a"), make_record("a")], "'a' occurs more than once"),
        ([make_record("a", images=[png(noise(i, 9, 6)) for i in range(3)], size=(9, 6))], "give one --size"),
    ],
)
def test_unusable_sets_of_records_are_refused(tmp_path, records, word):
    with pytest.raises(UserError, match=word):
        write_shards(records, tmp_path / "out", (8, 6))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_written_into(index):
    with pytest.raises(UserError, match="exists already"):
        write_shards([make_record()], index.folder, (8, 6))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create"):
        write_shards([make_record()], tmp_path / "file" / "out", (8, 6))


def test_a_truncated_shard_is_refused_by_name(index):
    shard = index.folder / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"000001.tar: 3000 bytes"):
        read_index(index.folder)
    sample = index.shards[1].samples[1]
    with pytest.raises(UserError, match=r"000001.tar: truncated"):
        read_sample(index.folder, "000001.tar", sample.offset, sample.size)


def test_an_empty_or_missing_shard_is_refused_by_name(index):
    (index.folder / "000002.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"000002.tar: 0 bytes"):
        read_index(index.folder)
    (index.folder / "000002.tar").unlink()
    with pytest.raises(UserError, match=r"000002.tar: missing"):
        read_index(index.folder)


def test_flipped_bytes_are_found_by_checksum_and_a_broken_header_on_reading(index):
    shard = index.folder / "000000.tar"
    data = bytearray(shard.read_bytes())
    data[100:140] = b"x" * 40
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"000000.tar: checksum"):
        index.verify_checksums()
    with pytest.raises(UserError, match=r"000000.tar, scene at byte 0"):
        index.read(0)


def test_a_png_cut_inside_the_shard_names_shard_scene_and_view(index):
    sample = index.shards[0].samples[0]
    data = bytearray((index.folder / "000000.tar").read_bytes())
    end = data.index(b"IEND", sample.offset)
    data[end : end + 4] = bytes(4)
    (index.folder / "000000.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"000000.tar.*scene k0, view 000000.*truncated"):
        index.read(0)


def test_plain_webdataset_reads_the_bundled_shards_as_the_index_does():
    index = read_index(Path(__file__).parents[1] / "data" / "cars64" / "train")
    urls = [str(index.folder / shard.name) for shard in index.shards]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [entry.key for _, entry in index.samples]
    for number in (0, len(read) - 1):
        record, sample = index.read(number), read[number]
        assert [sample[f"{view:03d}.png"] for view in range(len(record.images))] == record.images
        assert json.loads(sample["cameras.json"])["views"] == record.views


def test_an_index_of_another_kind_is_refused(tmp_path, index):
    with pytest.raises(UserError, match=r"no index.json"):
        read_index(tmp_path)
    path = index.folder / "index.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 7}))
    with pytest.raises(UserError, match=r"7 - at `\$.version`.*pack the data again"):
        read_index(index.folder)
    path.write_text("{")
    with pytest.raises(UserError, match="not a valid shard index"):
        read_index(index.folder)
    path.write_text(json.dumps({**content, "shards": []}))
    with pytest.raises(UserError, match="lists no scene"):
        read_index(index.folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image_size", [8, 10**9]),
        ("image_size", [[8], [6]]),
        ("image_size", [8]),
        ("image_size", [8.5, 6]),
        ("split", ["train"]),
        ("source", None),
        ("licence", 3),
        ("version", True),
        ("more", 1),
        ("shards", {}),
        ("shards.0", []),
        ("shards.0.name", "../000000.tar"),
        ("shards.0.name", "000001.tar"),
        ("shards.0.bytes", 10**400),
        ("shards.0.bytes", -512),
        ("shards.0.sha256", "0" * 63),
        ("shards.0.samples", None),
        ("shards.0.samples.0.offset", 100),
        ("shards.0.samples.0.offset", -512),
        ("shards.0.samples.1.offset", 0),
        ("shards.0.samples.0.size", 0),
        ("shards.0.samples.0.size", 2.5),
        ("shards.0.samples.0.views", 10**9),
        ("shards.0.samples.0.views", "3"),
        ("shards.0.samples.0.key", "a/b"),
        ("shards.0.samples.0.key", "k3"),
        ("shards.0.samples.0.group", ""),
        ("shards.0.samples.0.group", "a\0"),
        ("shards.0.samples.0.more", 1),
        ("shards.0.samples.0.size", 1 << 30),
    ],
)
def test_an_index_with_an_entry_out_of_its_range_is_refused(index, path, value):
    content = json.loads((index.folder / "index.json").read_text())
    set_at(content, path, value)
    (index.folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"pack the (data|folder) again") as error:
        read_index(index.folder)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("image_size", [6, 8], "image_size (6, 8), the scene (8, 6)"),
        ("split", "test", "split test, the scene train"),
        ("shards.0.samples.0.key", "other", "key other, the scene k0"),
        ("shards.0.samples.0.views", 9, "views 9, the scene 2"),
        ("shards.0.samples.0.group", "g", "group g, the scene k0"),
    ],
)
def test_scenes_that_are_not_what_the_index_says_are_refused(tmp_path, path, value, words):
    index = write_shards(
        [make_record("k0", count=2, split="train"), make_record("k1")], tmp_path / "out", (8, 6), split="train"
    )
    content = json.loads((index.folder / "index.json").read_text())
    set_at(content, path, value)
    (index.folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_index(index.folder).read(0)
    assert words in str(error.value) and "pack the folder again" in str(error.value)


def test_held_out_objects_keep_their_variants_together_and_nothing_is_lost():
    index = read_index("data/cars64/train")
    kept, held = index.hold_out(5)
    groups = [{entry.group for _, entry in part.samples} for part in (kept, held)]
    assert len(groups[1]) == 5 and not groups[0] & groups[1]
    assert sorted(e.key for part in (kept, held) for _, e in part.samples) == sorted(e.key for _, e in index.samples)
    assert held.read(0).key == held.samples[0][1].key


def test_near_copies_are_held_out_together(tmp_path):
    index = read_index("data/cars64/train")
    families = read_families(Path("data/cars64/families.json"))
    for count in range(1, 15):
        kept, held = index.hold_out(count, families)
        groups = [{entry.group for _, entry in part.samples} for part in (kept, held)]
        assert not groups[0] & groups[1] and groups[0] | groups[1] == {entry.group for _, entry in index.samples}
        assert all(not groups[0] & {*family} or not groups[1] & {*family} for family in families)
        assert count > 8 or len(groups[1]) == count  # as long as there are objects of their own kind
    with pytest.raises(UserError, match="families of objects cannot be held out"):
        index.hold_out(31, families)


def test_every_bundled_object_of_the_families_exists():
    named = {group for family in read_families(Path("data/cars64/families.json")) for group in family}
    known = {entry.group for split in ("train", "test") for _, entry in read_index(f"data/cars64/{split}").samples}
    assert named <= known


@pytest.mark.parametrize(
    ("text", "words"), [('[["a", "b"], ["b"]]', "b is named twice"), ('{"a": 1}', "list of lists")]
)
def test_families_that_are_none_are_refused(tmp_path, text, words):
    (tmp_path / "families.json").write_text(text)
    with pytest.raises(UserError, match=words):
        read_families(tmp_path / "families.json")


def test_an_object_is_in_one_family_of_all_files(tmp_path):
    for name, text in (("first.json", '[["a", "b"]]'), ("second.json", '[["b", "c"]]')):
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"second\.json: b is named twice, first in .*first\.json"):
        read_families(tmp_path / "first.json", tmp_path / "second.json")


@pytest.mark.parametrize("count", [0, -1, 31])
def test_holding_out_no_object_or_all_is_refused(count):
    with pytest.raises(UserError, match="31 objects"):
        read_index("data/cars64/train").hold_out(count)


def test_scenes_written_by_another_tar_program_are_read_all_the_same(tmp_path, index):
    """PAX headers, as Python's default."""
    for number in range(5):
        name, sample = index.samples[number]
        data = (index.folder / name).read_bytes()[sample.offset : sample.offset + sample.size]
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            plain = {member.name: tar.extractfile(member).read() for member in tar}
        assert read_members(data) == plain
        with tarfile.open(tmp_path / "pax.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for member, content in plain.items():
                header = tarfile.TarInfo(member)
                header.size, header.pax_headers = len(content), {"comment": "å" * 200}
                tar.addfile(header, io.BytesIO(content))
        pax = (tmp_path / "pax.tar").read_bytes()
        assert read_sample(tmp_path, "pax.tar", 0, len(pax)).images == index.read(number).images
