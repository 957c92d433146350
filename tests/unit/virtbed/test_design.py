from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbed.design import Design, design
from virtbed.placement import PlacementError
from virtbed.plan import Plan
from virtbed.sweep.admission import Admitted, identity
from virtbed.trial import isa_needed
from virtbed_contract.codec import decode, encode
from virtbed_contract.documents import Instance, TrialRequest, image_name
from virtbed_contract.kernel.cpus import parse_cpu_list
from virtbed_contract.sweep import Design as DesignDocument
from virtbed_contract.sweep import HostReport

from . import machines
from .conftest import DIGEST, PLATFORMS, report


def test_every_replicate_is_one_pass_over_every_cell(plan: Plan) -> None:
    trials = design(plan, report(guests="available"), PLATFORMS).trials
    cells = Counter((t.instance.platform, t.instance.mode, t.instance.cores) for t in trials)
    # bm vanilla runs only where it takes every CPU
    assert ("bm", "vanilla", 1) not in cells
    assert ("bm", "vanilla", 2) in cells
    assert len(cells) == 1 + 2 + 4 + 2 + 2
    assert set(cells.values()) == {plan.replicates}
    assert [t.position for t in trials] == list(range(1, len(trials) + 1))
    per_replicate = [t.replicate for t in trials]
    assert per_replicate == sorted(per_replicate)


def test_a_design_shares_the_trials_of_a_host_with_equal_cells_only(plan: Plan) -> None:
    first = design(plan, report(host="a"), PLATFORMS)
    unlike = report(host="b")
    unlike.facts["cpu"]["allowed"] = [0]  # other cells
    other = design(plan.model_copy(update={"cores": [1]}), unlike, PLATFORMS, [first])
    assert other.trials and other.cells != first.cells
    assert not {id(t) for t in other.trials} & {id(t) for t in first.trials}
    again = design(plan, report(host="c"), PLATFORMS, [other, first])
    assert again.trials is first.trials and again == design(plan, report(host="c"), PLATFORMS)


def test_ids_are_unique_and_have_the_published_format(plan: Plan) -> None:
    ids = [t.id for t in design(plan, report(), PLATFORMS).trials]
    assert len(set(ids)) == len(ids)
    assert "cn-vanilla-c01-image_classification-r03" in ids


def test_emulated_guests_run_small_and_are_marked(plan: Plan) -> None:
    designed = design(plan, report(guests="emulated"), PLATFORMS)
    guests = [t for t in designed.trials if t.instance.machine == "kvm"]
    assert {(t.instance.platform, t.instance.mode) for t in guests} == {
        ("vm", "pinned"),
        ("vmcn", "vanilla"),
    }
    assert all(t.emulated and t.scale == "tiny" and t.instance.cores == 1 for t in guests)
    assert all(t.instance.accelerator == "tcg" and t.replicate == 1 for t in guests)
    assert not any(t.emulated for t in designed.trials if t.instance.machine == "metal")
    assert {(n.platform, n.cores) for n in designed.not_run} == {("bm", 1), ("vm", 2), ("vmcn", 2)}


def test_on_an_emulated_host_every_trial_is_marked_and_its_kvm_stays_kvm(plan: Plan) -> None:
    real = report(guests="available")
    verdicts = tuple(replace(row, status="emulated") for row in real.platforms)
    lab = replace(real, emulated=True, platforms=verdicts)
    designed = design(plan, lab, PLATFORMS)
    assert {t.instance.machine for t in designed.trials} == {"metal", "kvm"}
    assert all(t.emulated and t.planned().emulated for t in designed.trials)
    assert all(t.instance.host_emulated and t.rules == "quick" for t in designed.trials)
    guests = [t for t in designed.trials if t.instance.own_kernel]
    assert {t.instance.accelerator for t in guests} == {"kvm"}
    # Its guests see all that the host sees, whatever TCG of another version emulates.
    assert isa_needed(lab, guests[0]) == ("avx", "avx512f")
    assert not any(t.emulated for t in design(plan, real, PLATFORMS).trials)


def test_emulated_guests_run_the_modes_of_emulated_modes_and_real_ones_all(plan: Plan) -> None:
    both = plan.model_copy(
        update={
            "platforms": {"vm": ["vanilla", "pinned"]},
            "emulated": plan.emulated.model_copy(update={"modes": ["pinned"]}),
        }
    )
    designed = design(both, report(guests="emulated"), PLATFORMS)
    assert {t.instance.mode for t in designed.trials} == {"pinned"}
    assert {n.reason for n in designed.not_run if n.mode == "vanilla"} == {
        "emulated platforms run pinned only (see emulated.modes)"
    }
    real = design(both, report(guests="available"), PLATFORMS)
    assert {t.instance.mode for t in real.trials} == {"vanilla", "pinned"}


def test_a_platform_that_cannot_run_is_left_out_with_the_reason(plan: Plan) -> None:
    designed = design(plan, report(guests="unavailable"), PLATFORMS)
    assert {t.instance.machine for t in designed.trials} == {"metal"}
    assert ("vm", "vm reason", "vm remedy") in {
        (n.platform, n.reason, n.remedy) for n in designed.not_run
    }


def test_more_cores_than_the_host_offers_are_refused(plan: Plan) -> None:
    with pytest.raises(PlacementError, match="3 cores requested"):
        design(plan.model_copy(update={"cores": [1, 3]}), report(cpus=2), PLATFORMS)


def test_of_two_cores_a_pinned_instance_gets_one_and_the_host_the_other(plan: Plan) -> None:
    designed = design(plan, report(guests="available"), PLATFORMS)
    vm = next(t.instance for t in designed.trials if t.id.startswith("vm-pinned-c01"))
    assert (vm.cpus, vm.cpu_ids, vm.housekeeping, vm.allowed) == ("1", (1,), "0", "0-1")
    assert (vm.inner_cpus, vm.inner_mems) == ("0", "0")
    cn = next(t.instance for t in designed.trials if t.id.startswith("cn-pinned-c01"))
    assert (cn.inner_cpus, cn.inner_allowed) == ("1", "0-1")


SEEDS = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None)  # of a busy machine
@given(seed=SEEDS, other=SEEDS)
def test_the_order_depends_on_the_seed_and_is_random_within_a_replicate(
    seed: int, other: int
) -> None:
    plan = Plan.model_validate(
        {
            "name": "demo",
            "seed": seed,
            "replicates": 6,
            "applications": [{"name": "a"}, {"name": "b"}],
            "platforms": {"bm": ["pinned"], "cn": ["vanilla", "pinned"]},
            "cores": [1, 2],
        }
    )
    order = [t.id for t in design(plan, report(), PLATFORMS).trials]
    assert order == [t.id for t in design(plan, report(), PLATFORMS).trials]
    again = [
        t.id for t in design(plan.model_copy(update={"seed": other}), report(), PLATFORMS).trials
    ]
    assert sorted(again) == sorted(order)
    assert (again == order) == (seed == other)


def test_a_blocks_trials_share_one_instance_and_are_consecutive() -> None:
    plan = Plan.model_validate(
        {
            "name": "demo",
            "applications": [{"name": "a"}, {"name": "b"}],
            "platforms": {"bm": ["pinned"], "cn": ["pinned"]},
            "cores": [1],
        }
    )
    trials = design(plan, report(), PLATFORMS).trials
    for first, second in zip(trials[::2], trials[1::2], strict=True):
        assert first.block == second.block
        assert first.instance == second.instance
    assert len({t.block for t in trials}) == len(trials) // 2


def test_hotplug_gives_bare_metal_a_vanilla_mode_of_every_size(plan: Plan) -> None:
    designed = design(plan.model_copy(update={"scale_up": "hotplug"}), report(cpus=4), PLATFORMS)
    instances = {t.instance.id: t.instance for t in designed.trials}
    small = instances["bm-vanilla-c01-r01"]
    assert (small.allowed, small.inner_allowed, small.cpus) == ("0", "0", "0")
    assert instances["bm-vanilla-c02-r01"].allowed == "0-1"
    # Only its own CPUs go; the baseline has the whole host around it.
    assert instances["bm-pinned-c01-r01"].allowed == "0-3"
    assert not any(n.platform == "bm" for n in designed.not_run)


def test_a_trial_must_see_the_hosts_instruction_set_unless_it_is_emulated(plan: Plan) -> None:
    doctor = report(guests="emulated")
    needed = {t.emulated: isa_needed(doctor, t) for t in design(plan, doctor, PLATFORMS).trials}
    assert needed == {False: ("avx", "avx512f"), True: ("avx",)}


def both_modes(**keys: object) -> Plan:
    platforms = {name: ["vanilla", "pinned"] for name in ("bm", "cn", "vm")}
    base = {"name": "demo", "applications": [{"name": "a"}], "platforms": platforms, "cores": [1]}
    return Plan.model_validate(base | keys)


def left_out(designed: Design) -> dict[tuple[str, str | None, int | None], str]:
    return {(row.platform, row.mode, row.cores): row.reason for row in designed.not_run}


def run(designed: Design) -> dict[tuple[str, str, int], str]:
    """Return the CPUs of each cell that runs."""
    found = {t.instance.id: t.instance for t in designed.trials}.values()
    return {(i.platform, i.mode, i.cores): i.cpus for i in found}


def host(xml: str, cpus: int, **cpu: object) -> HostReport:
    doctor = report(cpus=2, guests="available")
    doctor.facts.update(machines.facts(xml, cpus, isa=[], **cpu))
    return doctor


def test_pinned_instances_get_only_cpus_that_virtbed_is_allowed_to_use() -> None:
    designed = design(both_modes(), host(machines.flat(4), 4, allowed=[1, 2]), PLATFORMS)
    assert set(run(designed).values()) == {"2"}
    assert {(p, m) for p, m, _ in left_out(designed)} == {
        (p, "vanilla") for p in ("bm", "cn", "vm")
    }
    assert all("CPUs 1-2 allowed, 0-3 online" in why for why in left_out(designed).values())
    assert {t.instance.allowed for t in designed.trials} == {"0-3"}
    with pytest.raises(PlacementError, match=r"3 cores requested, .* 2 allowed CPUs \(1-2\)"):
        design(both_modes(cores=[3]), host(machines.flat(4), 4, allowed=[1, 2]), PLATFORMS)


def test_only_pinned_instances_get_isolated_cpus() -> None:
    """As with isolcpus=4-7, which takes these CPUs from every process's affinity."""
    doctor = host(machines.flat(8), 8, allowed=[0, 1, 2, 3], isolated=[4, 5, 6, 7])
    designed = design(both_modes(cores=[1, 2]), doctor, PLATFORMS)
    # The kernel balances no load over isolated CPUs: a process with two would run on one of them.
    assert run(designed) == {
        ("bm", "pinned", 1): "4", ("cn", "pinned", 1): "4", ("vm", "pinned", 1): "4",
        ("vm", "pinned", 2): "4-5",
    }  # fmt: skip
    assert {t.instance.housekeeping for t in designed.trials} == {"0"}
    reasons = left_out(designed)
    floats = "isolated: the scheduler keeps an instance that is not pinned off them"
    assert floats in reasons["cn", "vanilla", 1]
    assert "would stay on one" in reasons["bm", "pinned", 2] == reasons["cn", "pinned", 2]
    with pytest.raises(PlacementError, match=r"5 cores requested.*4 such CPUs \(4-7\).*isolated"):
        design(both_modes(cores=[5]), doctor, PLATFORMS)


def test_cpus_without_a_tick_are_for_pinned_instances_of_any_size() -> None:
    doctor = host(machines.flat(8), 8, tickless=[4, 5, 6, 7])
    designed = design(both_modes(cores=[2]), doctor, PLATFORMS)
    assert run(designed) == {(p, "pinned", 2): "4-5" for p in ("bm", "cn", "vm")}
    assert "no tick (nohz_full)" in left_out(designed)["vm", "vanilla", 2]


def hybrid() -> str:
    """Return two fast cores of two threads, CPUs 0 to 3, and four slow ones, 4 to 7."""
    every, slow = range(8), range(4, 8)
    outside = machines.kind(slow, FrequencyMaxMHz=3900) + machines.kind(
        range(4), FrequencyMaxMHz=5000
    )
    module = machines.thing("L2Cache", slow, machines.cores(slow), cache_size=2**21)
    fast = machines.core(0, 1) + machines.core(2, 3)
    shared = machines.thing("L3Cache", every, fast, module, cache_size=2**24)
    return machines.machine(every, machines.node(0, every, 16000), shared, outside=outside)


def test_all_sizes_use_one_kind_of_core_and_no_instance_floats_over_two() -> None:
    designed = design(both_modes(cores=[1, 2]), host(hybrid(), 8), PLATFORMS)
    assert run(designed) == {
        (p, "pinned", c): {1: "2", 2: "0,2"}[c] for p in ("bm", "cn", "vm") for c in (1, 2)
    }
    assert "CPUs 0-3 and 4-7 are of different kinds" in left_out(designed)["cn", "vanilla", 1]
    slow = design(both_modes(cores=[1, 2], core_kind=2), host(hybrid(), 8), PLATFORMS)
    assert {cpus for (_, mode, _), cpus in run(slow).items()} == {"4", "4-5"}
    assert [size.core_kind for size in slow.placements] == [2, 2]
    with pytest.raises(
        PlacementError, match="core_kind 3 requested, this host has 2: kind 1: CPUs"
    ):
        design(both_modes(core_kind=3), host(hybrid(), 8), PLATFORMS)
    with pytest.raises(PlacementError, match=r"5 cores of one kind requested.*not mixed"):
        design(both_modes(cores=[5]), host(hybrid(), 8), PLATFORMS)


def test_a_guests_vcpus_emulator_and_memory_are_on_the_instances_placement() -> None:
    """What libvirt's domain takes: one vCPU per CPU, its emulator elsewhere, its memory bound."""
    halves = range(4), range(4, 8)
    inside = [
        machines.thing("Package", h, machines.node(n * 5, h, 9000), machines.thing("L3Cache", h, c))
        for n, h in enumerate(halves)
        if (c := machines.cores(h))
    ]
    designed = design(
        both_modes(cores=[2]), host(machines.machine(range(8), *inside), 8), PLATFORMS
    )
    pinned = [t.instance for t in designed.trials if t.instance.mode == "pinned"]
    assert {(i.cpu_ids, i.housekeeping, i.mems) for i in pinned} == {((4, 5), "0", "5")}
    assert {i.inner_mems for i in pinned if i.own_kernel} == {"0"}


def test_hotplug_leaves_one_kind_of_core_online_if_possible() -> None:
    platforms = {"bm": ["vanilla", "pinned"]}
    plan = both_modes(cores=[2], scale_up="hotplug", platforms=platforms)
    designed = design(plan, host(hybrid(), 8), PLATFORMS)
    assert run(designed)["bm", "vanilla", 2] == "0,2"
    # The lowest CPU cannot be taken offline, and it is a fast one.
    slow = design(plan.model_copy(update={"core_kind": 2}), host(hybrid(), 8), PLATFORMS)
    assert "CPUs 0-3 and 4-7 are of different kinds" in left_out(slow)["bm", "vanilla", 2]


def test_more_memory_than_the_node_has_is_refused(plan: Plan) -> None:
    with pytest.raises(PlacementError, match=r"memory_mib 4096 requested for 1 core,.*0: 4500"):
        design(plan, host(machines.flat(2, memory_mib=4500), 2), PLATFORMS)


def test_the_reasons_for_the_cpus_are_in_the_design_and_in_each_pinned_instance(plan: Plan) -> None:
    designed = design(plan, host(machines.flat(4), 4), PLATFORMS)
    document = encode(designed.document(plan, DIGEST, PLATFORMS, []))
    one = document["placements"][0]
    assert (one["cores"], one["cpus"], one["mems"], one["housekeeping"]) == (1, "1", "0", "0")
    assert one["caches"] == "L3 of CPUs 0-3 (32768 KiB)"
    for trial in designed.trials:
        pinned = trial.instance.mode == "pinned"
        size = next(s for s in designed.placements if s.cores == trial.instance.cores)
        assert trial.instance.placement == (size.reasons if pinned else ())
    assert any("housekeeping shares L3" in reason for reason in one["reasons"])


def test_a_sweep_is_continued_only_with_the_same_placements(plan: Plan) -> None:
    def known(doctor: HostReport) -> dict[str, str]:
        designed = design(plan, doctor, PLATFORMS)
        return identity(plan, Admitted(doctor, DIGEST, designed, False), PLATFORMS)

    one, other = known(host(machines.flat(4), 4)), known(host(machines.flat(4), 4, tickless=[3, 2]))
    assert {key for key in one if one[key] != other[key]} == {"placement"}


def test_a_host_without_hwloc_is_refused_with_what_to_install(plan: Plan) -> None:
    doctor = report()
    doctor.facts["hwloc"] = {"xml": None, "problem": "no lstopo-no-graphics found"}
    with pytest.raises(PlacementError, match=r"no lstopo-no-graphics found.*make setup.*hwloc-"):
        design(plan, doctor, PLATFORMS)
    doctor.facts["hwloc"] = {"xml": machines.flat(3), "problem": None}
    with pytest.raises(PlacementError, match="CPUs 0-1 are online according to the kernel, 0-2"):
        design(plan, doctor, PLATFORMS)


def test_variants_have_their_own_instances_and_are_never_emulated(plan: Plan) -> None:
    variants = plan.model_copy(
        update={"variants": ["plain", "twin", "slowed"], "slowdown": 0.1, "cores": [1]}
    )
    trials = design(variants, report(guests="emulated"), PLATFORMS).trials
    slowed = next(t for t in trials if t.id == "cn-pinned-c01-slowed-image_classification-r02")
    assert slowed.instance.id == "cn-pinned-c01-slowed-r02"
    assert "--slowdown=0.1" in slowed.argv(1)
    twin, plain = (
        next(t for t in trials if t.id == f"cn-pinned-c01{v}-image_classification-r02")
        for v in ("-twin", "")
    )
    assert twin.argv(1) == plain.argv(1)
    assert twin.block != plain.block
    assert {t.factors["variant"] for t in trials if t.emulated} == {"plain"}


def test_scales_scenarios_and_threads_are_distinguished_by_their_ids() -> None:
    plan = Plan.model_validate(
        {
            "name": "demo",
            "replicates": 1,
            "applications": [
                {"name": "a"},
                {"name": "a", "scale": "tiny"},
                {"name": "b", "scenario": "server", "target_qps": 5, "target_latency_ms": 99},
            ],
            "threads": ["default", "matched"],
            "platforms": {"bm": ["pinned"], "vm": ["pinned"]},
            "cores": [1],
        }
    )
    trials = {t.id: t for t in design(plan, report(guests="emulated"), PLATFORMS).trials}
    labels = ["a-trained", "a-tiny", "b-server"]
    every = {f"bm-pinned-c01-{x}{t}-r01" for x in labels for t in ("", "-matched")}
    # Emulated guests run all at one scale, and so nothing twice.
    every |= {f"vm-pinned-c01-{x}{t}-r01" for x in labels[1:] for t in ("", "-matched")}
    assert set(trials) == every
    server = trials["bm-pinned-c01-b-server-matched-r01"].argv(7)
    assert {"b", "--scenario=server", "--target-qps=5.0", "--threads=matched", "--seed=7"} <= set(
        server
    )
    assert trials["vm-pinned-c01-a-tiny-r01"].scale == "tiny"


def test_an_instance_has_the_properties_of_its_roles(plan: Plan) -> None:
    designed = design(plan, report(guests="available"), PLATFORMS)
    found = {}
    for trial in designed.trials:
        instance = decode(Instance, encode(trial.instance))  # which checks its limits
        found[instance.platform, instance.mode, instance.cores] = instance

    def properties(platform: str, mode: str, cores: int) -> tuple[object, ...]:
        i = found[platform, mode, cores]
        return i.own_kernel, i.enclosure_limit, i.quota_cpus, i.seen_cpus

    assert properties("bm", "vanilla", 2) == (False, "none", None, "0-1")
    assert properties("bm", "pinned", 1) == (False, "set", None, "1")
    assert properties("cn", "vanilla", 1) == (False, "quota", 1.0, "0-1")
    assert properties("cn", "pinned", 2) == (False, "set", None, "0-1")
    assert properties("vm", "pinned", 1) == (True, "set", None, "0")
    assert properties("vmcn", "vanilla", 2) == (True, "quota", 2.0, "0-1")
    assert found["vm", "pinned", 1].image_name == image_name(DIGEST)
    assert found["vm", "pinned", 1].accelerator == "kvm"


def test_the_design_document_satisfies_its_schema(plan: Plan) -> None:
    designed = design(plan, report(), PLATFORMS).document(plan, DIGEST, PLATFORMS, ["abc"])
    again = decode(DesignDocument, json.loads(json.dumps(encode(designed))))
    assert again == designed
    assert [p.name for p in designed.platforms] == [
        p for p in PLATFORMS.entries if p in plan.platforms
    ]


def test_a_request_satisfies_the_roles_argument_specs(plan: Plan) -> None:
    trial = design(plan, report(), PLATFORMS).trials[0]
    request = trial.request(7, report())
    assert decode(TrialRequest, encode(request)) == request
    assert request.thread_policy == "default"
    assert {"--threads=default", "--processor=cpu", "--seed=7"} <= set(request.argv)
    assert not any(word.startswith("--variant") for word in request.argv)


@pytest.mark.parametrize(
    ("cpus", "cores", "apart"),
    [(8, [1, 2], True), (8, [1, 7], True), (8, [2, 8], False), (2, [1, 2], False)],
)
def test_interrupts_go_to_cpus_that_no_size_uses_if_there_are_any(
    plan: Plan, cpus: int, cores: list[int], apart: bool
) -> None:
    designed = design(plan.model_copy(update={"cores": cores}), report(cpus), PLATFORMS)
    to = set(parse_cpu_list(designed.interrupts()))
    smallest = set(parse_cpu_list(designed.placements[0].cpus))
    measured = {cpu for size in designed.placements for cpu in parse_cpu_list(size.cpus)}
    assert to and not to & smallest
    assert bool(to & measured) is not apart


def test_interrupts_do_not_go_to_cpus_that_an_instance_takes_offline(plan: Plan) -> None:
    whole = plan.model_copy(update={"cores": [1, 2, 4], "scale_up": "hotplug"})
    for apart in (False, True):
        designed = design(whole, report(4), PLATFORMS)
        if apart:  # as on a host whose CPU 0 shares a cache with what is measured
            sizes = tuple(replace(size, housekeeping="3") for size in designed.placements)
            designed = replace(designed, placements=sizes)
        to = set(parse_cpu_list(designed.interrupts()))
        assert to and all(to <= set(parse_cpu_list(t.instance.allowed)) for t in designed.trials)
