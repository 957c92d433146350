"""Read untrusted YAML: plans, platforms.yml, images.yml and the properties of roles.

A strict subset of YAML is accepted: mappings with text keys, lists, texts, true and false, null,
and decimal numbers. Values that YAML 1.1 reads differently than they look are refused: a date, a
number in base 60 (``1:30``), 8 (``010``) or 2, a tag, a duplicate key. Aliases are accepted as long
as the document they expand to is small. Inventories, which Ansible reads itself, are only checked
for their size.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from virtbed_contract.json_file import plain

MOST_BYTES = 128 * 2**10
MOST_DEPTH = 32
MOST_VALUES = 5_000
"""Number of values of a document, with aliases expanded."""
MOST_DIGITS = 19
MOST_INVENTORY_BYTES = 2**20
MOST_INVENTORY_VALUES = 20_000
_ANSIBLE = {".yml", ".yaml", ".json"}
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_SIMPLE = "tag:yaml.org,2002:"
_KINDS = {"str", "int", "float", "bool", "null", "timestamp", "merge", "value"}


class YamlError(ValueError):
    """A file is not YAML of the accepted subset; the message says where and why."""


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a file.

    Raises:
        YamlError: it is no regular file, too large, no UTF-8 text, or not in the accepted subset.
    """
    return parse(_text_of(path, MOST_BYTES), str(path))


def check_inventory(path: Path) -> None:
    """Check that Ansible can read an inventory without running out of memory.

    Ansible reads inventories itself and accepts tags, dates and more, so only the size, the depth
    and the expanded aliases are checked.

    Args:
        path: An inventory file or folder; its group_vars and host_vars are checked, too.

    Raises:
        YamlError: a file is too large, nested too deeply, or expands to too many values.
    """
    around = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else [p for p in path.iterdir() if p.is_file()]
    # A file without a suffix may be YAML or INI; Ansible tries YAML first.
    files = [file for file in files if file.suffix in {"", *_ANSIBLE}]
    for kind in ("group_vars", "host_vars"):
        variables = (around / kind).rglob("*")
        files += [p for p in variables if p.suffix in {"", *_ANSIBLE} and p.is_file()]
    for file in sorted(files):
        try:
            _check_size(_text_of(file, MOST_INVENTORY_BYTES), str(file))
        except YamlError as error:
            other = file.suffix == "" and not isinstance(error.__cause__, _Refused)
            if not other or file.stat().st_size > MOST_INVENTORY_BYTES:
                raise


def _check_size(text: str, name: str) -> None:
    """Raise YamlError if a text is nested too deeply, or expands to too many values."""
    with _named(name), closing(_Loader(text, name, MOST_INVENTORY_VALUES)) as loader:
        while loader.check_node():
            _Size(MOST_INVENTORY_VALUES).of(loader.get_node())


def _text_of(path: Path, most: int) -> str:
    """Return the text of a regular file of at most `most` bytes."""
    try:
        # O_NONBLOCK: opening a FIFO would wait for a writer.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                raise YamlError(f"{path}: it is no regular file, a YAML file needed")
            content = b""
            while len(content) <= most and (part := os.read(opened, most + 1)):
                content += part
        finally:
            os.close(opened)
    except (OSError, ValueError) as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"{path}: not readable: {error}") from error
    if len(content) > most:
        raise YamlError(f"{path}: more than {most >> 10} KiB found, no more are read")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(f"{path}: not UTF-8 text: byte {error.start}") from error


def parse(text: str, name: str) -> dict[str, Any]:
    """Return the mapping in a text.

    Control characters and the like in its texts are made visible (see `json_file.plain`).

    Args:
        text: The YAML.
        name: The file's name, for messages.

    Raises:
        YamlError: the text is not in the accepted subset.
    """
    with _named(name), closing(_Loader(text, name, MOST_VALUES)) as loader:
        node = loader.get_single_node()
        value = _Builder().value(node) if node is not None else None
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise YamlError(f"{name}: {found} found, a mapping of keys needed")
    return value


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn errors of reading into YamlError with the file's name."""
    try:
        yield
    # PyYAML raises IndexError and OverflowError for an escape such as \U99999999.
    except (yaml.YAMLError, ValueError, IndexError, OverflowError) as error:
        raise YamlError(f"{name}: not readable as YAML: {plain(str(error))}") from error
    except RecursionError:
        raise YamlError(f"{name}: nested too deeply, at most {MOST_DEPTH} levels needed") from None


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML outside of the accepted subset."""


def _refused(node: yaml.Node | yaml.Event, what: str) -> _Refused:
    mark: Any = node.start_mark
    return _Refused(None, None, what, mark)


class _Loader(yaml.SafeLoader):
    """Composes nodes of limited number and depth; values are built by `_Builder`."""

    def __init__(self, text: str, name: str, most: int) -> None:
        super().__init__(text)
        self.name = name
        self._most = most
        self._depth = self._nodes = 0

    def close(self) -> None:
        """Free the text."""
        self.dispose()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, unless there are too many or it is too deep."""
        self._depth += 1
        self._nodes += 1
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth > MOST_DEPTH:
            raise _refused(event, f"more than {MOST_DEPTH} levels found")
        if self._nodes > 2 * self._most:  # twice, because keys are nodes, too
            raise _refused(event, f"more than {self._most} values found")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Size:
    """Counts the values that a node expands to, without expanding it: each node is visited once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[int, int | None] = {}

    def of(self, node: Any) -> int:
        """Return the number of values of a node, its keys included."""
        known = self._sizes.get(id(node), 0)
        if known is None:
            raise _refused(node, "an alias of the value that contains it found")
        if known:
            return known
        self._sizes[id(node)] = None
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        size = 1 + sum(map(self.of, parts))
        if size > 2 * self._most:
            raise _refused(node, f"more than {self._most} values found, aliases expanded")
        self._sizes[id(node)] = size
        return size


class _Builder:
    """Builds values from nodes, and counts them with aliases expanded."""

    def __init__(self) -> None:
        self._values = 0
        self._within: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        """Return the value of a node: a mapping, a list or a scalar."""
        self._values += 1
        if self._values > MOST_VALUES:
            raise _refused(node, f"more than {MOST_VALUES} values found, aliases expanded")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._within:
            raise _refused(node, "an alias of the value that contains it found")
        self._within.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                _check_tag(node, "seq")
                return [self.value(item) for item in node.value]
            _check_tag(node, "map")
            return self._mapping(node)
        finally:
            self._within.discard(id(node))

    def _mapping(self, node: yaml.Node) -> dict[str, Any]:
        """Return a mapping; its own keys override merged ones (<<)."""
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_SIMPLE}merge":
                merged = self._merged(value_node) | merged
                continue
            key = self.value(key_node)
            if not isinstance(key, str):
                raise _refused(key_node, f"key {str(key)[:40]!r} found, a text needed as a key")
            if key in own:
                raise _refused(key_node, f"key {key[:80]!r} is given twice; once is needed")
            own[key] = self.value(value_node)
        return merged | own

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        """Return the mapping of the merge key <<, from one mapping or a list of them."""
        value = self.value(node)
        merged: dict[str, Any] = {}
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise _refused(node, f"<< with {type(part).__name__} found, a mapping needed")
            merged = part | merged  # earlier mappings take precedence
        return merged


def _check_tag(node: yaml.Node, kind: str) -> None:
    if node.tag != f"{_SIMPLE}{kind}":
        raise _refused(node, f"the tag {node.tag[:80]!r} found, a value without a tag needed")


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return a text, a number, true, false or null."""
    kind = node.tag.removeprefix(_SIMPLE)
    text = node.value
    if kind not in _KINDS:
        raise _refused(node, f"the tag {node.tag[:80]!r} found, a value without a tag needed")
    if kind in {"str", "value"} or node.style is not None:
        return _text(node, kind)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in {"true", "yes", "on"}
    if kind in {"int", "float"} and _NUMBER.fullmatch(text):
        return _number(node, kind)
    what = "a date" if kind == "timestamp" else "a number in another notation"
    raise _refused(
        node, f"{text[:40]!r} found, which YAML reads as {what}; put a text in quotes, or write a "
        "number in decimal digits"
    )  # fmt: skip


def _text(node: yaml.ScalarNode, kind: str) -> str:
    if kind not in {"str", "value"}:
        raise _refused(node, f"the tag {node.tag[:80]!r} found, a value without a tag needed")
    return plain(node.value)


def _number(node: yaml.ScalarNode, kind: str) -> int | float:
    digits = sum(map(str.isdigit, node.value))
    if digits > MOST_DIGITS:
        raise _refused(node, f"a number of {digits} digits found, at most {MOST_DIGITS} are read")
    value = int(node.value) if kind == "int" else float(node.value)
    if not math.isfinite(value):
        raise _refused(node, f"the number {node.value} found, which is too large")
    return value
