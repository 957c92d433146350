"""Builds synthetic results folders with a known truth."""

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from virtbed.platforms import load_platforms
from virtbed_analysis.frames import Sweep
from virtbed_contract import identifiers
from virtbed_contract.codec import encode
from virtbed_contract.documents import image_name
from virtbed_contract.factors import FACTORS, instance_id, size_id, trial_id
from virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from virtbed_contract.likeness import DEFAULT_ALLOCATOR, held
from virtbed_contract.sweep import MARGIN

Json = dict[str, Any]
IMAGE = "sha256:" + "a" * 64
PLAN = "sha256:" + "b" * 64
DEFAULTS = {factor.name: factor.default for factor in FACTORS}
LISTED = load_platforms().entries
HOST_CPUS = 16  # of the made-up bench host, or as many as an instance has
NS_PER_S = 1_000_000_000


class Folder:
    """A results folder under construction; `plan` and `trial` return the trial's id.

    What it holds agrees with itself: labels with evidence, counts and windows with samples.
    """

    _made = itertools.count()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = next(Folder._made) % 3
        self.design: Json = {
            "schema": identifiers.DESIGN,
            "sweep": path.name,
            "plan_digest": PLAN,
            "seed": 2112,
            "image_digest": IMAGE,
            "precision": None,
            "min_replicates": 8,
            "margin": MARGIN,
            "accelerator": "tcg",
            "platforms": [encode(entry) for entry in LISTED.values()],
            "commits": ["0123abc"],
            "trials": [],
            "not_run": [],
        }
        path.mkdir()

    def plan(
        self, platform: str, mode: str, replicate: int, *, named: str | None = None, **changes: Any
    ) -> Json:
        """Plan a trial; `named` is the scale, if the id contains it."""
        trial = {
            "platform": platform,
            "mode": mode,
            "cores": 1,
            "application": "image_classification",
            "scale": "trained",
            "scenario": "single_stream",
            "replicate": replicate,
            "emulated": False,
            **DEFAULTS,
        } | changes
        size = size_id(platform, mode, trial["cores"], trial)
        trial["id"] = trial_id(
            size, trial["application"], named, trial["scenario"], replicate, trial
        )
        position = len(self.design["trials"]) + 1
        self.design["trials"].append(trial | {"block": position, "position": position})
        self.write("design.json", self.design)
        return trial

    def trial(
        self,
        platform: str,
        mode: str,
        replicate: int,
        e2e_ms: dict[str, list[float]],
        *,
        warmup_ms: tuple[float, ...] = (),
        image: str = IMAGE,
        warnings: tuple[str, ...] = (),
        answers: str = "c",
        slowdown: float = 0.0,
        confounders: Json | None = None,
        peak_kib: int | None = 710_000,
        phases: tuple[float, float] = (0.25, 0.1),
        **changes: Any,
    ) -> str:
        """Add a whole trial: `e2e_ms` maps each input to its measured times.

        `phases` are the shares of pre- and post-processing in them.
        """
        trial = self.plan(platform, mode, replicate, **changes)
        warm = [sample("a.png", ms, phases, warmup=True) for ms in warmup_ms]
        measured = [sample(name, ms, phases) for name, times in e2e_ms.items() for ms in times]
        result = self.result(trial, [*warm, *measured])
        result["trial"]["image_digest"] = image
        result["settings"]["slowdown"] = slowdown
        result["answers"]["digest"] = "sha256:" + answers * 64
        result["confounders"] |= confounders or {}
        for moment in ("after_warmup", "after_samples"):
            result["memory_kib"][moment] = min(result["memory_kib"][moment], peak_kib or 0)
        result["memory_kib"]["peak"] = peak_kib
        result["warnings"] = list(warnings)
        name = trial["id"]
        self.write(f"trials/{name}/result.json", result)
        self.write(f"trials/{name}/evidence.json", evidence(result))
        return str(name)

    def result(self, trial: Json, samples: list[Json]) -> Json:
        """Return a whole result of a planned trial."""
        known = {entry["name"]: entry for entry in self.design["platforms"]}
        platform = known[trial["platform"]]
        machine, enclosure = platform["machine"], platform["enclosure"]
        real = "none" if machine == "metal" else "kvm"
        quota = enclosure != "process" and trial["mode"] == "vanilla"
        scenario = trial.pop("scenario")
        warm = sum(sample["warmup"] for sample in samples)
        position = trial.get("position", len(self.design["trials"]))
        started = datetime(2026, 1, 2, 3, 0, 5, tzinfo=UTC) + timedelta(minutes=trial["replicate"])
        for measured in samples[warm:]:
            # No two trials have the same times; a copy of a trial is found by them.
            measured["queue_ns"] = measured["queue_ns"] or 3 * position + self.number
        busy_ns = sum(one["queue_ns"] + one["e2e_ns"] for one in samples[warm:])
        return {
            "schema": identifiers.RESULT,
            "trial": trial
            | {
                "sweep": self.path.name,
                "plan_digest": PLAN,
                "machine": machine,
                "enclosure": enclosure,
                "quota_cpus": float(trial["cores"]) if quota else None,
                "memory_mib": 4096,
                "position": position,
                "accelerator": "tcg" if trial["emulated"] else real,
                "host": "bench01",
                "image_digest": IMAGE,
                "started_at": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "attempt": 1,
            },
            "application": {
                "name": trial["application"],
                "version": "1",
                "scale": trial["scale"],
                "weights": "seeded" if trial["scale"] == "tiny" else "trained",
                "model": "EfficientNet-Lite0",
                "frameworks": {"tensorflow": "2.21.0", "keras": "3.15", "backend": "tensorflow"},
            },
            "settings": {
                "samples": len(samples) - warm,
                "warmup": warm,
                "seed": 2112,
                "scenario": scenario,
                "thread_policy": trial["thread_policy"],
                "rules": "quick",
                "target_qps": None,
                "target_latency_ms": None,
                "processor": trial["processor"],
                "slowdown": 0.0,
            },
            "startup": {
                "spawn_ns": 250_000_000,
                "import_ns": 4_000_000_000,
                "load_ns": 900_000_000,
                "first_call_ns": 1_200_000_000,
            },
            "samples": samples,
            "answers": {
                "checked": len(samples),
                "wrong": 0,
                "digest": "sha256:" + "c" * 64,
                "by_input": [
                    {"input": name, "answer": "cup", "expected": "cup", "score": 0.9}
                    for name in sorted({sample["input"] for sample in samples})
                ],
            },
            "environment": environment(trial, machine, enclosure),
            "rusage": {
                "user_s": 1.5,
                "system_s": 0.1,
                "minor_faults": 10,
                "major_faults": 0,
                "voluntary_switches": 5,
                "involuntary_switches": 2,
            },
            "confounders": {
                "window_ns": max(2 * NS_PER_S, busy_ns + 1_000_000),
                "cpus": "0",
                "own_cpu_ns": 1_600_000_000 * trial["cores"],
                "steal_share": 0.0,
                "others_share": 0.001,
                "throttling": {"periods": 0, "throttled": 0, "throttled_ns": 0},
                "pressure": {"cpu": 0.01, "memory": 0.0, "io": None},
                "mhz": {"before": 2000.0, "after": 2000.0},
                "governor": "schedutil" if machine == "metal" and enclosure != "gvisor" else None,
                "temperature_c": None,
                "transparent_hugepage": "madvise",
                "load_1min": {"before": 0.1, "after": 0.4},
                "migrations": 0,
                "siblings_share": None,
                "clock_apart_share": None,
                "ran_on": [0],
                "looks": 4,
                "moved": quiet(),
            },
            "memory_kib": {"after_warmup": 700_000, "after_samples": 700_000, "peak": 710_000},
            "loadgen": {
                "version": "6.0",
                "validity": "VALID",
                "reasons": [],
                "duration_ms": 0,
                "queries": len(samples) - warm,
                "percentiles_ns": loadgen_percentiles(samples),
                "samples_per_second": None,
                "clocks": {
                    "loadgen_median_ns": median_ns(samples) + 20_000,
                    "harness_median_ns": median_ns(samples),
                    "apart": 0.001,
                    "agree": True,
                },
            },
            "warnings": [],
            "bench": None,
        }

    def write(self, name: str, content: Json | str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def edit(self, name: str, change: Callable[[Json], None], *, alone: bool = False) -> None:
        """Change a file, and files that repeat its content unless `alone`.

        That is what a process saw, in the evidence, and the median of the samples.
        """
        content = json.loads((self.path / name).read_text())
        saw, samples = json.dumps(content.get("environment")), json.dumps(content.get("samples"))
        change(content)
        if not alone and samples != json.dumps(content.get("samples")):
            content["loadgen"]["clocks"]["harness_median_ns"] = median_ns(content["samples"])
        self.write(name, content)
        evidence = self.path / name.replace("result.json", "evidence.json")
        if not alone and saw != json.dumps(content.get("environment")) and evidence.is_file():
            printed = json.loads(evidence.read_text())
            evidence.write_text(json.dumps(printed | {"inside": content["environment"]}))


def quiet(**changes: Any) -> Json:
    """Return a kernel's counters of a trial during which nothing else runs."""
    return {
        "window_s": 2.0,
        "cpus": "0",
        "device_interrupts": 20,
        "busiest": "36 nvme0q1",
        "timer_interrupts": 500,
        "aimed": [],
        "throttled": 0,
        "processes": 2,
        "swapped_pages": 0,
        "messages": 0,
        "last_message": None,
        "timers": [],
        "changed": [],
    } | changes


KERNEL_SETTINGS = {one.name: f"{one.name} as it was" for one in held("kernel")}
PROCESS_SETTINGS = {
    one.name: 0.5 if one.number else f"{one.name} as it was" for one in held("process")
} | {"swap_limit": "none", "quota_times": None, "allocator": DEFAULT_ALLOCATOR}
PROCESS_SETTINGS |= {"page_policy": DEFAULTS["huge_pages"]}


def environment(trial: Json, machine: str, enclosure: str) -> Json:
    """Return the reading by the process of a correctly placed trial."""
    return seen_in(instance(trial | {"machine": machine, "enclosure": enclosure}), trial)


def seen_in(requested: Json, trial: Json) -> Json:
    """Return the reading by the process of a trial that is placed as its instance requires."""
    seen = parse_cpu_list(requested["seen_cpus"])
    few = requested["own_kernel"] or requested["private_kernel"]
    pools = trial["cores"] if trial["thread_policy"] == "matched" else 0
    bound = trial["mode"] == "pinned" and not requested["own_kernel"]
    return {
        "python": "3.11.2",
        "kernel": "6.1.0",
        "cpus_visible": len(seen) if few else len(parse_cpu_list(requested["allowed"])),
        "affinity": list(seen),
        "cpus_allowed_list": requested["seen_cpus"],
        "mems_allowed_list": "0",
        "memory_policy": "bind:0" if bound else "default",
        "cgroup": {
            "version": 1,
            "quota_cpus": requested["seen_quota_cpus"],
            "cpuset": requested["seen_cpus"],
        },
        "threads": {
            "intra_op": pools,
            "inter_op": pools,
            "process_threads": 9,
            "usable_cores": trial["cores"],
        },
        "isa": ["avx2"],
        "clocksource": "tsc",
        "cpu_model": "Xeon Test",
        "turbo": None if few else True,
        "mitigations": {"meltdown": "Not affected"},
        "onednn_isa": "Intel AVX2",
        "kernel_settings": dict(KERNEL_SETTINGS),
        "process_settings": PROCESS_SETTINGS
        | {"page_policy": trial["huge_pages"]}
        | ({"seccomp": "none"} if trial["seccomp_profile"] == "unconfined" else {}),
        "privileges": {
            "users": [65532],
            "groups": [65532],
            "capabilities": "0",
            "no_new_privileges": True,
        },
    }


def instance(trial: Json) -> Json:
    """Return the instance of a trial's labels, on a host with enough CPUs and one node."""
    guest, private = trial["machine"] != "metal", trial["enclosure"] == "gvisor"
    cores, pinned = trial["cores"], trial["mode"] == "pinned"
    cpus = format_cpu_list(range(cores))
    alone = not pinned and not guest and trial["enclosure"] == "process"
    allowed = cpus if alone else format_cpu_list(range(max(cores, HOST_CPUS)))
    inner_allowed = cpus if guest else allowed
    limit = "set" if pinned else "none" if trial["enclosure"] == "process" else "quota"
    quota = float(cores) if limit == "quota" else None
    digest = trial.get("image_digest", IMAGE)
    size = size_id(trial["platform"], trial["mode"], cores, trial)
    return {
        "id": instance_id(size, trial["replicate"]),
        "platform": trial["platform"],
        "machine": trial["machine"],
        "enclosure": trial["enclosure"],
        "own_kernel": guest,
        "private_kernel": private,
        "mode": trial["mode"],
        "enclosure_limit": limit,
        "cores": cores,
        "memory_mib": trial.get("memory_mib", 4096),
        "accelerator": trial.get("accelerator", "none"),
        "cpus": cpus if pinned else allowed,
        "cpu_ids": list(parse_cpu_list(cpus if pinned else allowed)),
        "mems": "0",
        "housekeeping": "0" if pinned else allowed,
        "allowed": allowed,
        "inner_cpus": cpus,
        "inner_mems": "0",
        "inner_allowed": inner_allowed,
        "seen_cpus": cpus if pinned else inner_allowed,
        "quota_cpus": quota,
        "seen_quota_cpus": None if private else quota,
        "image_digest": digest,
        "image_name": image_name(digest),
    }


def loadgen_percentiles(samples: list[Json]) -> Json:
    """Return the percentiles of queries of one sample, as LoadGen takes them."""
    took = sorted(s["queue_ns"] + s["e2e_ns"] for s in samples if not s["warmup"])
    return {f"{p}.00": took[p * len(took) // 100] for p in (50, 90, 99) if took}


def median_ns(samples: list[Json]) -> int:
    """Return the median latency of the measured samples, as the harness takes it; 1 of none."""
    took = sorted(s["queue_ns"] + s["e2e_ns"] for s in samples if not s["warmup"])
    return min(int(took[len(took) // 2]), 2**53 - 1) if took else 1


def evidence(result: Json) -> Json:
    """Return the evidence of a correctly placed trial."""
    trial, saw = result["trial"], result["environment"]
    requested = instance(trial)
    reading = reading_of(requested, saw)
    warm_ns = sum(sample["e2e_ns"] for sample in result["samples"] if sample["warmup"])
    return {
        "schema": identifiers.EVIDENCE,
        "trial": trial["id"],
        "asked": requested,
        "before": reading,
        "inside": saw,
        "after": reading,
        "process_wall_ns": 8 * NS_PER_S + warm_ns + result["confounders"]["window_ns"],
        "attested": True,
        "mismatches": [],
    }


def reading_of(requested: Json, saw: Json) -> Json:
    """Return the reading of an instance in which a process sees `saw`."""
    return {"machine": _machine(requested), "enclosure": _enclosure(requested, saw)}


def _machine(requested: Json) -> Json:
    if not requested["own_kernel"]:
        return {"cpus_online": requested["allowed"]}
    pins = [str(cpu) for cpu in requested["cpu_ids"]]
    pinned = requested["mode"] == "pinned"
    threads = [
        {
            "vcpu": number,
            "thread": 100 + number,
            "pin": pins[number] if pinned else requested["allowed"],
            "cpus_allowed_list": pins[number] if pinned else requested["allowed"],
            "mems_allowed_list": "0",
            "migrations": 3,
        }
        for number in range(requested["cores"])
    ]
    return {
        "accelerator": requested["accelerator"],
        "vcpus": requested["cores"],
        "memory_mib": requested["memory_mib"],
        "kernel": f"/var/images/{requested['image_name']}/vmlinuz",
        "backing_file": f"/var/images/{requested['image_name']}/disk.raw",
        "quotas": {},
        "vcpu_threads": threads,
        "host_transparent_hugepage": "madvise",
    }


def _enclosure(requested: Json, saw: Json) -> Json:
    if requested["enclosure"] == "process":
        kept = ("cpus_visible", "cpus_allowed_list", "mems_allowed_list", "memory_policy")
        return {key: saw[key] for key in (*kept, "cgroup", "clocksource")}
    cpus = requested["inner_cpus"] if requested["mode"] == "pinned" else requested["inner_allowed"]
    named = (
        {"serves_rootfs": True, "image": requested["image_digest"], "platform": "systrap"}
        if requested["private_kernel"]
        else {"container": "f00d", "layers": [requested["image_digest"]]}
    )
    return {
        "started": 4711,
        "cpus_allowed_list": cpus,
        "cpuset": cpus,
        "mems_allowed_list": "0",
        "seccomp": "filter",
        "quota_cpus": requested["quota_cpus"],
        "memory_mib": requested["memory_mib"],
        "throttled_periods": 0,
        **named,
    }


def sample(name: str, e2e_ms: float, phases: tuple[float, float], *, warmup: bool = False) -> Json:
    e2e_ns = round(e2e_ms * 1e6)
    pre_ns, post_ns = (round(e2e_ns * share) for share in phases)
    return {
        "input": name,
        "queue_ns": 0,
        "pre_ns": pre_ns,
        "infer_ns": e2e_ns - pre_ns - post_ns,
        "post_ns": post_ns,
        "e2e_ns": e2e_ns,
        "warmup": warmup,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "quick")


@pytest.fixture
def quick(folder: Folder) -> Folder:
    """bm pinned, cn pinned and cn vanilla; cn vanilla takes 1.35 times bare metal, with noise."""
    wobble = [0.99, 1.0, 1.01, 1.02, 0.98]
    for replicate, drift in enumerate([1.0, 1.03, 0.97, 1.01, 1.0], start=1):
        own = wobble[replicate - 1]
        for platform, mode, factor in [
            ("bm", "pinned", 1.0),
            ("cn", "pinned", 1.02),
            ("cn", "vanilla", 1.35 * own),
        ]:
            e2e_ms = {"a.png": [20 * drift * factor] * 3, "b.png": [45 * drift * factor] * 3}
            folder.trial(platform, mode, replicate, e2e_ms, warmup_ms=(900.0,))
    for mode in ("vanilla", "pinned"):
        folder.trial("vm", mode, 1, {"a.png": [5_000.0]}, emulated=True, scale="tiny")
    return folder


def lay_study(folder: Folder) -> None:
    """Write a sweep with most parts of a report: sizes, platforms, and failures."""
    chance = random.Random(2112)
    platforms = {
        ("bm", "pinned"): lambda cores: 1.0,
        ("cn", "vanilla"): lambda cores: 1.02 * 1.8 ** (1 / cores),
        ("cn", "pinned"): lambda cores: 1.03,
        ("vm", "vanilla"): lambda cores: 1.12,
        ("vm", "pinned"): lambda cores: 1.1,
        ("vmcn", "pinned"): lambda cores: 1.08,
    }
    works = {"face_detection": (300.0, (0.3, 0.45)), "question_answering": (50.0, (0.05, 0.02))}
    for (work, (ms, phases)), cores, replicate in itertools.product(
        works.items(), (1, 2, 4, 8), range(1, 6)
    ):
        time_ms = ms * (0.2 + 0.8 / min(cores, 4)) * chance.lognormvariate(0, 0.01)
        for (platform, mode), cost in platforms.items():
            own = time_ms * cost(cores) * chance.lognormvariate(0, 0.005)
            kept = {"cores": cores, "application": work, "phases": phases}
            folder.trial(platform, mode, replicate, {"a": [own] * 6, "b": [2 * own] * 6}, **kept)
    folder.trial("cn", "pinned", 6, {"a": [9.0]}, confounders={"steal_share": 0.2})
    folder.trial("vm", "vanilla", 1, {"a": [5_000.0]}, emulated=True, scale="tiny")
    failed = folder.plan("vmcn", "vanilla", 1)["id"]
    folder.plan("vmcn", "vanilla", 2)
    folder.write(f"trials/{failed}/failure.json", failure(failed, "port <22> taken"))
    folder.write("trials/cut/result.json", "{")
    folder.write(
        "doctor.json",
        {
            "schema": identifiers.HOST_REPORT,
            "host": "bench01",
            "ok": True,
            "accelerator": "tcg",
            "facts": {"cpu": {"model": "Xeon Test", "online": list(range(16))}},
            "platforms": [],
        },
    )


def with_gpu(sweep: Sweep) -> Sweep:
    """Return a sweep with bare metal and pinned guests also on a GPU that infers 12 x as fast.

    No result can say so yet, so this is made of the samples.
    """
    slow = sweep.samples.filter(
        pl.col("platform").is_in(["bm", "vm"]), mode="pinned", variant="plain"
    )
    fast = slow.with_columns(
        processor=pl.lit("gpu", dtype=slow.schema["processor"]),
        infer_ns=pl.col("infer_ns") // 12,
        e2e_ns=pl.col("e2e_ns") - pl.col("infer_ns") + pl.col("infer_ns") // 12,
    )
    return replace(sweep, samples=pl.concat([sweep.samples, fast]))


def failure(trial: str, message: str) -> Json:
    return {
        "schema": identifiers.FAILURE,
        "id": trial,
        "stage": "provision",
        "message": message,
        "attempt": 2,
        "at": "2026-01-02T03:04:05Z",
    }


@pytest.fixture
def study(folder: Folder) -> Folder:
    lay_study(folder)
    return folder
