"""Codec between documents and JSON: decoder, encoder and JSON Schemas.

A document is a frozen dataclass. Its fields may be ``int``, ``float``, ``str``, ``bool``, ``Any``,
``Optional[...]``, ``Literal[...]``, ``tuple[X, ...]``, ``dict[str, X]`` and other documents. What a
type cannot express (limits, patterns, meaning) is in the field's metadata: see `described`. A type
that several fields share can carry limits: ``Count = Annotated[int, Limits(minimum=0)]``.

>>> @dataclasses.dataclass(frozen=True)
... class Size:
...     cores: int = described("Number of CPUs.", minimum=1)
>>> decode(Size, {"cores": 2})
Size(cores=2)
>>> decode(Size, {"cores": 0}, "size.json")
Traceback (most recent call last):
    ...
virtbed_contract.codec.DocumentError: size.json.cores: 0 found, minimum 1 needed
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import reprlib
import types
from collections.abc import Callable, Iterable
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)  # fmt: skip

Json = dict[str, Any]
Document = TypeVar("Document")
_Decoder = Callable[[Any, str], Any]

_UNIONS = (Union, getattr(types, "UnionType", Union))  # of `X | None`, from Python 3.10 on
_JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}
_WORDS = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false",
    tuple: "a list", dict: "a mapping",
}  # fmt: skip
# Limits that `described` takes, and the keyword of JSON Schema for each.
_KEYWORDS = {
    "const": "const",
    "enum": "enum",
    "minimum": "minimum",
    "above": "exclusiveMinimum",
    "maximum": "maximum",
    "pattern": "pattern",
    "format": "format",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_items": "minItems",
}


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # In Python, a dollar also matches before a final line feed; in JSON Schema it does not.
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "const": lambda value, bound: bool(value == bound),
    "enum": lambda value, bound: value in bound,
    "minimum": lambda value, bound: bool(value >= bound),
    "above": lambda value, bound: bool(value > bound),
    "maximum": lambda value, bound: bool(value <= bound),
    "pattern": lambda value, bound: _compiled(bound).search(value) is not None,
    "format": lambda value, bound: True,  # an annotation, as in JSON Schema
    "min_length": lambda value, bound: len(value) >= bound,
    "max_length": lambda value, bound: len(value) <= bound,
    "min_items": lambda value, bound: len(value) >= bound,
}


class DocumentError(ValueError):
    """A document does not match its dataclass; the message has place, value found and needed."""


class Limits:
    """Limits of a type, for ``Annotated``; takes the limits of `described`."""

    def __init__(self, **limits: Any) -> None:
        unknown = limits.keys() - _KEYWORDS.keys()
        if unknown:
            raise TypeError(f"limits: {', '.join(sorted(unknown))} found; known: {list(_KEYWORDS)}")
        self.values = limits


def described(
    meaning: str,
    *,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
    **limits: Any,
) -> Any:
    """Return a dataclass field with a meaning and limits.

    Args:
        meaning: One sentence, the description in schemas and in the reference.
        default: Default of the field, if it has one.
        factory: Function that returns the default, if that is a mapping.
        **limits: ``const``, ``enum``, ``minimum``, ``above`` (exclusive), ``maximum``,
            ``pattern``, ``format``, ``min_length``, ``max_length`` and ``min_items``, as in JSON
            Schema.
    """
    metadata = {"meaning": meaning, "limits": Limits(**limits).values}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def with_fields(
    fields: Iterable[tuple[str, Any, Any]],
) -> Callable[[type[Document]], type[Document]]:
    """Return a decorator that adds fields to a document, such as one per entry of a registry.

    Args:
        fields: Name, type and `described` field of each.
    """
    added = list(fields)

    def extended(kind: type[Document]) -> type[Document]:
        kept = {"__doc__": kind.__doc__, "__module__": kind.__module__}
        return dataclasses.make_dataclass(
            kind.__name__, added, bases=(kind,), namespace=kept, frozen=True
        )

    return extended


def encode(document: Any) -> Any:
    """Return a document as JSON values: dictionaries, lists, numbers, strings."""
    if dataclasses.is_dataclass(document):
        return {f.name: encode(getattr(document, f.name)) for f in dataclasses.fields(document)}
    if isinstance(document, (list, tuple)):
        return [encode(item) for item in document]
    if isinstance(document, dict):
        return {str(key): encode(value) for key, value in document.items()}
    return document


def decode(kind: type[Document], value: Any, where: str = "") -> Document:
    """Return a document decoded from JSON values.

    Args:
        kind: The dataclass of the document.
        value: JSON values, as ``json.loads`` returns them.
        where: Prefix of error messages, such as the name of a file.

    Raises:
        DocumentError: A key is missing or unknown, or a value has another type or is outside its
            limits. The message has the place, the value found and what is needed.
    """
    if not isinstance(value, dict):
        raise DocumentError(f"{where or kind.__name__}: {_shown(value)} found, a mapping needed")
    fields = _fields(kind)  # type: ignore[arg-type]  # a dataclass
    for key in value:
        if key not in fields:
            raise DocumentError(
                f"{_at(where, str(key)[:80])}: unknown key; {kind.__name__} has {', '.join(fields)}"
            )
    decoded = {}
    for name, (field, decoder) in fields.items():
        if name in value:
            decoded[name] = decoder(value[name], _at(where, name))
        elif _required(field):
            raise DocumentError(f"{_at(where, name)}: missing; {_meaning(field)}")
    return kind(**decoded)


def json_schema(kind: type) -> Json:
    """Return the JSON Schema (draft 2020-12) of a dataclass; unknown keys are refused."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.__name__,
        "description": inspect.getdoc(kind) or "",
        **_schema_of(kind),
    }


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _limits(field: dataclasses.Field[Any]) -> Json:
    return field.metadata.get("limits", {})  # type: ignore[no-any-return]  # metadata is untyped


def _meaning(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("meaning", ""))


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _optional(hint: Any) -> Optional[Any]:
    """Return X of ``Optional[X]``; None for another type."""
    if get_origin(hint) in _UNIONS:
        rest = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return None


def _shown(value: Any) -> str:
    text = _REPR.repr(value)  # of a value that may be large, and of any depth
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def _fields(kind: Any) -> dict[str, tuple[dataclasses.Field[Any], _Decoder]]:
    """Return each field of a dataclass with the function that decodes its value, by name."""
    hints = _hints(kind)
    return {
        field.name: (field, _limited(_decoder(hints[field.name]), _limits(field)))
        for field in dataclasses.fields(kind)
    }


def _decoder(hint: Any) -> _Decoder:
    """Return the function that decodes values of a type.

    A type is analysed once here, since doing it for each value would be slow.
    """
    if hint is Any:
        return lambda value, where: value
    if get_origin(hint) is Annotated:
        kind, limits = get_args(hint)
        return _limited(_decoder(kind), limits.values)
    inner = _optional(hint)
    if inner is not None:
        decoder = _decoder(inner)
        return lambda value, where: None if value is None else decoder(value, where)
    if dataclasses.is_dataclass(hint):
        return lambda value, where: decode(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _literal(arguments)
    if origin is tuple:
        return _list(_decoder(arguments[0]))
    if origin is dict:
        return _mapping(_decoder(arguments[1]))
    return _plain(hint)


def _literal(known: tuple[Any, ...]) -> _Decoder:
    def decoded(value: Any, where: str) -> Any:
        if value not in known or isinstance(value, bool) != isinstance(known[0], bool):
            listed = ", ".join(map(str, known))
            raise DocumentError(f"{where}: {_shown(value)} found, one of {listed} needed")
        return value

    return decoded


def _list(decoder: _Decoder) -> _Decoder:
    def decoded(value: Any, where: str) -> Any:
        if not isinstance(value, (list, tuple)):
            raise DocumentError(f"{where}: {_shown(value)} found, {_WORDS[tuple]} needed")
        try:
            return tuple([decoder(item, where) for item in value])
        except DocumentError:  # decode again with each place, which is slow, for the message
            return tuple([decoder(item, f"{where}[{n}]") for n, item in enumerate(value)])

    return decoded


def _mapping(decoder: _Decoder) -> _Decoder:
    def decoded(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise DocumentError(f"{where}: {_shown(value)} found, {_WORDS[dict]} needed")
        try:
            return {str(key): decoder(item, where) for key, item in value.items()}
        except DocumentError:  # decode again with each place, which is slow, for the message
            return {str(key): decoder(item, _at(where, str(key))) for key, item in value.items()}

    return decoded


def _plain(kind: Any) -> _Decoder:
    def decoded(value: Any, where: str) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise DocumentError(f"{where}: {_shown(value)} found, {_WORDS[kind]} needed")

    return decoded


def _limited(decoder: _Decoder, limits: Json) -> _Decoder:
    """Return a decoder that also checks limits."""
    if not limits:
        return decoder
    checks = [(_CHECKS[limit], limit, bound) for limit, bound in limits.items()]

    def decoded(value: Any, where: str) -> Any:
        found = decoder(value, where)
        for holds, limit, bound in checks if found is not None else ():
            if not holds(found, bound):
                raise DocumentError(
                    f"{where}: {_shown(found)} found, {limit.replace('_', ' ')} {bound} needed"
                )
        return found

    return decoded


def _schema_of(hint: Any) -> Json:
    if hint is Any:
        return {}
    if get_origin(hint) is Annotated:
        kind, limits = get_args(hint)
        return {**_schema_of(kind), **_keywords(limits.values)}
    inner = _optional(hint)
    if inner is not None:
        return {"anyOf": [_schema_of(inner), {"type": "null"}]}
    if dataclasses.is_dataclass(hint):
        return _object_schema(hint)  # type: ignore[arg-type]  # a dataclass
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1])}
    return {"type": _JSON_TYPES[hint]}


def _keywords(limits: Json) -> Json:
    return {
        _KEYWORDS[limit]: list(bound) if isinstance(bound, tuple) else bound
        for limit, bound in limits.items()
    }


def _object_schema(kind: type) -> Json:
    hints = _hints(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        schema = _schema_of(hints[field.name])
        limits = _keywords(_limits(field))
        if "anyOf" in schema:
            schema["anyOf"][0].update(limits)
        else:
            schema.update(limits)
        if _meaning(field):
            schema["description"] = _meaning(field)
        properties[field.name] = schema
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [f.name for f in dataclasses.fields(kind) if _required(f)],
        "properties": properties,
    }
