"""Captions of the bundled objects, from their names: see README.md beside this file.

    python data/captions64.py data/captions64.json

Each object is called by its own name and by that of its category: "a photo of a taxi", "a photo of a car".
"""

import json
import re
import sys
from pathlib import Path

from vcgen.data.color_names import COLORS
from vcgen.data.shards.files import read_index
from vcgen.io import write_bytes

FOLDER = Path(__file__).parent
#: Category by the first word of a key of kits64; those with a front have it at azimuth 0.
KITS = {
    "fish": "fish",
    "food": "food item",
    "furniture": "piece of furniture",
    "seats": "seat",
    "spaceships": "spaceship",
}
WITH_FRONT = ("car", "seat", "fish")
#: Words in names from furniture64 that tell the category; the others have none.
WORDS = {
    "seat": "armchair bench chair couch pouf sofa stool",
    "piece of furniture": "bed bookcase cabinet closet commode cupboard desk dresser drawer shelf table wardrobe",
    "food item": "apple bread burger butter cake chicken cupcake donut pizza sandwich",
}
#: Left out of names: colors, which variants of an object change, and kits.
LEFT_OUT = {*COLORS, "basic", "real"}
#: Also said of what is named so.
SEATS = ("chair", "sofa", "bench", "stool")


def main(out: Path) -> None:
    """Write the file."""
    things = {}
    for folder in ("cars64", "kits64", "furniture64"):
        for split in ("train", "test"):
            for _, entry in read_index(FOLDER / folder / split).samples:
                names = names_of(folder, entry.key)
                front = 0 if folder != "furniture64" and names[-1] in WITH_FRONT else None
                things[entry.key] = {"names": names, "front": front}
    lines = (f"{json.dumps(key)}: {json.dumps(thing)}" for key, thing in sorted(things.items()))
    write_bytes(out, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def names_of(folder: str, key: str) -> list[str]:
    """The names of an object, the category last where it has one."""
    if folder == "kits64":
        kind, _, rest = key.split("_", 2)
        name, category = words(rest), KITS[kind]
    elif folder == "cars64":
        name, category = words(key.split("_", 1)[1]), "car"
    else:
        name = words(key.split("_", 1)[1])
        found = (kind for kind, known in WORDS.items() for word in known.split() if name.endswith(word))
        category = next(found, "")
    common = [word for word in SEATS if category == "seat" and name.endswith(word)]
    return list(dict.fromkeys(filter(None, [name, *common, category])))


def words(name: str) -> str:
    """Of a file's name: "deckChair2" is "deck chair"."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    kept = [word for word in re.split(r"[^a-z]+", parted) if len(word) > 1 and word not in LEFT_OUT]
    return " ".join(kept) or name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
