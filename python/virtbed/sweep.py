"""Knows alone how a sweep goes on: blocks, releases, records, interruptions."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import yaml

from virtbed import playbooks, records
from virtbed.design import Design, Trial, design, isa_needed
from virtbed.image import REPOSITORY, image_key
from virtbed.ledger import Ledger
from virtbed.placement import parse_cpu_list
from virtbed.plan import Plan, PlanError
from virtbed.progress import Progress
from virtbed_analysis import unneeded_trials

LOCAL = REPOSITORY / "inventory" / "local"
# What only lives while a sweep runs: the lock, and the key and inventory of its instance.
RUN = Path("/run/virtbed")
LOCK_WAIT_S = 30


class SweepError(RuntimeError):
    """A sweep that cannot begin or go on; nothing of it is left on the host."""


class Interrupted(SweepError):
    """The user ended the sweep; what was standing is released, and the next call goes on."""


def examine(inventory: Path = LOCAL, *, probe_kvm: bool = True) -> dict[str, Any]:
    """Return the doctor's report (`virtbed.doctor/1`) of the bench host.

    Raises SweepError if the host cannot be examined.
    """
    outcome = playbooks.play("doctor", {"host_doctor_probe_kvm": probe_kvm}, [inventory])
    reports = outcome.results.get("host_doctor", [])
    if not outcome.ok or not reports:
        raise SweepError(f"the host could not be examined: {outcome.message}")
    report: dict[str, Any] = reports[-1]["doctor"]
    return report


class Sweep:
    """One plan carried out on one host, into results/<plan name>."""

    def __init__(
        self, plan: Plan, progress: Progress, inventory: Path = LOCAL,
        results: Path = REPOSITORY / "results",
    ) -> None:  # fmt: skip
        self.plan = plan
        self.folder = results / plan.name
        self.failed: list[str] = []
        self._progress = progress
        self._inventory = inventory
        self._ended = False
        self._since = 0.0

    def run(self) -> None:
        """Do what is missing of the sweep.

        Raises SweepError (or PlanError, PlacementError, LedgerError) before anything is made, and
        Interrupted after what was standing is released. Trials that fail are in `failed`.
        """
        if os.geteuid() != 0:
            raise SweepError(
                f"user id {os.geteuid()} found, root (0) needed to place instances; use sudo"
            )
        with self._signals(), alone(self._stop_if_ended):
            # CPUs that a killed sweep left offline would be taken for another host.
            if restore(self._inventory):
                self._progress.say("put back what a sweep that was cut off had changed of the host")
            self._progress.say("examining the host (booting the guest kernel under KVM, to see)")
            doctor = examine(self._inventory)
            image = self._image(doctor)
            self._platforms(doctor)
            laid = design(self.plan, doctor)
            self.folder.mkdir(parents=True, exist_ok=True)
            with Ledger(self.folder / "ledger.sqlite") as ledger:
                ledger.begin(
                    _identity(self.plan, laid, doctor, image),
                    [(t.id, t.position, t.instance.platform) for t in laid.trials],
                )
                self._write_design(laid, doctor, image)
                self._clear()
                with self._tuned():
                    self._blocks(laid, ledger, doctor, image)

    def _image(self, doctor: dict[str, Any]) -> str:
        image = doctor["facts"]["image"]
        if not image["digest"]:
            raise SweepError("no image found on this host, one is needed; run make testbed")
        if image["key"] != image_key():
            raise SweepError(
                f"the image {image['digest'][:23]} was made of other sources than these (key "
                f"{str(image['key'])[:12]} found, {image_key()[:12]} needed); run make testbed"
            )
        return str(image["digest"])

    def _platforms(self, doctor: dict[str, Any]) -> None:
        """Refuse a plan whose platform is down: left out, it would be missed only in the report."""
        for row in doctor["platforms"]:
            if row["platform"] in self.plan.platforms and row["status"] == "unavailable":
                raise SweepError(
                    f"{row['platform']} is unavailable: {row['reason']}; {row['remedy']}, or take "
                    f"{row['platform']} out of the plan"
                )

    def _write_design(self, laid: Design, doctor: dict[str, Any], image: str) -> None:
        plan = yaml.safe_dump(self.plan.model_dump(mode="json"), sort_keys=False)
        records.write_text(self.folder / "plan.yml", plan)
        records.write_json(self.folder / "doctor.json", doctor)
        head = {
            "sweep": self.plan.name,
            "plan_digest": self.plan.digest(),
            "seed": self.plan.seed,
            "image_digest": image,
            "precision": self.plan.precision,
            "min_replicates": self.plan.min_replicates,
        }
        write_design(self.folder, laid, head)

    @contextmanager
    def _tuned(self) -> Iterator[None]:
        """Quieten the host meanwhile, if the plan asks for it; whatever happens, put it back."""
        if not self.plan.tuning:
            yield
            return
        try:
            outcome = playbooks.play("tune", {}, [self._inventory])
            if not outcome.ok:
                raise SweepError(f"the host could not be tuned: {outcome.message}")
            yield
        finally:
            restore(self._inventory)

    def _clear(self) -> None:
        """Release what a sweep that was killed left on the host, whichever it was."""
        _end_strays()
        outcome = playbooks.play("clear", {}, [self._inventory])
        if not outcome.ok:
            raise SweepError(
                f"the host could not be cleared of what an earlier sweep may have left: "
                f"{outcome.message}; run make teardown, then make testbed"
            )
        if any(result.get("changed") for results in outcome.results.values() for result in results):
            self._progress.say("released what a sweep that was cut off had left")

    def _blocks(self, laid: Design, ledger: Ledger, doctor: dict[str, Any], image: str) -> None:
        done = {i for i in ledger.done() if (self.folder / "trials" / i / "result.json").exists()}
        missing = [t for t in laid.trials if t.id not in done]
        self._progress.begin(len(laid.trials), missing, ledger.seconds())
        self._since = time.monotonic()
        replicate = 0
        unneeded: Collection[str] = ()
        for _, block in groupby(missing, key=lambda t: t.block):
            trials = list(block)
            # Once a replicate: every cell of it is then decided upon the same evidence.
            if self.plan.precision is not None and trials[0].replicate != replicate:
                replicate = trials[0].replicate
                unneeded = unneeded_trials(self.folder)
            for trial in trials:
                if trial.id in unneeded:
                    self._progress.unneeded(trial)
            trials = [t for t in trials if t.id not in unneeded]
            if not trials:
                continue
            # A folder of its own for the key of a guest, gone with the instance.
            run_dir = RUN / self.plan.name
            shutil.rmtree(run_dir, ignore_errors=True)
            run_dir.mkdir(parents=True, mode=0o700)
            instance = asdict(trials[0].instance)
            variables = {
                "virtbed_instance": instance,
                "virtbed_image_digest": image,
                "virtbed_run_dir": str(run_dir),
            }
            released = False
            try:
                released = self._block(trials, ledger, doctor, variables)
            finally:
                if not released:
                    self._release(instance)
                shutil.rmtree(run_dir, ignore_errors=True)
            self._stop_if_ended()

    def _block(
        self, trials: list[Trial], ledger: Ledger, doctor: dict[str, Any],
        variables: dict[str, Any],
    ) -> bool:  # fmt: skip
        """Carry out the trials of one instance; return whether it is released already."""
        self._stop_if_ended()
        _end_strays()
        waiting = {trial.id: trial for trial in trials}
        attempts = {trial.id: ledger.attempt(trial.id) for trial in trials}
        self._progress.doing(trials[0])

        def close(trial: Trial, error: str) -> None:
            del waiting[trial.id]
            # With what came before it: its instance, and the release of the one before.
            now = time.monotonic()
            seconds, self._since = now - self._since, now
            ledger.close(trial.id, "failed" if error else "done", seconds)
            if error:
                self.failed.append(trial.id)
            self._progress.done(trial, seconds, error)
            if waiting:
                self._progress.doing(next(iter(waiting.values())))

        def heard(module: str, result: dict[str, Any]) -> None:
            if module == "trial_outcome" and not self._ended:
                came = result["outcome"]
                trial = waiting[came["id"]]
                close(trial, self._record(trial, attempts[trial.id], came, doctor, variables))

        asked = [self._asked(trial, doctor) for trial in trials]
        with _kept_to(trials[0].instance.housekeeping, doctor["host"]):
            outcome = playbooks.play(
                "block",
                variables | {"virtbed_trials": asked},
                [self._inventory],
                cancelled=lambda: self._ended,
                heard=heard,
            )
        self._stop_if_ended()
        # Without an instance no trial ran; without its connection the rest of them did not.
        stage = "provision" if len(waiting) == len(trials) else "trial"
        for trial in list(waiting.values()):
            self._fail(trial, attempts[trial.id], stage, outcome.message, None)
            close(trial, outcome.message)
        return outcome.ok

    def _asked(self, trial: Trial, doctor: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": trial.id,
            "argv": trial.argv(self.plan.seed),
            "threads": trial.threads,
            "isa": isa_needed(doctor, trial),
            "timeout_s": trial.timeout_s,
        }

    def _record(
        self, trial: Trial, attempt: int, came: dict[str, Any], doctor: dict[str, Any],
        variables: dict[str, Any],
    ) -> str:  # fmt: skip
        """Write what came of a trial; return why it failed, or nothing."""
        failure, process = came["failure"], came["process"]
        error = playbooks.failure_message(failure["task"], failure["result"]) if failure else ""
        evidence = {
            "schema": records.EVIDENCE_SCHEMA,
            "trial": trial.id,
            "asked": variables["virtbed_instance"] | {"image": variables["virtbed_image_digest"]},
            **{moment: came["evidence"].get(moment) for moment in ("before", "inside", "after")},
            "process_wall_ns": process.get("wall_ns"),
            "attested": not error,
            "mismatches": [error] if error else [],
        }
        if error:
            self._fail(trial, attempt, "trial", error, evidence)
            return error
        document = dict(process["document"])
        files = document.pop("files")
        identity = self._identity(trial, attempt, doctor, variables)
        result = document | {"trial": identity | {"started_at": came["started_at"]}}
        try:
            records.write_trial(self.folder / "trials" / trial.id, result, evidence, files)
        except records.RecordError as refused:
            self._fail(trial, attempt, "record", str(refused), evidence)
            return str(refused)
        return ""

    def _identity(
        self, trial: Trial, attempt: int, doctor: dict[str, Any], variables: dict[str, Any]
    ) -> dict[str, Any]:
        names = ("platform", "machine", "enclosure", "mode", "cores", "memory_mib", "accelerator")
        return {
            "id": trial.id,
            "sweep": self.plan.name,
            "plan_digest": self.plan.digest(),
            **{name: getattr(trial.instance, name) for name in names},
            "variant": trial.variant,
            "application": trial.application,
            "scale": trial.scale,
            "processor": trial.processor,
            "replicate": trial.replicate,
            "position": trial.position,
            "emulated": trial.emulated,
            "host": doctor["host"],
            "image_digest": variables["virtbed_image_digest"],
            "attempt": attempt,
        }

    def _fail(
        self, trial: Trial, attempt: int, stage: str, message: str, evidence: dict[str, Any] | None
    ) -> None:
        records.write_failure(
            self.folder / "trials" / trial.id,
            {
                "schema": records.FAILURE_SCHEMA,
                "id": trial.id,
                "stage": stage,
                "message": message,
                "attempt": attempt,
                "at": records.now(),
            },
            evidence,
        )

    def _release(self, instance: dict[str, Any]) -> None:
        """Release an instance whatever happens; a second signal does not stop this."""
        _end_strays()
        outcome = playbooks.play("release", {"virtbed_instance": instance}, [self._inventory])
        if not outcome.ok:
            raise SweepError(
                f"{instance['id']} could not be released: {outcome.message}; run make teardown"
            )

    def _stop_if_ended(self) -> None:
        if self._ended:
            raise Interrupted("interrupted; nothing is left standing, and the next call goes on")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def end(*_: object) -> None:
            self._ended = True
            # No more than this: whoever reads our output may have been ended by the same Ctrl-C.
            with suppress(OSError):
                os.write(sys.stderr.fileno(), b"\nending: releasing what is standing\n")

        before = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _kept_to(cpus: str, host: str) -> Iterator[None]:
    """Keep this process, and what it starts, to some CPUs, if it runs on the bench host itself."""
    if os.uname().nodename != host:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, parse_cpu_list(cpus))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def restore(inventory: Path = LOCAL) -> bool:
    """Put back the settings and CPUs that a sweep changed; return whether any had been changed.

    Raises SweepError if one does not take its old value.
    """
    outcome = playbooks.play("restore", {}, [inventory])
    if not outcome.ok:
        raise SweepError(
            f"the host's settings could not be put back: {outcome.message}; run virtbed restore"
        )
    modules = ("host_tuning", "cpu_hotplug")
    return any(r.get("changed") for name in modules for r in outcome.results.get(name, []))


def write_design(folder: Path, laid: Design, head: Mapping[str, Any]) -> None:
    """Write design.json: `head`, every trial in its order, and what is left out."""
    trials = [
        {
            "id": t.id,
            "platform": t.instance.platform,
            "mode": t.instance.mode,
            "cores": t.instance.cores,
            "variant": t.variant,
            "application": t.application,
            "scale": t.scale,
            "processor": t.processor,
            "scenario": t.scenario,
            "thread_policy": t.threads,
            "replicate": t.replicate,
            "block": t.block,
            "position": t.position,
            "emulated": t.emulated,
        }
        for t in laid.trials
    ]
    records.write_json(
        folder / "design.json",
        {
            "schema": records.DESIGN_SCHEMA,
            **head,
            "accelerator": laid.accelerator,
            "trials": trials,
            "not_run": [asdict(n) for n in laid.not_run],
        },
    )


def _end_strays() -> None:
    if left := playbooks.end_strays():
        raise SweepError(f"processes {left} of a playbook that was cut off do not end; kill them")


def _identity(plan: Plan, laid: Design, doctor: dict[str, Any], image: str) -> dict[str, str]:
    """Return what must not change between two calls, lest one cell mixes two platforms."""
    facts = doctor["facts"]
    engines = ["docker"] if "cn" in plan.platforms else []
    engines += ["libvirt", "qemu"] if {"vm", "vmcn"} & set(plan.platforms) else []
    return {
        "plan": plan.digest(),
        "image": image,
        "accelerator": str(laid.accelerator),
        "host": doctor["host"],
        "kernel": facts["kernel"],
        "cpus": ",".join(map(str, facts["cpu"]["allowed"])),
        **{engine: str(facts[engine]["version"]) for engine in engines},
    }


@contextmanager
def alone(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold this controller's lock: what runs beside a sweep would be measured along with it.

    A sweep that was just killed may still be releasing its instance, so its end is waited for;
    `check` is called meanwhile, and may raise. Raises SweepError after LOCK_WAIT_S seconds.
    """
    lock = RUN / "lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        file = lock.open("w")
    except PermissionError:  # not root, who alone can sweep and probe
        yield
        return
    with file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(file):
            if time.monotonic() > deadline:
                raise SweepError(
                    "another sweep runs on this machine, and this would be measured along with it "
                    f"({LOCK_WAIT_S} s waited); wait for its end, or end it (Ctrl-C)"
                )
            check()
            time.sleep(0.5)
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_applications(plan: Plan, known: Mapping[str, Collection[str]]) -> None:
    """Raise PlanError unless each application exists at its scale; `known` maps name to scales."""
    for application in plan.applications:
        for scale in (application.scale, plan.emulated.scale):
            if scale not in known.get(application.name, ()):
                offered = ", ".join(f"{n} ({'/'.join(s)})" for n, s in sorted(known.items()))
                raise PlanError(
                    f"applications: {application.name!r} at scale {scale!r} does not exist; "
                    f"there are: {offered}"
                )
