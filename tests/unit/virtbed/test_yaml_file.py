"""Reading any YAML file gives a mapping or a YamlError with a message, and takes little time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from virtbed import yaml_file
from virtbed.checkout import REPOSITORY
from virtbed.yaml_file import YamlError, parse, read

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{this}: &{this} [{','.join([f'*{before}'] * 9)}]\n"
    for before, this in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = [
    ("a: 1\na: 2", "key 'a' is given twice; once is needed"),
    ("a: {b: 1, 'b': 2}", "key 'b' is given twice"),
    (BOMB, "more than 5000 values found, aliases expanded"),
    ("a: &a [*a]", "an alias of the value that contains it found"),
    ("a: &a {b: *a}", "an alias of the value that contains it found"),
    ("a: 2024-01-01", "'2024-01-01' found, which YAML reads as a date"),
    ("a: 2024-01-01 10:00:00", "which YAML reads as a date"),
    ("a: 1:30", "'1:30' found, which YAML reads as a number in another notation"),
    ("a: 010", "another notation"),
    ("a: 0x10", "another notation"),
    ("a: 1_000", "another notation"),
    ("a: .nan", "another notation"),
    ("a: -.inf", "another notation"),
    ("a: " + "9" * 5000, "a number of 5000 digits found, at most 19 are read"),
    ("a: 1.0e+400", "the number 1.0e.400 found, which is too large"),
    ("a: !!python/object:os.system x", "the tag .*os.system' found"),
    ("a: !!set {x}", "the tag .*set' found"),
    ("a: !!binary aGk=", "the tag .*binary' found"),
    ("a: !x [1]", "the tag '!x' found"),
    ("? [1, 2]\n: 3", r"key '\[1, 2\]' found, a text needed as a key"),
    ("1: 2", "key '1' found, a text needed as a key"),
    ("<<: 5", "<< with int found"),
    ("a: " + "[" * 40 + "]" * 40, "more than 32 levels found"),
    ("[" * 5000, "more than 32 levels found"),
    ("a: [" + "x," * 30_000 + "]", "more than 5000 values found"),
    ("--- a\n--- b", "expected a single document"),
    ("- a", "p.yml: list found, a mapping of keys needed"),
    ("", "p.yml: nothing found, a mapping of keys needed"),
    ("a: \x07", "unacceptable character"),
    ('a: "\\U99999999"', "p.yml: not readable as YAML"),
    ("a: *b", "found undefined alias"),
    ("%YAML 9.9\n---\na: 1", "incompatible YAML document"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:20] for text, _ in REFUSED])
def test_ambiguous_values_and_large_expansions_are_refused(text: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(YamlError, match=message) as raised:
        parse(text, "p.yml")
    assert "p.yml" in str(raised.value)
    assert len(str(raised.value)) < 400
    assert time.process_time() - started < 10


def test_the_message_names_file_line_and_column() -> None:
    with pytest.raises(YamlError, match=r'in "p.yml", line 3, column 1'):
        parse("a: 1\nb: 2\na: 3", "p.yml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: [1, -2, 0.5, 1.5e+3, x, yes, No, null, ~, '010', \"2024-01-01\"]",
         [1, -2, 0.5, 1500.0, "x", True, False, None, None, "010", "2024-01-01"]),
        ("a: &b {c: 1}\nd: *b", {"c": 1}),
        ("b: &b {c: 1, d: 2}\na: {<<: *b, d: 3}", {"c": 1, "d": 3}),
        ("b: &b {c: 1}\na: {<<: [{c: 0}, *b]}", {"c": 0}),
        ('a: "\\ud800\\e[2J"', "\\ud800\\x1b[2J"),
        ("a: '\u202egnp'", "\\u202egnp"),
        ("a: |\n  x\n  y\n", "x\ny\n"),
    ],
)  # fmt: skip
def test_plain_values_are_read(text: str, value: object) -> None:
    assert parse(text, "p.yml")["a"] == value


def large(path: Path) -> None:
    path.write_text("a: " + "x" * 2**20)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "not readable"),
        (Path.mkdir, "no regular file"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
        (large, "more than 128 KiB found"),
        (lambda path: path.write_bytes(b"a: \xff"), "not UTF-8 text: byte 3"),
    ],
)
def test_a_path_that_is_no_text_file_is_refused_with_a_message(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "p.yml"
    make(path)
    with pytest.raises(YamlError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_every_yaml_file_of_the_checkout_is_read() -> None:
    files = [*REPOSITORY.glob("plans/*.yml"), *REPOSITORY.glob("roles/*/meta/virtbed.yml")]
    assert len(files) > 9
    for path in files:
        assert read(path)


def test_no_other_module_of_the_controller_reads_yaml() -> None:
    sources = (REPOSITORY / "python" / "virtbed").rglob("*.py")
    readers = [
        path
        for path in sources
        if "yaml.load" in path.read_text() or "safe_load" in path.read_text()
    ]
    assert readers == []
    assert yaml_file.MOST_DEPTH < 64


@pytest.mark.parametrize("where", ["hosts.yml", "group_vars/all.yml", "host_vars/h", "x.json", "x"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 20000 values found, aliases expanded"),
        ("a: &a [*a]", "an alias of the value that contains it"),
        ("[" * 5000, "more than 32 levels found"),
        ("a: " + "x" * 2**21, "more than 1024 KiB found"),
    ],
)
def test_an_inventory_that_would_exhaust_ansibles_memory_is_refused(
    tmp_path: Path, where: str, text: str, message: str
) -> None:
    path = tmp_path / where
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (tmp_path / "hosts").write_text("[bench]\nlocalhost\n")
    started = time.process_time()
    with pytest.raises(YamlError, match=f"{where}: .*{message}"):
        yaml_file.check_inventory(tmp_path)
    assert time.process_time() - started < 10


def test_tags_and_dates_in_inventories_are_left_to_ansible(tmp_path: Path) -> None:
    text = "a: !vault |\n  x\nb: 2024-01-01\nc: &c [1]\nd: [*c, *c]\n---\ne: 010\n"
    (tmp_path / "hosts.yml").write_text(text)
    yaml_file.check_inventory(tmp_path / "hosts.yml")
    for inventory in (REPOSITORY / "inventory").iterdir():
        yaml_file.check_inventory(inventory)
