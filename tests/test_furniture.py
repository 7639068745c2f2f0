"""``vcgen data unpack``: licences as the catalogue tells them, makers parted, every creator named, one line for what
cannot be read."""

import numpy as np
import pytest

from sh3f_files import box, library
from vcgen.cli.main import main
from vcgen.data.shards.files import read_index
from vcgen.data.shards.overlap import read_families
from vcgen.data.shards.record import decode_views
from vcgen.meshes.furniture import licence_of
from vcgen.meshes.parts import read_surface
from vcgen.meshes.unpacking import makers_of, split_of, turn

BY = "Creative Commons Attribution 3.0 license"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Public domain", "CC0-1.0"),
        ("CC-0", "CC0-1.0"),
        ("Creative Commons Zero (Public Domain)", "CC0-1.0"),
        (BY, "CC-BY-3.0"),
        ("Creative Commons Attribution 3.0 United States license  Copyright (c) 2008", "CC-BY-3.0-US"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("Creative Commons Attribution-NonCommercial 3.0", ""),
        ("Creative Commons Attribution-ShareAlike 3.0", ""),
        ("CC-BY-ND 4.0", ""),
        ("GNU General Public License", ""),
        ("", ""),
    ],
)
def test_licences_are_known_by_the_words_of_catalogues(text, licence):
    assert licence_of(text) == licence


def unpacked(tmp_path, *words):
    """What the command leaves: the models of train and test."""
    status = main(["data", "unpack", str(tmp_path / "libraries"), str(tmp_path / "out"), *words])
    return status, *({p.name for p in (tmp_path / "out" / split).glob("*")} for split in ("train", "test"))


@pytest.fixture
def libraries(tmp_path):
    """One of CC0 with a piece of another licence, one of CC BY, one whose pieces may not be changed."""
    (tmp_path / "libraries").mkdir()
    makers = [f"Maker {number}" for number in range(8)]
    pieces = [{"id": f"chair{k}", "creator": makers[k % 8]} for k in range(16)]
    free = [*pieces, {"id": "other", "creator": "Cy", "license": BY}, {"id": "door", "doorOrWindow": "true"}]
    note = {"test/chair0/BLENDSWAP_LICENSE.txt": "Downloaded from http://www.blendswap.com/blends/view/508\n"}
    library(tmp_path / "libraries" / "free.sh3f", "Public domain", [*free, {"id": "rug", "height": "1.5"}], note)
    by = [
        {"id": "sofa", "creator": "Bo & eTeks"},
        {"id": "table", "creator": "Bo, Di"},
        {"id": "lamp", "creator": "Di"},
    ]
    library(tmp_path / "libraries" / "by.sh3f", BY, by)
    library(tmp_path / "libraries" / "closed.sh3f", "CC-BY-ND 3.0", [{"id": "vase"}])
    return tmp_path


def test_only_models_of_the_licences_asked_for_are_taken(libraries, capsys):
    status, train, test = unpacked(libraries)
    assert status == 0 and train | test == {f"Maker-{k % 8}_chair{k}" for k in range(16)}
    assert capsys.readouterr().out.splitlines()[1:] == [
        "left out 4, its licence is CC-BY-3.0",
        "left out 1, its licence is not known",
        "left out 1, a door or window, part of a wall: Ann_door",
        "left out 1, flat: Ann_rug",
    ]


def test_every_model_is_named_with_creator_licence_and_source(libraries):
    _, train, test = unpacked(libraries, "--licences", "cc0", "cc-by")
    page = (libraries / "out" / "ATTRIBUTION.md").read_text()
    rows = {
        row[1].strip(): [cell.strip() for cell in row[2:-1]]
        for row in (line.split("|") for line in page.splitlines())
        if len(row) > 3
    }
    assert train | test == rows.keys() - {"object", "---"}
    assert rows["Bo-eTeks_sofa"][:3] == ["sofa", "Bo & eTeks", "CC-BY-3.0"]
    assert rows["Cy_other"][2] == "CC-BY-3.0" and rows["Maker-0_chair0"][2] == "CC0-1.0"
    assert rows["Maker-0_chair0"][4] == "http://www.blendswap.com/blends/view/508"
    assert all(key in {"train": train, "test": test}[row[3]] for key, row in rows.items() if key in train | test)


def test_makers_are_parted_and_families_are_what_one_made(libraries):
    _, train, test = unpacked(libraries, "--licences", "cc0", "cc-by", "--test-every", "3")
    makers = [{key.partition("_")[0] for key in split} for split in (train, test)]
    assert train and test and not makers[0] & makers[1]
    families = read_families(libraries / "out" / "families.json")
    assert ["Bo-Di_table", "Bo-eTeks_sofa", "Di_lamp"] in families and ["Maker-1_chair1", "Maker-1_chair9"] in families
    assert all(set(family) <= train or set(family) <= test for family in families)


def test_who_worked_together_is_one_maker_and_converters_join_nobody():
    makers = makers_of(["Bo & eTeks", "Ann, Bo", "Cy & eTeks", "Blend Swap", "BlendSwap", "eTeks"])
    assert makers["Bo & eTeks"] == makers["Ann, Bo"] == "ann" and makers["Cy & eTeks"] == "cy"
    assert makers["Blend Swap"] == makers["BlendSwap"]
    assert sum(split_of(f"maker{k}", 5) == "test" for k in range(1000)) == pytest.approx(200, abs=40)


def test_a_model_that_lies_is_turned_upright_as_the_catalogue_says(tmp_path):
    lying = box(40, 50, 100) + "vn 0 0 1\n"  # its height along z
    path = tmp_path / "box.obj"
    path.write_bytes(turn(lying.encode(), np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])))
    (tmp_path / "box.mtl").write_text("newmtl paint\n")
    surface = read_surface(path, "y", 100)
    sides = (surface.triangles.amax((0, 1)) - surface.triangles.amin((0, 1))).tolist()
    assert sides == pytest.approx([40, 50, 100]) and b"vn 0 1 0" in path.read_bytes().replace(b"-0 ", b"0 ")


def test_unpacked_models_are_rendered_as_objects_whose_makers_validation_never_parts(tmp_path, libraries):
    unpacked(libraries)
    out = libraries / "shards"
    options = "--size 16 --views 2 --samples 1 --light none".split()
    assert main(["data", "render", str(libraries / "out" / "train"), str(out), *options]) == 0
    index = read_index(out)
    groups = {sample.group for _, sample in index.samples}
    assert (
        groups
        == {sample.key for _, sample in index.samples}
        == {p.name for p in (libraries / "out" / "train").iterdir()}
    )
    color, alpha = decode_views(index.read(0), [0])
    red = color[0][:, alpha[0, 0] > 0.9].mean(1)
    assert red[0] > 2 * red[1] and red[0] > 2 * red[2]
    stay, held = index.hold_out(2, read_families(libraries / "out" / "families.json"))
    makers = [{sample.group.partition("_")[0] for _, sample in part.samples} for part in (stay, held)]
    assert len(makers[1]) == 2 and not makers[0] & makers[1]


CATALOGUE = "PluginFurnitureCatalog.properties"
SIDES = "width#1=1\ndepth#1=1\nheight#1=1\n"


@pytest.mark.parametrize(
    ("licence", "pieces", "files", "reason"),
    [
        ("Public domain", [], {CATALOGUE: "nothing"}, "no model has a licence among cc0"),
        (BY, [{"id": "a"}], {}, "no model has a licence among cc0"),
        ("CC-0", [], {CATALOGUE: f"license=CC-0\nmodel#1=/x/a.obj\n{SIDES}"}, "has no x/a.obj"),
        ("Public domain", [{"id": "a", "width": "nan"}], {}, "model 1 has no usable width"),
        ("Public domain", [{"id": "a", "modelRotation": "1 2 3"}], {}, "model 1 has no usable modelRotation"),
        ("Public domain", [{"id": "a", "modelRotation": "x"}], {}, "model 1 has no usable modelRotation"),
        ("CC-0", [], {CATALOGUE: f"license=CC-0\n{SIDES}"}, "model 1 has no usable model;"),
    ],
)
def test_a_bad_catalogue_is_one_line(tmp_path, capsys, licence, pieces, files, reason):
    library(tmp_path / "libraries", licence, pieces, files)
    status, *_ = unpacked(tmp_path)
    error = capsys.readouterr().err
    assert status == 2 and reason in error and error.startswith("vcgen: error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_bad_archive_is_one_line(tmp_path, capsys):
    good = library(tmp_path / "good.sh3f", "Public domain", [{"id": "a"}, {"id": "b", "model": "/test/a/c.obj"}])
    cut = tmp_path / "cut.sh3f"
    cut.write_bytes(good.read_bytes()[:-30])
    spoiled = bytearray(good.read_bytes())
    spoiled[60:70] = b"\xff" * 10
    (tmp_path / "spoiled.sh3f").write_bytes(spoiled)
    (tmp_path / "empty").mkdir()
    for name in ("cut.sh3f", "spoiled.sh3f", "empty", "missing.sh3f"):
        assert main(["data", "unpack", str(tmp_path / name), str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("vcgen: error: ") and error.count("\n") == 1 and name in error
        assert not (tmp_path / "out").exists()


def test_names_that_lead_out_of_the_folder_write_nothing_there(tmp_path):
    entry = {"id": "../../evil", "model": "/../x/evil.obj", "creator": "../.."}
    path = library(tmp_path / "evil.sh3f", "Public domain", [entry], {"../x/evil.mtl": "", "../x/..": ""})
    assert main(["data", "unpack", str(path), str(tmp_path / "out")]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"evil.sh3f", "out"}
