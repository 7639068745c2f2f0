"""Shards behind commands and URLs: fetched once for all processes, checked, kept within bounds, fetched again when the
copy is damaged.
"""

import fcntl
import itertools
import json
import multiprocessing
import os
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from scenes import make_record
from training import CONFIG, last_checkpoint, refusal, vcgen
from vcgen.data.datamodules.stream import SceneStream
from vcgen.data.shards import remote
from vcgen.data.shards.files import read_index, write_shards
from vcgen.data.shards.remote import Cache, is_remote
from vcgen.errors import UserError
from vcgen.io import beside


@pytest.fixture
def origin(tmp_path):
    """Where the shards come from: four of two scenes each."""
    return write_shards(
        (make_record(f"k{i}", count=2) for i in range(8)), tmp_path / "origin", (8, 6), samples_per_shard=2
    )


def logged(origin, log: Path) -> str:
    """A command that fetches a file and notes its name."""
    return f"pipe:echo {{}} >> {log}; cat {origin.folder}/{{}}"


def fetched(log: Path) -> list[str]:
    return [name for name in log.read_text().split() if name != "index.json"]


def same_scenes(index, origin) -> bool:
    return all(index.read(n).images == origin.read(n).images for n in range(len(origin.samples)))


def test_scenes_behind_a_command_are_the_scenes_of_the_folder_each_shard_fetched_once(origin, tmp_path):
    index = Cache(tmp_path / "cache", 1 << 20).index(logged(origin, tmp_path / "log"))
    assert list(index.samples) == list(origin.samples) and same_scenes(index, origin) and same_scenes(index, origin)
    assert sorted(fetched(tmp_path / "log")) == sorted(shard.name for shard in origin.shards)
    kept, held = index.hold_out(3)
    assert [held.read(n).key for n in range(3)] == [entry.key for _, entry in held.samples] and len(kept.samples) == 5


def test_a_web_server_feeds_loader_processes(origin, tmp_path):
    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(origin.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        source = f"http://127.0.0.1:{server.server_port}"
        assert is_remote(source) and not is_remote(str(origin.folder))
        index = Cache(tmp_path / "cache", 1 << 20).index(source)
        loaders = [
            DataLoader(SceneStream(i, 2, 1, seed=0), batch_size=None, num_workers=w)
            for i, w in ((index, 2), (origin, 0))
        ]
        a, b = (list(itertools.islice(loader, 4)) for loader in loaders)
        assert [x.keys for x in a] == [x.keys for x in b]
        with pytest.raises(UserError, match=r"http://127.0.0.1:.*/nothing: index.json cannot be fetched"):
            Cache(tmp_path / "cache", 1 << 20).index(f"{source}/nothing")
    finally:
        server.shutdown()


def _read_all(folder, source, ready) -> None:
    ready.wait()
    index = Cache(folder, 1 << 20).index(source)
    for number in range(8):
        index.read(number)


def test_processes_of_a_node_download_a_shard_once(origin, tmp_path):
    source = logged(origin, tmp_path / "log").replace("; cat", "; sleep 0.1; cat")
    ready = multiprocessing.Barrier(4)
    processes = [multiprocessing.Process(target=_read_all, args=(tmp_path / "cache", source, ready)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(fetched(tmp_path / "log")) == sorted(shard.name for shard in origin.shards)
    assert not list((tmp_path / "cache").rglob("*.partial*"))


def test_a_data_set_that_the_cache_cannot_hold_is_refused_before_a_shard_is_fetched(origin, tmp_path):
    total, source = sum(shard.bytes for shard in origin.shards), logged(origin, tmp_path / "log")
    with pytest.raises(UserError, match="the cache must hold all of it; raise it"):
        Cache(tmp_path / "cache", total - 1).index(source)
    assert fetched(tmp_path / "log") == []
    cache = Cache(tmp_path / "cache", total)
    index = cache.index(source)
    cache.refuse_too_small([*index.hold_out(3)])  # whose shards are the same, each with scenes of both
    other = Cache(tmp_path / "cache", total).index(f"pipe:cat {origin.folder}/./{{}}")
    with pytest.raises(UserError, match="the cache must hold all of it"):
        cache.refuse_too_small([index, other])
    assert same_scenes(index, origin) and sorted(fetched(tmp_path / "log")) == sorted(s.name for s in origin.shards)


def test_where_data_sets_compete_the_least_recently_used_shard_goes_first_and_never_one_that_is_read(origin, tmp_path):
    size = max(shard.bytes for shard in origin.shards)
    index = Cache(tmp_path / "cache", 1 << 20).index(logged(origin, tmp_path / "log"))
    index = replace(index, cache=Cache(tmp_path / "cache", 2 * size))  # the rest is taken by others
    names = [shard.name for shard in origin.shards]

    def kept() -> set[str]:
        return {path.name for path in index.folder.glob("*.tar")}

    index.read(0)
    index.read(2)
    for name, seconds in ((names[0], 2000), (names[1], 1000)):
        os.utime(index.folder / name, (seconds, seconds))
    index.read(4)
    assert kept() == {names[0], names[2]}
    os.utime(index.folder / names[0], (1000, 1000))
    with open(index.folder / f"{names[0]}.lock", "ab") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        index.read(6)
        assert kept() == {names[0], names[3]}
        with open(index.folder / f"{names[3]}.lock", "ab") as second:
            fcntl.flock(second, fcntl.LOCK_SH)
            with pytest.raises(
                UserError, match=r"no room for 000001.tar .* beside what is being read; raise data.cache_gb"
            ):
                index.read(2)
    assert index.read(2).key == "k2" and sum(path.stat().st_size for path in index.folder.glob("*.tar")) <= 2 * size


def test_the_room_of_a_shard_is_taken_while_it_arrives(origin, tmp_path, monkeypatch):
    """Else others that make room at the same time would see what has arrived alone, and fill the cache beyond its
    limit.
    """
    index, found = Cache(tmp_path / "cache", 1 << 20).index(f"pipe:cat {origin.folder}/{{}}"), []
    opened = remote.open_remote

    def watched(source: str, name: str):
        stream = opened(source, name)
        read = stream.read
        stream.read = lambda size: found.append(sum(map(remote._size, index.folder.glob(".*.partial*")))) or read(size)
        return stream

    monkeypatch.setattr(remote, "open_remote", watched)
    assert index.read(0).images == origin.read(0).images
    assert set(found) == {origin.shards[0].bytes}


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: bytes(len(data)), lambda data: b""])
def test_a_damaged_copy_is_fetched_again_and_damage_at_the_origin_is_refused(origin, tmp_path, damage):
    index = Cache(tmp_path / "cache", 1 << 20).index(logged(origin, tmp_path / "log"))
    index.read(0)
    copy = index.folder / "000000.tar"
    copy.write_bytes(damage(copy.read_bytes()))
    assert index.read(0).images == origin.read(0).images and fetched(tmp_path / "log") == ["000000.tar"] * 2
    (origin.folder / "000001.tar").write_bytes(damage((origin.folder / "000001.tar").read_bytes()))
    with pytest.raises(UserError, match=r"000001.tar arrived with .* not those of index.json"):
        index.read(2)
    assert sorted(path.name for path in index.folder.glob("*.tar*") if path.suffix != ".lock") == ["000000.tar"]


def test_what_an_interrupted_download_left_is_replaced(origin, tmp_path):
    index = Cache(tmp_path / "cache", sum(shard.bytes for shard in origin.shards)).index(
        logged(origin, tmp_path / "log")
    )
    for shard in origin.shards:
        beside(index.folder / shard.name).write_bytes(bytes(shard.bytes))
    assert same_scenes(index, origin) and not list(index.folder.glob("*.partial*"))


def test_names_that_would_leave_the_folder_or_run_a_command_are_refused(origin, tmp_path):
    path = origin.folder / "index.json"
    content = json.loads(path.read_text())
    for name in ("../000000.tar", "a;touch x", ".hidden", "a b", ""):
        content["shards"][0]["name"] = name
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"at `\$.shards\[0\].name`"):
            Cache(tmp_path / "cache", 1 << 20).index(f"pipe:cat {origin.folder}/{{}}")


def test_commands_that_fail_or_name_no_file_are_refused(tmp_path):
    cache = Cache(tmp_path / "cache", 1 << 20)
    with pytest.raises(UserError, match=r"index.json cannot be fetched"):
        cache.index("pipe:false {}")
    with pytest.raises(UserError, match=r"needs {} where the file's name belongs"):
        cache.index("pipe:cat /somewhere")


@pytest.mark.integration
def test_a_training_reads_through_the_cache_and_refuses_to_do_without(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    train = Path("data/cars64/train").resolve()
    options = dict(data__train=f"pipe:cat {train}/{{}}", data__val="null", trainer__max_steps=2)
    assert "need a cache: give data.cache FOLDER" in refusal(
        capsys, vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "a", **options)
    )
    options["data__cache"] = tmp_path / "cache"
    line = refusal(capsys, vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "b", **options, data__cache_gb=0.001))
    assert "the data has 0.0" in line and "data.cache_gb is 0.001" in line and "must hold all of it" in line
    assert vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "c", **options, data__cache_gb=1, data__num_workers=1) == 0
    assert vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "d", **(options | dict(data__train=train))) == 0
    a, b = (last_checkpoint(tmp_path / name) for name in "cd")
    assert a["ShardData"] == b["ShardData"] and all(
        (a["state_dict"][n] == b["state_dict"][n]).all() for n in a["state_dict"]
    )
    assert read_index(train).shards[0].name in {path.name for path in (tmp_path / "cache").rglob("*.tar")}
