"""The harness: run and time one trial of one application.

One trial is one process. Its times are read from CLOCK_MONOTONIC; only the time to spawn it needs
CLOCK_REALTIME. A sample runs from a request's bytes in memory to its answer. First every input is
answered at least once, as a warm-up; then LoadGen issues the measured requests. Each answer is
checked outside the timed path, and only its description is kept, so that memory does not grow.

Garbage collection: before the measured samples the garbage of start-up is collected and the
surviving objects are frozen. During them Python's collector runs as it does in any service.

Used by the command line (`__main__`). It does not judge its own numbers: the analysis does.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import resource
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from time import monotonic_ns
from typing import Any, NoReturn

from virtbed_contract import identifiers
from virtbed_contract.kernel.settings import kernel as kernel_settings
from virtbed_workloads import STARTED_NS, loadgen, onednn
from virtbed_workloads.confounders import Watch, read_load_1min
from virtbed_workloads.contract import Application, ApplicationError, Check, Description
from virtbed_workloads.environment import read_environment, read_memory_kib, usable_cores
from virtbed_workloads.registry import Entry

# They size the thread pools of OpenMP, NumPy's BLAS and tokenizers.
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_ENDLESS_SAMPLES = 1000
_REPORT_EVERY_NS = 1_000_000_000


class WrongAnswerError(Exception):
    """An application gave a wrong answer, so its times are meaningless."""


@dataclass(frozen=True)
class Settings:
    """The settings of one trial."""

    name: str
    scale: str
    warmup: int
    """Number of warm-up requests; at least one per input is made."""
    load: loadgen.Load
    threads: str = "default"
    """``default``: as the framework chooses. ``matched``: one thread per usable core."""
    processor: str = "cpu"
    slowdown: float = 0.0
    """Each request is delayed by this share of its time, to check that the testbed finds it."""
    inputs: Path | None = None
    """A folder of the user's own requests; their right answers are unknown."""
    spawned_at_ns: int | None = None
    """CLOCK_REALTIME just before this process was executed."""


def run_trial(
    entry: Entry, settings: Settings, fail: Callable[[BaseException], NoReturn]
) -> dict[str, Any]:
    """Run one trial.

    Args:
        entry: The application to run.
        settings: Scale, load, threads and so on.
        fail: Called with an error that is raised while LoadGen runs; must end the process.

    Returns:
        The result document without ``trial``, and ``files``: LoadGen's logs by name, to be kept
        next to the result.

    Raises:
        ApplicationError: The application cannot be loaded, or a request is invalid.
        WrongAnswerError: An answer is wrong.
    """
    load_before, settings_before = read_load_1min(), kernel_settings(Path("/"))
    ready = _warmed_up(entry, settings)
    trial, backend = ready.trial, ready.backend
    memory = {"after_warmup": read_memory_kib()["VmRSS"]}
    watch = Watch(load_before=load_before, settings_before=settings_before)

    def between_requests() -> None:
        trial.check()
        watch.look()

    before = resource.getrusage(resource.RUSAGE_SELF)
    driven = loadgen.drive(
        settings.load, len(trial.requests), ready.typical_ns, trial.serve, between_requests, fail
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    confounders = watch.read_off()
    memory |= {"after_samples": read_memory_kib()["VmRSS"], "peak": read_memory_kib()["VmHWM"]}
    if backend:
        backend.verify(settings.processor)
    return {
        "schema": identifiers.RESULT,
        "application": _application(trial.application, settings, ready.description, backend),
        "settings": _settings(settings, trial),
        "startup": ready.startup,
        "samples": trial.samples,
        "answers": trial.answers(),
        "environment": read_environment(*_pools(trial.application, backend))
        | {"onednn_isa": ready.onednn_isa},
        "rusage": _usage(before, after),
        "confounders": confounders,
        "memory_kib": memory,
        "files": driven.pop("files"),
        "loadgen": driven,
        "warnings": _warnings(settings, driven, confounders),
    }


def run_endless(
    entry: Entry,
    settings: Settings,
    fail: Callable[[BaseException], NoReturn],
    report: Callable[[dict[str, Any]], None],
) -> NoReturn:
    """Answer requests as a trial does until this process is killed. Neighbours run this.

    Args:
        entry: The application to run.
        settings: As for a trial. The rules are always quick, because nothing is measured.
        fail: Called with an error that is raised while LoadGen runs; must end the process.
        report: Called with ``{"requests": n}``, the number of requests answered since the warm-up:
            after the first, and then once per second at most.

    Raises:
        ApplicationError: As in `run_trial`.
        WrongAnswerError: As in `run_trial`.
    """
    ready = _warmed_up(entry, settings)
    trial, answered, reported_ns = ready.trial, 0, 0
    # Each LoadGen test starts threads and pauses for about 30 ms; long tests keep this rare.
    samples = max(settings.load.samples, _ENDLESS_SAMPLES)
    load = replace(settings.load, rules="quick", samples=samples)

    def serve(index: int, issued_ns: int) -> int:
        nonlocal answered, reported_ns
        answered_ns = trial.serve(index, issued_ns)
        trial.check()
        trial.samples.clear()  # unused here, and the list would grow without end
        answered += 1
        if answered_ns - reported_ns >= _REPORT_EVERY_NS:
            reported_ns = answered_ns
            report({"requests": answered})
        return answered_ns

    while True:
        loadgen.drive(load, len(trial.requests), ready.typical_ns, serve, lambda: None, fail)


@dataclass(frozen=True)
class _WarmedUp:
    """An application that has answered its warm-up requests."""

    trial: _Trial
    backend: Any
    description: Description
    typical_ns: float
    onednn_isa: str | None
    startup: dict[str, int | None]


def _warmed_up(entry: Entry, settings: Settings) -> _WarmedUp:
    """Import, load and warm up an application; then collect garbage and freeze what is left.

    Raises:
        ApplicationError: As in `run_trial`.
        WrongAnswerError: As in `run_trial`.
    """
    threads = usable_cores() if settings.threads == "matched" else None
    if threads is not None:
        os.environ.update(dict.fromkeys(POOLS, str(threads)))
    import_started_ns = monotonic_ns()
    application = entry.create(settings.scale)
    backend = importlib.import_module(f"{__package__}.backend") if application.keras else None
    if not backend and settings.processor != "cpu":
        raise ApplicationError(
            f"processor {settings.processor} requested, cpu needed: the application does not use "
            "Keras, and only Keras models can be shown to have run on a GPU; leave --processor out"
        )
    imported_ns = monotonic_ns()
    if backend:
        backend.require(settings.processor, threads)
    description = application.load()
    requests = sorted(_requests(application, settings.inputs).items())
    loaded_ns = monotonic_ns()
    if threads is not None:
        _require_pools(_pools(application, backend), threads)
    trial = _Trial(application, settings, requests)
    first_features = trial.guarded(requests[0][0], application.preprocess, requests[0][1])
    first_started_ns = monotonic_ns()
    with onednn.capture() as chosen:
        application.infer(first_features)
    first_ended_ns = monotonic_ns()

    for index in islice(cycle(range(len(requests))), max(settings.warmup, len(requests))):
        trial.serve(index, None)
        trial.check()
    if backend:
        backend.verify(settings.processor)
    # LoadGen plans its queries by this time; the first requests are slower, so the second half.
    typical_ns = statistics.median(s["e2e_ns"] for s in trial.samples[len(trial.samples) // 2 :])
    gc.collect()
    gc.freeze()
    spawned_ns = settings.spawned_at_ns
    startup = {
        # None if unknown, or if the clock was set back in between.
        "spawn_ns": None
        if spawned_ns is None or spawned_ns > STARTED_NS
        else STARTED_NS - spawned_ns,
        "import_ns": imported_ns - import_started_ns,
        "load_ns": loaded_ns - imported_ns,
        "first_call_ns": first_ended_ns - first_started_ns,
    }
    return _WarmedUp(trial, backend, description, typical_ns, chosen.isa, startup)


def _pools(application: Application, backend: Any) -> tuple[int, int]:
    """Return the sizes of the thread pools, read back: intra-op and inter-op; 0 if unknown."""
    sizes: tuple[int, int] = backend.threads() if backend else application.threads()
    return sizes


def _require_pools(found: tuple[int, int], threads: int) -> None:
    """Refuse matched threads that are not shown to be used; the attestation would do so later.

    Raises:
        ApplicationError: A pool has another size, or the size is unknown.
    """
    if found != (threads, threads):
        raise ApplicationError(
            f"threads matched requested, so pools of {threads} and {threads} threads needed, "
            f"{found[0]} and {found[1]} found (0: the runtime chooses); use threads default, or "
            "size the runtime's pools in the application, and return their sizes from its method "
            "threads"
        )


@dataclass
class _Trial:
    """The samples of one trial and the descriptions of their answers."""

    application: Application
    settings: Settings
    requests: list[tuple[str, bytes]]
    samples: list[dict[str, Any]] = field(default_factory=list)
    checked: int = 0
    _described: dict[str, tuple[str, Check | None]] = field(default_factory=dict)
    _unchecked: list[tuple[str, Any]] = field(default_factory=list)

    def serve(self, index: int, issued_ns: int | None) -> int:
        """Answer one request, time it, and append its sample.

        Args:
            index: Index of the request.
            issued_ns: When LoadGen issued it (CLOCK_MONOTONIC, ns); None in the warm-up.

        Returns:
            When it was answered (CLOCK_MONOTONIC, ns).
        """
        name, request = self.requests[index]
        application = self.application
        start_ns = monotonic_ns()
        features = self.guarded(name, application.preprocess, request)
        preprocessed_ns = monotonic_ns()
        outputs = application.infer(features)
        inferred_ns = monotonic_ns()
        answer = application.postprocess(outputs)
        end_ns = monotonic_ns()
        if self.settings.slowdown:
            due_ns = start_ns + round((end_ns - start_ns) * (1 + self.settings.slowdown))
            while (end_ns := monotonic_ns()) < due_ns:
                pass  # keep the CPU busy, as a slower platform does
        self.samples.append(
            {
                "input": name,
                "queue_ns": 0 if issued_ns is None else start_ns - issued_ns,
                "pre_ns": preprocessed_ns - start_ns,
                "infer_ns": inferred_ns - preprocessed_ns,
                "post_ns": end_ns - inferred_ns,
                "e2e_ns": end_ns - start_ns,
                "warmup": issued_ns is None,
            }
        )
        self._unchecked.append((name, answer))
        return end_ns

    def guarded(self, name: str, preprocess: Any, request: bytes) -> Any:
        """Call ``preprocess``; add the request's name to its error."""
        try:
            return preprocess(request)
        except ApplicationError as error:
            raise ApplicationError(f"{name}: {error}") from error

    def check(self) -> None:
        """Check the answers since the last call, and keep only their descriptions.

        Raises:
            WrongAnswerError: An answer is wrong, or differs from an earlier one to the same input.
        """
        for name, answer in self._unchecked:
            described = self.application.describe(answer)
            if name not in self._described:
                self._described[name] = (described, self._judge(name, described, answer))
            first, _ = self._described[name]
            if first != described:
                raise WrongAnswerError(
                    f"{self.settings.name}: {name}: answered {described!r} after {first!r}, "
                    "expected the same answer every time"
                )
            self.checked += self.settings.inputs is None
        self._unchecked.clear()

    def _judge(self, name: str, described: str, answer: Any) -> Check | None:
        if self.settings.inputs is not None:
            return None
        check = self.application.check(name, answer)
        if not check.right:
            raise WrongAnswerError(
                f"{self.settings.name}: {name}: answered {described!r} (score {check.score}), "
                f"expected {check.expected!r}"
            )
        return check

    def answers(self) -> dict[str, Any]:
        """Return the result's ``answers``."""
        known = sorted(self._described.items())
        canonical = json.dumps([(name, described) for name, (described, _) in known])
        return {
            "checked": self.checked,
            "wrong": 0,
            "digest": "sha256:" + hashlib.sha256(canonical.encode()).hexdigest(),
            "by_input": [
                {
                    "input": name,
                    "answer": described,
                    "expected": check.expected if check else None,
                    "score": check.score if check else None,
                }
                for name, (described, check) in known
            ],
        }


def _requests(application: Application, folder: Path | None) -> Mapping[str, bytes]:
    if folder is None:
        return application.inputs()
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
        own = {path.name: path.read_bytes() for path in files}
    except OSError as error:
        raise ApplicationError(f"--inputs {folder}: {error.strerror}; a folder is needed") from None
    if not own:
        raise ApplicationError(f"--inputs {folder}: no files found, at least one request needed")
    return own


def _application(
    application: Application, settings: Settings, description: Description, backend: Any
) -> dict[str, Any]:
    return {
        "name": settings.name,
        "version": application.version,
        "scale": settings.scale,
        "weights": description.weights,
        "model": description.model,
        "frameworks": backend.frameworks() if backend else {},
    }


def _settings(settings: Settings, trial: _Trial) -> dict[str, Any]:
    return {
        "samples": sum(not sample["warmup"] for sample in trial.samples),
        "warmup": sum(sample["warmup"] for sample in trial.samples),
        "seed": settings.load.seed,
        "scenario": settings.load.scenario,
        "rules": settings.load.rules,
        "target_qps": settings.load.target_qps,
        "target_latency_ms": settings.load.target_latency_ms,
        "thread_policy": settings.threads,
        "processor": settings.processor,
        "slowdown": settings.slowdown,
    }


def _warnings(
    settings: Settings, driven: Mapping[str, Any], confounders: Mapping[str, Any]
) -> list[str]:
    warnings = []
    if confounders["steal_share"] is None:
        warnings.append(
            "confounders: this kernel does not count the time of its CPUs, so steal and the CPU "
            "time of other processes are unknown; a trial that they disturbed is not marked suspect"
        )
    clocks = driven["clocks"]
    if not clocks["agree"]:
        warnings.append(
            f"two clocks: LoadGen's median latency is {clocks['loadgen_median_ns'] / 1e6:.3f} ms, "
            f"the harness's {clocks['harness_median_ns'] / 1e6:.3f} ms: {clocks['apart']:.1%} "
            f"apart, at most {loadgen.CLOCKS_AGREE:.0%} needed; the samples are too short for "
            "LoadGen, or another process had the CPU"
        )
    if settings.load.rules == "study" and driven["validity"] != "VALID":
        warnings.append(f"LoadGen: {driven['validity']}: {'; '.join(driven['reasons'])}")
    return warnings


def _usage(before: resource.struct_rusage, after: resource.struct_rusage) -> dict[str, Any]:
    """Subtract two readings of getrusage; None for counters that the kernel (gVisor's) lacks."""
    counted = after.ru_minflt > 0  # no process starts without a page fault
    return {
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "minor_faults": after.ru_minflt - before.ru_minflt if counted else None,
        "major_faults": after.ru_majflt - before.ru_majflt if counted else None,
        "voluntary_switches": after.ru_nvcsw - before.ru_nvcsw if counted else None,
        "involuntary_switches": after.ru_nivcsw - before.ru_nivcsw if counted else None,
    }
