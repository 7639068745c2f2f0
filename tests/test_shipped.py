"""Who installed vcgen and has no checkout uses its configurations by the names that the documentation gives them."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vcgen.cli.main import main, shipped

ROOT = Path(__file__).parents[1]


def test_a_configuration_that_is_not_here_is_the_one_that_vcgen_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/cars64.yaml", "configs/protocols/cars64_view0.json"):
        assert Path(shipped(name)).read_bytes() == (ROOT / name).read_bytes()
        assert shipped(f"--config={name}") == f"--config={shipped(name)}"


@pytest.mark.parametrize(
    "word",
    ["configs/unknown.yaml", "configs", "configs/", "configs/protocols", "cars64.yaml", "-c", "--key=", "", "a=b"]
    + ["configs/" + "a" * 5000, "configs/\0"],  # no file can have such a name
)
def test_other_words_stay(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped(word) == word


def test_ones_own_configuration_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cars64.yaml").write_text("seed_everything: 7\n")
    assert shipped("configs/cars64.yaml") == "configs/cars64.yaml"


def test_commands_take_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "model", "--data", "data", "--out", "out"]
    assert main(["evaluate", *arguments, "--protocol", "configs/protocols/cars64_view0.json"]) == 2
    found = capsys.readouterr().err
    assert main(["evaluate", *arguments, "--protocol", str(ROOT / "configs/protocols/cars64_view0.json")]) == 2
    assert capsys.readouterr().err == found
    assert main(["evaluate", *arguments, "--protocol", "configs/protocols/unknown.json"]) == 2
    assert capsys.readouterr().err != found


@pytest.mark.integration
def test_the_wheel_holds_them_all(tmp_path):
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("vcgen", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", "wheels"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    files = [path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        assert held[f"vcgen/{path}"] == (ROOT / path).read_bytes()
