"""Of a stranger's tar only plain files are read, and no more bytes than the index says."""

import gzip
import io
import tarfile
import tracemalloc

import numpy as np
import pytest

from scenes import make_record
from vcgen.data.shards.files import read_index, read_sample, write_shards
from vcgen.data.shards.tar import read_members
from vcgen.errors import UserError


def tar_of(*members: tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return buffer.getvalue()


def member(
    name: str = "k.cameras.json", kind: bytes = tarfile.REGTYPE, size: int = 0, **values: object
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    for key, value in values.items():
        setattr(made, key, value)
    return made


KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)


@pytest.mark.parametrize("kind", KINDS)
def test_only_plain_files_are_read(kind):
    assert read_members(tar_of(member(size=3))) == {"k.cameras.json": bytes(3)}
    with pytest.raises(UserError, match=r"'k.000.png' is no plain file"):
        read_members(tar_of(member(size=3), member("k.000.png", kind, linkname="/etc/passwd")))


def test_a_name_may_occur_once():
    with pytest.raises(UserError, match="is there twice"):
        read_members(tar_of(member(size=3), member(size=4)))


@pytest.mark.parametrize(
    "bomb",
    [
        tar_of(
            member(
                pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)},
                size=512,
            )
        ),
        tar_of(member(pax_headers={"GNU.sparse.map": f"0,1,{1 << 40},1", "GNU.sparse.size": str(1 << 40)}, size=2)),
        tar_of(member(pax_headers={"size": str(1 << 40)}, size=2)),
        gzip.compress(tar_of(member(size=1 << 25))),
    ],
)
def test_nothing_grows_beyond_the_bytes_of_the_scene(tmp_path, bomb):
    (tmp_path / "a.tar").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a.tar, scene at byte 0: .*copy or pack it again"):
        read_sample(tmp_path, "a.tar", 0, len(bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6 + 4 * len(bomb)


@pytest.mark.parametrize(("offset", "size"), [(0, 1 << 45), (1 << 40, 100), (512, 1 << 45)])
def test_places_beyond_the_end_of_a_shard_take_no_memory(tmp_path, offset, size):
    (tmp_path / "a.tar").write_bytes(tar_of(member(size=3)))
    with pytest.raises(UserError, match=r"a.tar: truncated: wanted"):
        read_sample(tmp_path, "a.tar", offset, size)


def test_changed_bytes_are_a_scene_or_one_line(tmp_path):
    random = np.random.default_rng(0)
    index = write_shards([make_record("k0")], tmp_path / "out", (8, 6))
    path, entry = tmp_path / "out" / "000000.tar", index.scenes[0]
    whole = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        header = 512 * int(random.integers(len(whole) // 512))
        for position in header + random.integers(0, 512, 3):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_sample(path.parent, path.name, entry.offset, entry.size).key
        except UserError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize(
    "name", ["../000000.tar", "/etc/passwd", "a/b.tar", ".hidden.tar", "a b.tar", "a;b.tar", "index.json", "x.lock"]
)
def test_a_shard_lies_in_its_folder(tmp_path, name):
    write_shards([make_record("k0")], tmp_path / "out", (8, 6))
    path = tmp_path / "out" / "index.json"
    path.write_text(path.read_text().replace("000000.tar", name))
    with pytest.raises(UserError, match=r"index.json: .*\$.shards\[0\].name"):
        read_index(tmp_path / "out")
