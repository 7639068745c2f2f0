"""Files of tensors: what is written comes back, for other readers too; what is damaged or no number is refused in one
line.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from vcgen.errors import UserError
from vcgen.tensors import TooLarge, no_more_parameters_than, read_tensors, write_tensors

TENSORS = {
    "a": torch.linspace(-1, 1, 12).reshape(3, 4),
    "half": torch.ones(5).half(),
    "brain": torch.ones(2, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 3),
}


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def header(data: bytes) -> tuple[dict, bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def with_header(entries: dict | bytes, rest: bytes) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + rest


def test_tensors_come_back_for_every_reader_and_the_bytes_depend_on_them_alone(tmp_path):
    write_tensors(TENSORS, tmp_path / "a")
    write_tensors(dict(reversed(TENSORS.items())), tmp_path / "b")
    assert equal(read_tensors(tmp_path / "a"), TENSORS) and equal(load_file(tmp_path / "a"), TENSORS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save_file(TENSORS, tmp_path / "c")  # without a checksum
    assert equal(read_tensors(tmp_path / "c"), TENSORS)


def test_every_changed_byte_is_found(tmp_path):
    write_tensors({"a": torch.arange(4.0)}, tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    for position in range(len(data)):
        (tmp_path / "b").write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            found = read_tensors(tmp_path / "b")
        except UserError as error:
            assert str(error).isprintable()
        else:  # in the names of the metadata, or in the blanks that end the header
            assert equal(found, {"a": torch.arange(4.0)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries, rest: b"", "not safetensors"),
        (lambda entries, rest: with_header(entries, rest[:-1]), "not safetensors"),
        (lambda entries, rest: with_header(entries, rest + b"1"), "not safetensors"),
        (lambda entries, rest: (1 << 62).to_bytes(8, "little") + rest, "its header has 4611686018427387904 bytes"),
        (lambda entries, rest: with_header(b"[" * 100_000, rest), "not safetensors"),
        (
            lambda entries, rest: with_header({**entries, "a": {**entries["a"], "shape": [4, 3]}}, rest),
            "checksum differs",
        ),
        (
            lambda entries, rest: with_header({**entries, "a": {**entries["a"], "dtype": "I32"}}, rest),
            "checksum differs",
        ),
        (
            lambda entries, rest: with_header({"b" if name == "a" else name: x for name, x in entries.items()}, rest),
            "checksum differs",
        ),
    ],
)
def test_files_with_a_part_replaced_are_refused(tmp_path, change, words):
    write_tensors({"a": TENSORS["a"]}, tmp_path / "a")
    (tmp_path / "a").write_bytes(change(*header((tmp_path / "a").read_bytes())))
    with pytest.raises(UserError, match=words) as error:
        read_tensors(tmp_path / "a", "ask again")
    assert str(error.value).isprintable() and str(error.value).endswith("; ask again")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    (tmp_path / "a").write_bytes(save({"a": torch.tensor([1.0, value])}))
    with pytest.raises(UserError, match="a holds NaN or infinity"):
        read_tensors(tmp_path / "a")


def test_a_name_given_twice_is_refused(tmp_path):
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    (tmp_path / "a").write_bytes(with_header(b"{" + entry % (0, 4) + b"," + entry % (4, 8) + b"}", bytes(8)))
    with pytest.raises(UserError, match="not safetensors"):
        read_tensors(tmp_path / "a")


def test_a_module_that_grows_beyond_bounds_stops_there():
    with no_more_parameters_than(4):
        torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    with pytest.raises(TooLarge, match="more than 4 parameters"), no_more_parameters_than(4):
        torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(10**12))
    torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(5)))
