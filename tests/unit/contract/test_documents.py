"""Tests of the documents' schemas and decoders, and of their identifiers."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from virtbed_contract import identifiers, schemas
from virtbed_contract.codec import DocumentError, decode, encode, json_schema
from virtbed_contract.factors import FACTORS
from virtbed_contract.measures import MEASURES
from virtbed_contract.result import Measures, Result
from virtbed_workloads.schema import result_schema

from ..analysis.conftest import Folder, sample

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = Folder(tmp_path_factory.mktemp("results") / "quick")
    return folder.result(folder.plan("cn", "vanilla", 1), [sample("a.png", 20.0, (0.2, 0.1))])


def test_a_complete_result_is_accepted(result: dict[str, Any]) -> None:
    jsonschema.validate(result, result_schema())
    assert encode(decode(Result, result)) == result | {
        "measures": encode(Measures()), "neighbours": [],
    }  # fmt: skip


def change(*path: Any, to: Any) -> Callable[[Any], None]:
    def changed(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return changed


REFUSED = {
    "another version": change("schema", to="virtbed.result/3"),
    "an unknown key": change("extra", to=1),
    "an unknown key of the trial": change("trial", "extra", to=1),
    "an unknown measure": change("measures", to={"extra": 1.0}),
    "an id of another grammar": change("trial", "id", to="cn-vanilla-1"),
    "an id with an unknown mode": change("trial", "id", to="cn-fast-c01-faces-r01"),
    "a platform that is no name": change("trial", "platform", to="a b"),
    "a machine that is no name": change("trial", "machine", to="KVM!"),
    "an enclosure that is no name": change("trial", "enclosure", to=""),
    "an unknown value of a factor": change("trial", "thread_policy", to="many"),
    "an unknown mode": change("trial", "mode", to="fast"),
    "an unknown scale": change("trial", "scale", to="huge"),
    "no cores": change("trial", "cores", to=0),
    "a quota of zero": change("trial", "quota_cpus", to=0),
    "an unknown accelerator": change("trial", "accelerator", to="xen"),
    "a truncated digest": change("trial", "image_digest", to="sha256:abc"),
    "replicate zero": change("trial", "replicate", to=0),
    "a wrong answer": change("answers", "wrong", to=1),
    "no answers": change("answers", "by_input", to=[]),
    "no samples": change("samples", to=[]),
    "half a nanosecond": change("samples", 0, "e2e_ns", to=1.5),
    "a negative time": change("samples", 0, "pre_ns", to=-1),
    "a sample without a name": change("samples", 0, "input", to=""),
    "a text for a number": change("settings", "seed", to="2112"),
    "an unknown scenario": change("settings", "scenario", to="burst"),
    "a rate of zero": change("settings", "target_qps", to=0),
    "a missing time of the start-up": change("startup", "import_ns", to=None),
    "negative memory": change("memory_kib", "peak", to=-1),
    "an unknown cgroup version": change("environment", "cgroup", "version", to=3),
    "no affinity": change("environment", "affinity", to=[]),
    "a CPU below zero": change("environment", "affinity", to=[-1]),
    "a negative share": change("confounders", "steal_share", to=-0.1),
    "throttling without its time": change("confounders", "throttling", to={"periods": 1}),
    "an unknown verdict": change("loadgen", "validity", to="MAYBE"),
    "a negative percentile": change("loadgen", "percentiles_ns", to={"50.00": -1}),
    "a number instead of a boolean": change("samples", 0, "warmup", to=1),
}  # fmt: skip


@pytest.mark.parametrize("spoil", REFUSED.values(), ids=REFUSED)
def test_schema_and_decoder_refuse(result: dict[str, Any], spoil: Callable[[Any], None]) -> None:
    broken = copy.deepcopy(result)
    spoil(broken)
    assert not jsonschema.Draft202012Validator(result_schema()).is_valid(broken)
    with pytest.raises(DocumentError):
        decode(Result, broken)


ACCEPTED = {
    "a kernel that does not count steal": change("confounders", "steal_share", to=None),
    "a kernel that does not report where threads ran": change("confounders", "ran_on", to=[]),
    "no count of page faults": change("rusage", "major_faults", to=None),
    "no control group": change("environment", "cgroup", "version", to=None),
    "no throttling": change("confounders", "throttling", to=None),
    "a platform that was added": change("trial", "platform", to="podman_2"),
    "no launcher": change("startup", "spawn_ns", to=None),
}


@pytest.mark.parametrize("vary", ACCEPTED.values(), ids=ACCEPTED)
def test_schema_and_decoder_accept(result: dict[str, Any], vary: Callable[[Any], None]) -> None:
    varied = copy.deepcopy(result)
    vary(varied)
    jsonschema.validate(varied, result_schema())
    decode(Result, varied)


def required(schema: dict[str, Any], path: str = "") -> list[str]:
    found = [f"{path}{name}" for name in schema.get("required", [])]
    for name, inner in schema.get("properties", {}).items():
        found += required(inner, f"{path}{name}.")
    return found


def test_every_part_of_a_result_is_required(result: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(result_schema())
    names = required(result_schema())
    assert len(names) > 100
    for name in names:
        less = copy.deepcopy(result)
        *path, last = name.split(".")
        place = less
        for key in path:
            place = place[key]
        if isinstance(place, dict):
            del place[last]
            assert not validator.is_valid(less), name


def test_a_trial_has_one_field_per_factor() -> None:
    for kind in ("result", "design"):
        schema = schemas.SCHEMAS[kind]()["properties"]
        trial = schema["trial"] if kind == "result" else schema["trials"]["items"]
        for factor in FACTORS:
            assert trial["properties"][factor.name]["enum"] == list(factor.values)
            assert (factor.name in trial["required"]) != factor.later


def test_every_measure_is_in_a_result() -> None:
    """A measure of samples needs a field of `Sample`; others need any field, or `measures`."""
    whole = result_schema()
    for measure in MEASURES:
        place = whole["properties"]["samples"]["items"] if measure.grain == "sample" else whole
        for key in measure.path:
            assert key in place["properties"], measure.name
            place = place["properties"][key]


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_every_schema_is_valid_and_describes_every_field(name: str) -> None:
    schema = schemas.SCHEMAS[name]()
    jsonschema.Draft202012Validator.check_schema(schema)

    def described(part: dict[str, Any], path: str) -> None:
        for key, inner in part.get("properties", {}).items():
            assert inner.get("description"), f"{path}.{key}"
            described(inner, f"{path}.{key}")
        for inner in [*([part["items"]] if "items" in part else []), *part.get("anyOf", [])]:
            described(inner, path)

    described(schema, name)


def test_identifiers_are_defined_in_one_place() -> None:
    """Other modules import them, so that all readers agree on the versions."""
    known = [value for key, value in vars(identifiers).items() if key.isupper()]
    assert len(known) == len(set(known)) and all(
        re.fullmatch(r"virtbed\.[a-z]+/\d+", k) for k in known
    )
    owned = [
        REPOSITORY / "analysis",
        REPOSITORY / "contract",
        REPOSITORY / "python",
        REPOSITORY / "workloads",
    ]
    for path in (file for folder in owned for file in folder.rglob("*.py")):
        if path.name != "identifiers.py":
            literals = re.findall(r'"virtbed\.[a-z]+/\d+"', path.read_text(encoding="utf-8"))
            assert not literals, f"{path}: {literals}"


def test_a_schema_is_generated_from_its_dataclass() -> None:
    for name, kind in schemas.DOCUMENTS.items():
        assert schemas.SCHEMAS[name]() == json_schema(kind)
