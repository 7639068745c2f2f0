"""Ways to spoil the bytes of a file and the values of a JSON document; all depend on a random generator alone."""

import copy
import json
import zlib
from collections.abc import Sequence
from random import Random
from typing import Any

#: JSON text that no Python value stands for is written in place of strings that begin with this.
RAW = "\ue000raw "
#: Numbers, and what is written like one, at and beyond every limit.
NUMBERS = [
    0, 1, -1, 2, 7, 255, 1000, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30, -0.0, 0.5, 1e-320, 1e12, 1e38, 1e308,
    -1e308, RAW + "9" * 400, RAW + "9" * 5000, RAW + "1e999", RAW + "0." + "1" * 5000, RAW + "NaN", RAW + "Infinity",
    RAW + "-Infinity",
]  # fmt: skip
TEXTS = [
    "", "a", "0", "1e5", "nan", "null", "../../../etc/passwd", "/dev/zero", "/dev/stdin", "C:\\con", "a\0b", "a\nb",
    "\x1b[2J", "\u202eabc", "\ufeff", "\U0001f600", RAW + '"\\ud800"', RAW + '"\\u0000"', "x" * 300, "y" * 200_000,
    "${oc.env:HOME}", "%s%n", "[/]", "<script>", "|", "e\u0301",
]  # fmt: skip
OTHERS = [
    True, False, None, [], {}, [[]], [None], {"a": 1}, [0] * 1000, RAW + "[" * 100_000, RAW + "[" * 70 + "]" * 70,
    RAW + '{"a":' * 5000 + "1" + "}" * 5000,
]  # fmt: skip


def spoil_bytes(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Flip, overwrite, insert, repeat, remove or exchange a few bytes, or cut the end off. others: files to take pieces
    from.
    """
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        place, length = random.randrange(len(data) + 1), random.choice((1, 1, 2, 4, 16, 200, len(data)))
        piece = data[place : place + length]
        match random.randrange(9):
            case 0 | 1 if piece:
                data[place] ^= 1 << random.randrange(8)
            case 2:
                data[place : place + length] = random.randbytes(len(piece))
            case 3:
                data[place:place] = random.randbytes(random.choice((1, 4, 100)))
            case 4:
                data[place:place] = piece
            case 5:
                del data[place : place + length]
            case 6:
                del data[place:]
            case 7:
                data[place : place + length] = random.choice((b"\0", b"\xff", b" ", b"9")) * len(piece)
            case _ if others:
                other = random.choice(others)
                start = random.randrange(len(other) + 1)
                data[place : place + length] = other[start : start + length]
    return bytes(data)


def spoil_json(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change a few values, names or the structure of a document; now and then its bytes."""
    if random.random() < 0.2:
        return spoil_bytes(random, data, others)
    return to_json(spoil_tree(random, json.loads(data)), indent=random.choice((None, 1)))


def to_json(tree: Any, indent: int | None = None) -> bytes:
    """JSON of plain data, with the text that the marks of ``RAW`` stand for, and names twice where a name ends in
    one.
    """
    text = json.dumps(tree, indent=indent)
    mark = json.dumps(RAW)[1:-1]
    while (start := text.find(mark)) >= 0:
        begin, end = text.rindex('"', 0, start), _string_end(text, start)
        token = json.loads(text[begin:end])
        raw, key = token[len(RAW) :], token.partition(RAW)[0]
        text = text[:begin] + (raw if token.startswith(RAW) else json.dumps(key)) + text[end:]
    return text.encode("utf-8", "surrogatepass")


def _string_end(text: str, place: int) -> int:
    """Behind the quote that ends the string in which a place lies."""
    while text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place + 1


def spoil_tree(random: Random, tree: Any, values: Sequence[Any] = (*NUMBERS, *TEXTS, *OTHERS)) -> Any:
    """A copy of plain data with one to three changes. values: what may come in place of others."""
    tree = [copy.deepcopy(tree)]
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        found = list(places(tree))
        leaves = [(container, name) for container, name in found if not isinstance(container[name], dict | list)]
        container, name = random.choice(leaves if leaves and random.random() < 0.6 else found)
        value = container[name]
        match random.randrange(13):
            case 0 | 1:
                container[name] = copy.deepcopy(random.choice(values))
            case 2 | 12:
                container[name] = random.choice(NUMBERS)
            case 3 | 4 | 5:
                container[name] = nudged(random, value)
            case 6:
                other, key = random.choice(list(places(tree)))
                if not _holds(value, other) and not _holds(other[key], container):
                    container[name], other[key] = other[key], value
            case 7 if container is not tree:
                del container[name]
            case 8 if isinstance(container, dict):
                container[random.choice((f"{name}s", f"{name}".upper(), "more", "", f"{name}{RAW}"))] = copy.deepcopy(
                    random.choice(values)
                )
            case 9 if isinstance(container, list) and container is not tree:
                container.insert(name, copy.deepcopy(value))
            case 10 if isinstance(value, list):
                random.shuffle(value)
            case 11:
                container[name] = random.choice(([value], {"value": value}, str(value), [value, value]))
    return tree[0]


def nudged(random: Random, value: Any) -> Any:
    """A value of the same kind, near or far."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return random.choice(
            (
                value + 1,
                value - 1,
                -value,
                value * 10,
                value * 1.001,
                value * 1e6,
                value + 1e-3,
                value + 1e-9,
                value / 3,
            )
        )
    if isinstance(value, str) and value:
        place = random.randrange(len(value))
        return value[:place] + random.choice(("", "0", "a", "Z", "\t", "\u00e9", " ", "/", ".")) + value[place + 1 :]
    if isinstance(value, list) and value:
        return random.choice((value[1:], value[:-1], value * 2, value[::-1]))
    return None


def places(tree: Any) -> "Any":
    """(container, name or number) of every value in nested plain data."""
    for name, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, name
        if isinstance(value, dict | list):
            yield from places(value)


def spoil_tensors(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """Spoil the header of a safetensors file, or any bytes."""
    if random.random() < 0.5:
        return spoil_bytes(random, data, others)
    end = 8 + int.from_bytes(data[:8], "little")
    header = spoil_json(random, data[8:end])
    return len(header).to_bytes(8, "little") + header + data[end:]


def _holds(value: Any, part: Any) -> bool:
    """Whether a container is, or lies in, another."""
    return value is part or (isinstance(value, dict | list) and any(inner[key] is part for inner, key in places(value)))


def plain(data: bytes) -> Any:
    """A JSON document read by the standard library, strictly. Raises ValueError for what is none."""

    def refuse(text: str) -> None:
        raise ValueError(text)

    text = data.decode("utf-8-sig")
    return json.loads(text, parse_constant=refuse)


def png_is_whole(data: bytes) -> bool:
    """Whether every chunk of a PNG file has its checksum, and nothing is before, between or behind them."""
    place, names = 8, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        if len(data) < end + 4 or zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        names.append(data[place + 4 : place + 8])
        place = end + 4
    return (
        data[:8] == b"\x89PNG\r\n\x1a\n"
        and names[:1] == [b"IHDR"]
        and names[-1:] == [b"IEND"]
        and names.count(b"IHDR") == 1
    )
