"""On a shared machine: what another user plants in a cache, or beside a data set, is neither followed nor deleted, nor
believed.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from scenes import make_record, noise, png, write_srn_object
from training import refusal
from vcgen.cli.main import main
from vcgen.data.shards.files import read_index, write_shards
from vcgen.data.shards.remote import Cache
from vcgen.errors import UserError
from vcgen.io import beside


@pytest.fixture
def origin(tmp_path):
    return write_shards(
        (make_record(f"k{i}", count=2) for i in range(4)), tmp_path / "origin", (8, 6), samples_per_shard=2
    )


@pytest.fixture
def precious(tmp_path) -> Path:
    """A file that no link may reach."""
    path = tmp_path / "home" / "precious"
    path.parent.mkdir()
    path.write_text("precious")
    return path


def folder_of(cache: Path, source: str) -> Path:
    """Where the shards of ``source`` will lie, as anyone can compute."""
    found = Cache(cache, 1 << 20).index(source).folder
    for path in found.iterdir():
        path.unlink()
    return found


@pytest.mark.parametrize(
    "name", ["index.json.partial", "index.json", "000000.tar", "000000.tar.partial", ".000000.tar.tmp"]
)
def test_a_link_planted_in_the_cache_is_not_written_through(origin, tmp_path, precious, name):
    source = f"pipe:cat {origin.folder}/{{}}"
    folder = folder_of(tmp_path / "cache", source)
    (folder / name).symlink_to(precious)
    index = Cache(tmp_path / "cache", 1 << 20).index(source)
    assert all(index.read(n).images == origin.read(n).images for n in range(4))
    assert precious.read_text() == "precious" and precious.stat().st_nlink == 1
    assert not (folder / "index.json").is_symlink() and not (folder / "000000.tar").is_symlink()


def test_a_link_to_other_scenes_is_replaced_by_what_the_index_means(origin, tmp_path):
    strange = (make_record(f"k{i}", count=2, images=[png(noise(8)), png(noise(9))]) for i in range(4))
    other = write_shards(strange, tmp_path / "other", (8, 6), samples_per_shard=2)
    index = Cache(tmp_path / "cache", 1 << 20).index(f"pipe:cat {origin.folder}/{{}}")
    (index.folder / "000000.tar").symlink_to(other.folder / "000000.tar")
    assert index.read(0).images == origin.read(0).images != other.read(0).images
    assert read_index(other.folder).verify_checksums() is None


@pytest.mark.parametrize("name", ["index.json.lock", "000000.tar.lock", "../lock"])
def test_a_link_planted_for_a_lock_is_refused(origin, tmp_path, precious, name):
    source = f"pipe:cat {origin.folder}/{{}}"
    folder = folder_of(tmp_path / "cache", source)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "home" / "made")
    with pytest.raises(UserError, match="lock: a link, or no file"):
        Cache(tmp_path / "cache", 1 << 20).index(source).read(0)
    assert os.listdir(precious.parent) == ["precious"]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away takes privileges")
@pytest.mark.parametrize("which", ["cache", "folder"])
def test_a_cache_of_another_user_is_refused(origin, tmp_path, which):
    source = f"pipe:cat {origin.folder}/{{}}"
    folder = folder_of(tmp_path / "cache", source)
    os.chown(folder if which == "folder" else folder.parent, 4711, -1)
    with pytest.raises(UserError, match=r"belongs to another user; .* choose a place of your own"):
        Cache(tmp_path / "cache", 1 << 20).index(source)


def test_a_folder_of_the_cache_that_is_a_link_is_refused_but_the_cache_may_be_one(origin, tmp_path, precious):
    source = f"pipe:cat {origin.folder}/{{}}"
    folder = folder_of(tmp_path / "cache", source)
    (tmp_path / "mine").symlink_to(folder.parent)
    assert Cache(tmp_path / "mine", 1 << 20).index(source).read(0).key == "k0"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.symlink_to(precious.parent)
    with pytest.raises(UserError, match="a link stands where"):
        Cache(tmp_path / "cache", 1 << 20).index(source)
    assert os.listdir(precious.parent) == ["precious"]


def test_making_room_removes_nothing_but_shards_of_the_cache(origin, tmp_path):
    """A cache may be given a folder that holds other things."""
    kept = [
        tmp_path / "cache" / "letters" / "a.tar",
        tmp_path / "cache" / ("0" * 16) / "b.tar",
        tmp_path / "cache" / "c.tar",
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))
        os.utime(path, (1, 1))
    index = Cache(tmp_path / "cache", 1 << 22).index(f"pipe:cat {origin.folder}/{{}}")
    index = replace(index, cache=Cache(tmp_path / "cache", max(shard.bytes for shard in origin.shards)))
    left = beside(index.folder / "000001.tar")
    left.write_bytes(bytes(5000))
    assert index.read(0).key == "k0" and index.read(2).key == "k2"
    assert all(path.exists() for path in kept) and not left.exists() and not (index.folder / "000000.tar").exists()


def test_an_origin_that_does_not_end_fills_no_disk(origin, tmp_path):
    source = f"pipe:if [ {{}} = index.json ]; then cat {origin.folder}/index.json; else cat /dev/zero; fi"
    index = Cache(tmp_path / "cache", 1 << 22).index(source)
    with pytest.raises(UserError, match=r"000000.tar arrived with .* bytes that are not those of index.json"):
        index.read(0)
    assert sorted(path.suffix for path in index.folder.iterdir()) == [".json", ".lock", ".lock"]


@pytest.mark.parametrize("planted", ["folder", "lock"])
def test_packing_follows_no_link_and_deletes_nothing_behind_one(tmp_path, precious, capsys, planted):
    write_srn_object(tmp_path / "cars_train" / "car_0")
    partial = tmp_path / "out.partial"
    if planted == "folder":
        partial.symlink_to(precious.parent)
    else:
        partial.mkdir()
        (partial / "lock").symlink_to(precious)
    assert "a link" in refusal(
        capsys, main(["data", "pack", "srn", str(tmp_path / "cars_train"), str(tmp_path / "out")])
    )
    assert os.listdir(precious.parent) == ["precious"] and precious.read_text() == "precious"


def test_packing_goes_on_beside_what_a_killed_run_was_writing(tmp_path):
    write_srn_object(tmp_path / "cars_train" / "car_0")
    (tmp_path / "out.partial").mkdir()
    beside(tmp_path / "out.partial" / "000000.tar").write_bytes(b"half")
    assert main(["data", "pack", "srn", str(tmp_path / "cars_train"), str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cars_train", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.tar", "index.json", "pack.json"]
