"""Documents out of YAML that nobody vouches for: the one reader of plans and of the lists of
platforms, images and role properties.

Of YAML it takes mappings with text keys, lists, texts, true and false, null, and plain numbers.
What YAML 1.1 reads as something else than a reader sees is refused, not guessed: a date, a number
in base 60 (``1:30``), 8 (``010``) or 2, a tag, a key that stands twice. So is what unpacks to more
than it looks: aliases, beyond a few.
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
"""Every value, each alias counted as what it stands for."""
MOST_DIGITS = 19
MOST_INVENTORY_BYTES = 2**20
MOST_INVENTORY_VALUES = 20_000
_ANSIBLE = {".yml", ".yaml", ".json"}
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_SIMPLE = "tag:yaml.org,2002:"
_KINDS = {"str", "int", "float", "bool", "null", "timestamp", "merge", "value"}


class YamlError(ValueError):
    """A file that is no YAML as it is needed here; the message says where and why."""


def read(path: Path) -> dict[str, Any]:
    """Return the mapping that a regular file holds.

    Raises:
        YamlError: it is no regular file, too large, no text, or not as this module needs it.
    """
    return parse(_text_of(path, MOST_BYTES), str(path))


def check_inventory(path: Path) -> None:
    """Check that Ansible, which reads inventories itself, can read one without harm.

    Ansible knows tags, dates and more, which are its own affair. What unpacks to more than it looks
    would take all memory there is.

    Args:
        path: A file, or a folder; its variables (group_vars, host_vars) are checked, too.

    Raises:
        YamlError: a file of it is too large, nested too deeply, or unpacks to too much.
    """
    around = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else [p for p in path.iterdir() if p.is_file()]
    # Without a suffix it may be YAML or INI; Ansible tries YAML first.
    files = [file for file in files if file.suffix in {"", *_ANSIBLE}]
    for kind in ("group_vars", "host_vars"):
        found = (around / kind).rglob("*")
        files += [p for p in found if p.suffix in {"", *_ANSIBLE} and p.is_file()]
    for file in sorted(files):
        try:
            _check_size(_text_of(file, MOST_INVENTORY_BYTES), str(file))
        except YamlError as error:
            other = file.suffix == "" and not isinstance(error.__cause__, _Refused)
            if not other or file.stat().st_size > MOST_INVENTORY_BYTES:
                raise


def _check_size(text: str, name: str) -> None:
    with _said(name), closing(_Loader(text, name, MOST_INVENTORY_VALUES)) as loader:
        while loader.check_node():
            _Size(MOST_INVENTORY_VALUES).of(loader.get_node())


def _text_of(path: Path, most: int) -> str:
    try:
        # Without O_NONBLOCK a FIFO would be waited for.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                raise YamlError(f"{path}: it is no regular file, a file of YAML needed")
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
    """Return the mapping of a text; what its texts hide is made visible (see `json_file.plain`).

    Raises:
        YamlError: it is not as this module needs it.
    """
    with _said(name), closing(_Loader(text, name, MOST_VALUES)) as loader:
        node = loader.get_single_node()
        value = _Builder().value(node) if node is not None else None
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise YamlError(f"{name}: {found} found, a mapping of keys needed")
    return value


@contextmanager
def _said(name: str) -> Iterator[None]:
    """Say in words, and with the file, what cannot be read."""
    try:
        yield
    # The last are PyYAML's own, for an escape like \U99999999.
    except (yaml.YAMLError, ValueError, IndexError, OverflowError) as error:
        raise YamlError(f"{name}: not readable as YAML: {plain(str(error))}") from error
    except RecursionError:
        raise YamlError(f"{name}: nested too deeply, at most {MOST_DEPTH} levels needed") from None


class _Refused(yaml.MarkedYAMLError):
    """YAML that is read by others, and not by us."""


def _refused(node: yaml.Node | yaml.Event, what: str) -> _Refused:
    mark: Any = node.start_mark
    return _Refused(None, None, what, mark)


class _Loader(yaml.SafeLoader):
    """Composes nodes; it constructs nothing."""

    def __init__(self, text: str, name: str, most: int) -> None:
        super().__init__(text)
        self.name = name
        self._most = most
        self._depth = self._nodes = 0

    def close(self) -> None:
        """Let go of the text."""
        self.dispose()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, no deeper than a document of ours."""
        self._depth += 1
        self._nodes += 1
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth > MOST_DEPTH:
            raise _refused(event, f"more than {MOST_DEPTH} levels found")
        if self._nodes > 2 * self._most:  # keys are nodes, too
            raise _refused(event, f"more than {self._most} values found")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Size:
    """Counts the values that a node stands for, each node once: fast, whatever it unpacks to."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[int, int | None] = {}

    def of(self, node: Any) -> int:
        known = self._sizes.get(id(node), 0)
        if known is None:
            raise _refused(node, "an alias of what it stands in found")
        if known:
            return known
        self._sizes[id(node)] = None
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        size = 1 + sum(map(self.of, parts))
        if size > 2 * self._most:
            raise _refused(node, f"more than {self._most} values found, aliases unpacked")
        self._sizes[id(node)] = size
        return size


class _Builder:
    """Makes values of nodes, and counts them: an alias counts as often as it stands."""

    def __init__(self) -> None:
        self._values = 0
        self._within: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _refused(node, f"more than {MOST_VALUES} values found, aliases unpacked")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._within:
            raise _refused(node, "an alias of what it stands in found")
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
        found = self.value(node)
        merged: dict[str, Any] = {}
        for part in found if isinstance(found, list) else [found]:
            if not isinstance(part, dict):
                raise _refused(node, f"<< with {type(part).__name__} found, a mapping needed")
            merged = part | merged  # the first counts
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
        node, f"{text[:40]!r} found, which YAML takes for {what}; put a text in quotes, or write a "
        "number in digits"
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
        raise _refused(node, f"the number {node.value} found, which is larger than any")
    return value
