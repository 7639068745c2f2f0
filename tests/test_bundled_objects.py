"""The bundled objects: what their page says of them, makers parted, families kept together, creators named."""

import re
from pathlib import Path

import pytest

from vcgen.data.shards.faults import fault_in
from vcgen.data.shards.files import read_index
from vcgen.data.shards.overlap import read_families
from vcgen.meshes.unpacking import makers_of

DATA = Path(__file__).parents[1] / "data"
PAGE = (DATA / "README.md").read_text()


def groups(name: str, split: str) -> set[str]:
    return {sample.group for _, sample in read_index(DATA / name / split).samples}


@pytest.mark.parametrize("name", ["furniture64", "kits64"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_bundled_objects_are_whole_and_as_many_as_their_page_says(name, split):
    index = read_index(DATA / name / split)
    index.verify_checksums()
    found = re.search(rf"`{name}/{split}` \((\d+) models x (\d+) views\)", PAGE)
    assert (len(index.samples), index.scenes[0].views) == tuple(map(int, found.groups()))
    assert len(set(index.scenes.column("views"))) == 1
    assert (index.split, index.source, index.licence, index.image_size) == (split, name, "CC0-1.0", (64, 64))
    assert not any(fault_in(index, number) for number in range(0, len(index.samples), 16))


def test_all_bundled_shards_have_at_most_40_mb():
    assert sum(path.stat().st_size for path in DATA.glob("*64/*/*.tar")) <= 40e6


def test_the_makers_of_furniture_are_parted_and_named():
    rows = [line.split(" | ") for line in (DATA / "furniture64" / "ATTRIBUTION.md").read_text().splitlines()]
    creator = {row[0].removeprefix("| "): row[2] for row in rows if len(row) > 4 and row[3] == "CC0-1.0"}
    train, test = (groups("furniture64", split) for split in ("train", "test"))
    assert train | test <= creator.keys() and len(creator) == 168
    makers = makers_of(creator.values())
    parted = [{makers[creator[key]] for key in keys} for keys in (train, test)]
    assert not parted[0] & parted[1]
    assert len({creator[key] for key in train | test}) == int(re.search(r"textured models of (\d+) creators", PAGE)[1])


def test_the_makers_of_kits_are_parted():
    makers = [{key.split("_")[1][:6] for key in groups("kits64", split)} for split in ("train", "test")]
    assert makers == [{"kenney", "quater"}, {"kaykit"}]


@pytest.mark.parametrize("name", ["furniture64", "kits64"])
def test_families_of_bundled_objects_are_never_parted(name):
    families = read_families(DATA / name / "families.json")
    train, test = (groups(name, split) for split in ("train", "test"))
    assert sum(len(family) for family in families) > 40
    assert not [family for family in families if train & {*family} and test & {*family}]
    kept, held = read_index(DATA / name / "train").hold_out(8, families)
    parts = [{sample.group for _, sample in part.samples} for part in (kept, held)]
    assert not [family for family in families if parts[0] & {*family} and parts[1] & {*family}]
