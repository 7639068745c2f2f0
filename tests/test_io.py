"""The one reader of JSON: whatever a file holds, its content comes back as the schema says, or one printable line
does.
"""

from typing import Any

import msgspec
import pytest

from vcgen.errors import UserError
from vcgen.io import MAX_DEPTH, check, parse_json, read_json
from vcgen.schema import Count, Finite, Key, Unit


class Setting(msgspec.Struct, forbid_unknown_fields=True):
    """A schema for these tests."""

    name: str
    fraction: Unit = 0.0
    parts: list[Count] = []
    rest: Any = None


def refusal(data: bytes, schema: Any = Setting) -> str:
    with pytest.raises(UserError) as error:
        parse_json(data, schema, "file.json", "ask again")
    return str(error.value)


def test_a_file_comes_back_as_its_schema_says(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"name": "\xc3\xbc", "fraction": 1, "parts": [0, 2]}')
    assert read_json(tmp_path / "a.json", Setting) == Setting("ü", 1.0, [0, 2])
    assert parse_json(b'{"a": [1, {"b": null}]}', dict[str, Any], "x") == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"name": "\xff"}', "UTF-8"),
        (b'{"name": "\\ud800"}', "truncated"),
        (b'{"name": 3}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": "a", "fraction": NaN}', "invalid character"),
        (b'{"name": "a", "fraction": 1.5}', "<= 1.0 - at `$.fraction`"),
        (b'{"name": "a", "fraction": 1e999}', "out of range"),
        (b'{"name": "a", "parts": [' + b"9" * 5000 + b"]}", "out of range"),
        (b'{"name": "a", "rest": [1' + b"0" * 400 + b"]}", "more than 64 bits"),
        (b'{"name": "a", "rest": 1' + b"0" * 5000 + b"}", "out of range"),
        (b'{"name": "a", "parts": [-1]}', ">= 0 - at `$.parts[0]`"),
        (b'{"name": "a", "fractions": 1}', "unknown field `fractions`"),
        (b'{"name": "a", "fraction": 0, "fraction": 1}', "'fraction' is given twice"),
        (b'{"name": "a", "rest": {"b": 1, "b": 1}}', "'b' is given twice"),
        (b"[" * 1_000_000, "got `array`"),
        (b'{"name": "a", "rest": ' + b"[" * 1_000_000, "nested deeper than 64"),
        (b'{"name": "a", "rest": ' + b"[" * 65 + b"]" * 65 + b"}", "nested deeper than 64"),
    ],
)
def test_what_is_not_of_the_schema_is_one_line_that_says_where(data, words):
    line = refusal(data)
    assert (
        words in line
        and line.startswith("file.json: ")
        and line.endswith("; ask again")
        and line.isprintable()
        and len(line) < 600
    )


def test_open_parts_may_be_nested_to_the_limit_and_no_deeper():
    inside = MAX_DEPTH - 1  # the object around it is a level, too
    assert parse_json(b'{"a": ' + b"[" * (inside - 1) + b"]" * (inside - 1) + b"}", dict[str, Any], "x")
    assert "nested deeper" in refusal(b'{"a": ' + b"[" * (inside + 1) + b"]" * (inside + 1) + b"}", dict[str, Any])


def test_controls_in_a_file_do_not_reach_the_terminal():
    assert refusal(b'{"name": "a", "\\u001b[31m\\u202e": 1}').isprintable()


def test_files_that_are_too_long_missing_or_no_files_are_refused(tmp_path):
    (tmp_path / "long.json").write_bytes(b" " * 101)
    for name, words in (
        ("long.json", "longer than"),
        ("absent.json", "is missing"),
        ("", "Is a directory"),
        ("a\0b", "null"),
    ):
        with pytest.raises(UserError, match=words):
            read_json(tmp_path / name, dict[str, Any], limit=100)


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        ({"name": 1}, Setting, "Expected `str`"),
        (float("nan"), Unit, ">= 0.0"),
        (float("nan"), Finite, "Expected `float`"),
        (float("inf"), Finite, "Expected `float`"),
        (True, Count, "got `bool`"),
        (2**60, Count, "<= "),
        ("a.b", Key, "matching regex"),
        ("a\n", Key, "matching regex"),
    ],
)
def test_plain_data_is_checked_alike(value, schema, words):
    with pytest.raises(UserError, match=f"state: .*{words}.*; ask again"):
        check(value, schema, "state", "ask again")
