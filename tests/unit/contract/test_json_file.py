"""Tests that reading any file returns a mapping or raises DocumentError, without waiting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError


def holding(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def linked(path: Path) -> None:
    path.with_name("real").write_text("{}")
    path.symlink_to("real")


FILES: list[tuple[str, Callable[[Path], object]]] = [
    ("no it.json in its folder", lambda path: None),
    ("symbolic link", linked),
    ("symbolic link", lambda path: path.symlink_to("/dev/zero")),
    ("no regular file", os.mkfifo),
    ("no regular file", Path.mkdir),
    ("not JSON", holding(b"")),
    ("not UTF-8 text: byte 1", holding(b"{\xff}")),
    ("not JSON", holding(b'\xef\xbb\xbf{"a": 1}')),
    ("holds a list", holding(b"[1]")),
    ("nested too deeply", holding(b'{"a":' + b"[" * 100_000)),
    ("holds NaN", holding(b'{"a": NaN}')),
    ("holds -Infinity", holding(b'{"a": -Infinity}')),
    ("holds the number 1e999", holding(b'{"a": 1e999}')),
    ("9223372036854775807 is the largest", holding(b'{"a": 9223372036854775808}')),
    ("9223372036854775807 is the largest", holding(b'{"a": ' + b"9" * 5000 + b"}")),
]


@pytest.mark.parametrize(("reason", "make"), FILES)
def test_a_file_that_cannot_be_read_is_reported(
    tmp_path: Path, reason: str, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "it.json"
    make(path)
    with pytest.raises(DocumentError, match=reason) as raised:
        json_file.read(path)
    assert len(str(raised.value)) < 200


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "MOST_BYTES", 2**20)
    path = tmp_path / "it.json"
    with path.open("wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(DocumentError, match="1 MiB, at most 1 MiB are read"):
        json_file.read(path)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (r'"\u001b[2J\u0007"', r"\x1b[2J\x07"),
        ('"\x9b31m"', r"\x9b31m"),
        (r'"\ud800"', r"\ud800"),
        ('"\u202egnp"', r"\u202egnp"),
        (r'"a\rb"', r"a\rb"),
        (r'"a\nb\tc"', "a\nb\tc"),
        (r'"C:\\backup"', "C:\\backup"),
        ('"Größe 日本 \U0001f600"', "Größe 日本 \U0001f600"),
        (r'"\ud83d\ude00"', "\U0001f600"),
    ],
)
def test_invisible_characters_in_strings_are_escaped(text: str, seen: str) -> None:
    assert json_file.parse(f'{{"a": [{text}]}}') == {"a": [seen]}
    assert list(json_file.parse(f"{{{text}: 1}}")) == [seen]


def test_the_largest_numbers_are_read() -> None:
    text = '{"a": 9223372036854775807, "b": -9223372036854775807, "c": 1e308}'
    assert json_file.parse(text) == {"a": 2**63 - 1, "b": 1 - 2**63, "c": 1e308}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', r"has the key 'b' twice in one object, once is needed"),
        ('{"a":' * 64 + "1" + "}" * 64, None),
        ('{"a":' * 66 + "1" + "}" * 66, "nested too deeply: at most 64 objects and lists"),
        ('{"a": ' + "[" * 65 + "]" * 65 + "}", "nested too deeply"),
        ('{"a": 1,\n "b": NaN}', r"holds NaN, which is no number of JSON \(line 2, column 7\)"),
        ('{"a": 1e400}', r"holds the number 1e400, .* \(line 1, column 7\)"),
        ('{"a": "NaN", "b": NaN}', r"holds NaN, which is no number of JSON$"),
    ],
)
def test_json_that_readers_interpret_differently_is_refused(text: str, message: str | None) -> None:
    if message is None:
        json_file.parse(text)
        return
    with pytest.raises(DocumentError, match=message):
        json_file.parse(text)


def test_more_values_than_any_result_has_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "MOST_VALUES", 100)
    json_file.parse('{"a": [' + ",".join(["0"] * 97) + "]}")
    with pytest.raises(DocumentError, match="the document holds 101 values, at most 100 are read"):
        json_file.parse('{"a": [' + ",".join(["[]"] * 50) + "]}")


def test_a_large_text_must_be_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "MOST_WIDE_BYTES", 100)
    json_file.parse_bytes(b'{"a": "' + b"x" * 200 + b'"}')
    with pytest.raises(DocumentError, match=r"at most 0 MiB of text that is not ASCII are read"):
        json_file.parse_bytes(b'{"a": "' + "é".encode() * 100 + b'"}')
