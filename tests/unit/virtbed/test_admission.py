from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.virtbed.conftest import DIGEST, PLATFORMS, report
from virtbed.design import design
from virtbed.image import image_key
from virtbed.plan import Plan
from virtbed.sweep import SweepError
from virtbed.sweep.admission import Admitted, _image, identity
from virtbed_contract.sweep import HostReport


def host(variant: str, **image: object) -> HostReport:
    found = report()
    facts = {"variant": variant, "digest": DIGEST, "key": image_key(variant), **image}
    return replace(found, facts={**found.facts, "image": facts})


def nulls(plan: Plan) -> Plan:
    return Plan.model_validate(
        plan.model_dump()
        | {"image": None, "applications": [{"name": None, "scale": "tiny", "samples": 6}]}
    )


def test_the_image_that_the_plan_names_is_the_one_that_runs(plan: Plan) -> None:
    asked = nulls(plan)
    assert (asked.image, asked.applications[0].name) == ("null", "null")  # unquoted in YAML
    assert _image(host("null"), asked) == DIGEST
    with pytest.raises(SweepError, match=r"image null .* other sources .*make setup PLAN=demo"):
        _image(host("cpu"), asked)  # a report on another image than was asked for
    with pytest.raises(SweepError, match="no image null found on this host"):
        _image(host("null", digest=None), asked)


def test_a_sweep_is_bound_to_the_variant_of_its_image(plan: Plan) -> None:
    def bound(asked: Plan) -> dict[str, str]:
        found = host(asked.image)
        found.facts["engines"] = {
            name: {"version": "1"} for role in PLATFORMS.roles.values() for name in role.engines
        }
        laid = design(asked, found, PLATFORMS)
        assert laid.document(asked, DIGEST, PLATFORMS, []).image == asked.image
        return identity(asked, Admitted(found, DIGEST, laid, False), PLATFORMS)

    assert bound(plan)["image variant"] == "cpu"
    assert bound(nulls(plan))["image variant"] == "null"
    assert plan.digest() != nulls(plan).digest()
