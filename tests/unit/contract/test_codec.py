# ruff: noqa: RUF009
"""Tests of the codec: documents to JSON and back, limits, and schemas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jsonschema
import pytest

from virtbed_contract.codec import (
    DocumentError,
    Limits,
    decode,
    described,
    encode,
    json_schema,
    with_fields,
)

Count = Annotated[int, Limits(minimum=0)]


@dataclass(frozen=True)
class Part:
    """A part."""

    at: Count = described("Where it is.")
    word: Annotated[str, Limits(pattern="^[a-z]+$")] | None = described("Or null.", default=None)


@with_fields([("kind", str, described("Added.", enum=("a", "b")))])
@dataclass(frozen=True)
class Whole:
    """A whole."""

    schema: str = described("Version.", const="whole/1")
    parts: tuple[Part, ...] = described("Its parts.", min_items=1)
    share: float = described("A share.", above=0, maximum=1)
    counts: dict[str, Count] = described("Counts by name.")
    side: Literal["left", "right"] = described("Its side.")


GOOD: dict[str, Any] = {
    "schema": "whole/1",
    "parts": [{"at": 0, "word": "x"}, {"at": 3, "word": None}],
    "share": 0.5,
    "counts": {"a": 1},
    "side": "left",
    "kind": "b",
}


def test_decoding_and_encoding_are_inverse() -> None:
    whole = decode(Whole, GOOD)
    assert (whole.parts[1].at, whole.kind) == (3, "b")  # type: ignore[attr-defined]
    assert encode(whole) == GOOD
    jsonschema.validate(GOOD, json_schema(Whole))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "whole/2"}, r"schema: 'whole/2' found, const whole/1 needed"),
        ({"parts": []}, r"parts: \(\) found, min items 1 needed"),
        ({"parts": [{"at": -1}]}, r"parts\[0\].at: -1 found, minimum 0 needed"),
        ({"parts": [{"at": True}]}, r"parts\[0\].at: True found, a whole number needed"),
        ({"parts": [{"at": 1, "word": "X"}]}, r"parts\[0\].word: 'X' found, pattern"),
        ({"parts": [{"at": 1, "more": 2}]}, r"parts\[0\].more: unknown key; Part has at, word"),
        ({"share": 0}, r"share: 0.0 found, above 0 needed"),
        ({"share": "x"}, r"share: 'x' found, a number needed"),
        ({"counts": {"a": -1}}, r"counts.a: -1 found, minimum 0 needed"),
        ({"side": "up"}, r"side: 'up' found, one of left, right needed"),
        ({"kind": "c"}, r"kind: 'c' found, enum \('a', 'b'\) needed"),
        ({"parts": None}, r"parts: None found, a list needed"),
    ],
)
def test_decoder_and_schema_refuse_the_same_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        decode(Whole, GOOD | change)
    assert not jsonschema.Draft202012Validator(json_schema(Whole)).is_valid(GOOD | change)


@pytest.mark.parametrize("missing", GOOD)
def test_every_field_without_a_default_is_required(missing: str) -> None:
    less = {key: value for key, value in GOOD.items() if key != missing}
    with pytest.raises(DocumentError, match=f"file: .*{missing}: missing|file.{missing}: missing"):
        decode(Whole, less, "file")
    assert not jsonschema.Draft202012Validator(json_schema(Whole)).is_valid(less)


def test_a_schema_has_the_descriptions_of_fields() -> None:
    schema = json_schema(Whole)
    assert (schema["title"], schema["description"]) == ("Whole", "A whole.")
    assert schema["properties"]["kind"] == {
        "type": "string", "enum": ["a", "b"], "description": "Added.",
    }  # fmt: skip
    assert schema["properties"]["schema"]["const"] == "whole/1"
    assert schema["properties"]["counts"]["additionalProperties"] == {
        "type": "integer", "minimum": 0,
    }  # fmt: skip


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="least found"):
        described("x", least=1)
