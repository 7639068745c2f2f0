"""Files and folders appear whole or not at all, under names that nobody can foresee: not another user, not a process of
another node.
"""

import os
import threading
from pathlib import Path

import pytest

from vcgen.errors import UserError
from vcgen.folders import create_own_folder, put_in_place, replacing_folder
from vcgen.io import beside, open_lock, remove_leftovers, replacing, write_bytes, written_name
from vcgen.training.callbacks.checkpoints import link
from vcgen.training.run_folder import LOCK, alone_in


@pytest.fixture
def precious(tmp_path) -> Path:
    """A file that no link may reach."""
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_text("precious")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_temporary_names_are_never_shared_even_where_process_numbers_are(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with replacing(tmp_path / "a.json") as first, replacing(tmp_path / "a.json") as second:
        assert first != second and first.exists() and second.exists() and first.suffix == ".json"
        first.write_text("first"), second.write_text("second")
    # the outer one was renamed last
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == "first"
    with replacing_folder(tmp_path / "b") as one, replacing_folder(tmp_path / "b") as other:
        assert one != other


def test_writers_of_one_file_at_a_time_neither_fail_nor_mix(tmp_path):
    path, texts, failed = tmp_path / "shared.json", [letter * 5000 for letter in "abcd"], []

    def work(text: str) -> None:
        for _ in range(25):
            try:
                write_bytes(path, text.encode())
                assert path.read_text() in texts
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and names(tmp_path) == ["shared.json"]


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path, precious):
    (tmp_path / "a.json").symlink_to(precious)
    write_bytes(tmp_path / "a.json", b"new")
    assert (
        precious.read_text() == "precious"
        and (tmp_path / "a.json").read_text() == "new"
        and not (tmp_path / "a.json").is_symlink()
    )


@pytest.mark.parametrize("older", ["none", "empty", "full", "link", "dangling"])
def test_a_folder_takes_the_place_of_what_was_there(tmp_path, precious, older):
    target = tmp_path / "out" / "model.v1"
    target.parent.mkdir()
    if older in ("link", "dangling"):
        target.symlink_to(precious.parent if older == "link" else tmp_path / "nowhere")
    elif older != "none":
        target.mkdir()
    if older == "full":
        (target / "old").mkdir()
        (target / "old" / "file").touch()
    with replacing_folder(target) as temporary:
        (temporary / "new").write_text("new")
        assert older == "none" or os.path.lexists(target)
    assert names(target) == ["new"] and names(target.parent) == ["model.v1"] and precious.read_text() == "precious"
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_a_folder_that_fails_leaves_the_older_one(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "model") as temporary:
        (temporary / "half").touch()
        raise ZeroDivisionError
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"]
    rename, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 3:  # the new one, when the old one has stepped aside
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="model"), replacing_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"] and len(calls) == 4


def test_a_file_may_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    put_in_place(tmp_path / "file", tmp_path / "folder")
    assert names(tmp_path) == ["folder"] and (tmp_path / "folder").is_file()


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path):
    left = [beside(tmp_path / name) for name in ("last.ckpt", "step-7.ckpt", "folder.ckpt")]
    left[0].touch(), left[1].symlink_to(tmp_path / "last.ckpt"), left[2].mkdir()
    (left[2] / "half").touch()
    kept = ["last.ckpt", ".mine.partial.ckpt", ".last.ckpt.123.tmp", beside(tmp_path / "run.json").name]
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "*.ckpt")
    assert names(tmp_path) == sorted(kept)
    remove_leftovers(tmp_path / "nowhere", "*")
    assert [written_name(path) for path in left] == ["last.ckpt", "step-7.ckpt", "folder.ckpt"] and written_name(
        Path("a.b")
    ) == "a.b"


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "\u00e9" * 125 + ".png", "no_suffix", ".hidden", "two.dots.tar"])
def test_every_name_that_a_file_may_have_can_be_written(tmp_path, name):
    write_bytes(tmp_path / name, b"content")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("planted", ["link", "dangling", "folder", "pipe"])
def test_what_is_planted_in_the_place_of_a_lock_is_refused(tmp_path, precious, planted):
    path = tmp_path / "run" / LOCK
    path.parent.mkdir()
    if planted in ("link", "dangling"):
        path.symlink_to(precious if planted == "link" else tmp_path / "elsewhere" / "made")
    else:
        os.mkfifo(path) if planted == "pipe" else path.mkdir()
    with pytest.raises(UserError, match=r"run.lock: a link, or no file"):
        open_lock(path)
    with pytest.raises(UserError, match=r"run.lock: a link, or no file"), alone_in(path.parent):
        pass
    assert precious.read_text() == "precious" and names(precious.parent) == ["precious"]


def test_a_second_name_of_a_checkpoint_is_the_same_file_or_a_copy(tmp_path, monkeypatch):
    (tmp_path / "step-1.ckpt").write_text("one")
    link(tmp_path / "step-1.ckpt", tmp_path / "best.ckpt")
    link(tmp_path / "step-1.ckpt", tmp_path / "best.ckpt")
    assert os.path.samefile(tmp_path / "step-1.ckpt", tmp_path / "best.ckpt") and names(tmp_path) == [
        "best.ckpt",
        "step-1.ckpt",
    ]

    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "step-1.ckpt").unlink(), (tmp_path / "step-1.ckpt").write_text("two")
    link(tmp_path / "step-1.ckpt", tmp_path / "best.ckpt")
    assert (tmp_path / "best.ckpt").read_text() == "two" and names(tmp_path) == ["best.ckpt", "step-1.ckpt"]


def test_folders_whose_names_can_be_foreseen_must_be_our_own(tmp_path, precious, monkeypatch):
    create_own_folder(tmp_path / "mine" / "deep")
    (tmp_path / "link").symlink_to(precious.parent)
    with pytest.raises(UserError, match="a link stands where"):
        create_own_folder(tmp_path / "link")
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    if os.stat(tmp_path).st_uid == 0:
        os.chown(tmp_path / "mine", 4711, -1)
    with pytest.raises(UserError, match="belongs to another user"):
        create_own_folder(tmp_path / "mine")
