"""Plans with `explain: true` on real engines: each varied factor is read back as planned."""

from __future__ import annotations

from typing import Any

from .conftest import NOTHING, NULL, read, run, traces

TIMES = "period {} us, burst {} us"


def test_each_factor_that_a_plan_varies_is_attested(write_plan: Any) -> None:
    """With the application null: about 20 trials of 2 s each."""
    plan, folder = write_plan(
        "explain",
        explain=True,
        **NULL,
        platforms={"bm": ["pinned"], "cn": ["vanilla", "pinned"], "podman": ["pinned"]},
        seccomp=["filter", "unconfined"],
        network=["none", "host"],
        runtime=["engine", "runc"],
        cfs_period=["100ms", "10ms"],
        cfs_burst=["none", "full"],
        huge_pages=["kernel", "never", "malloc"],
    )
    done = run("virtbed", "sweep", plan)
    assert traces() == NOTHING
    found = {
        path.parent.name.removesuffix("-r01").replace("-null", ""): (
            read(path), read(path.parent / "evidence.json"),
        )
        for path in folder.glob("trials/*/result.json")
    }  # fmt: skip
    pages = ("", "-never_pages", "-malloc_pages")
    expected = {
        *(f"bm-pinned-c01{p}" for p in pages),
        *(f"{e}-pinned-c01{p}" for e in ("cn", "podman") for p in pages),
        *(f"{e}-pinned-c01-{f}" for e in ("cn", "podman") for f in ("unconfined", "host_network")),
        "podman-pinned-c01-runc", "cn-vanilla-c01", "cn-vanilla-c01-10ms_period",
        "cn-vanilla-c01-full_burst",
    }  # fmt: skip
    assert set(found) == expected, done.stdout
    inside = {
        name: result["environment"]["process_settings"] for name, (result, _) in found.items()
    }
    outside = {name: evidence["after"]["enclosure"] for name, (_, evidence) in found.items()}
    assert all(evidence["attested"] for _, evidence in found.values())
    for name, reading in inside.items():
        policy = next((p for p in ("never", "malloc") if f"-{p}_pages" in name), "kernel")
        assert reading["page_policy"] == policy, name
        filtered = "none" if name.startswith("bm") or "unconfined" in name else "filter"
        assert reading["seccomp"] == filtered, name
    for name, read_back in outside.items():
        if not name.startswith("bm"):
            assert read_back["network"] == ("host" if "host_network" in name else "own"), name
            engine = "runc" if name.startswith("cn") or "runc" in name else "crun"
            assert read_back["runtime"].rpartition("/")[2] == engine, name
    for name, times in {
        "cn-vanilla-c01": (100_000, 0),
        "cn-vanilla-c01-10ms_period": (10_000, 0),
        "cn-vanilla-c01-full_burst": (100_000, 100_000),
    }.items():
        times_read = TIMES.format(*times)
        assert (inside[name]["quota_times"], outside[name]["quota_times"]) == (
            times_read,
            times_read,
        )
        assert outside[name]["quota_cpus"] == 1.0
