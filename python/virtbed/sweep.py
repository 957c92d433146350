"""Knows alone how a sweep goes on: blocks, releases, records, interruptions."""

from __future__ import annotations

import fcntl
import json
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
from virtbed.design import Design, Trial, design
from virtbed.image import REPOSITORY, image_key
from virtbed.ledger import Ledger
from virtbed.plan import Plan, PlanError
from virtbed.progress import Progress

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
        trials = [
            {
                "id": t.id,
                "platform": t.instance.platform,
                "mode": t.instance.mode,
                "cores": t.instance.cores,
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
            self.folder / "design.json",
            {
                "schema": records.DESIGN_SCHEMA,
                "sweep": self.plan.name,
                "plan_digest": self.plan.digest(),
                "seed": self.plan.seed,
                "image_digest": image,
                "accelerator": laid.accelerator,
                "trials": trials,
                "not_run": [asdict(n) for n in laid.not_run],
            },
        )

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
        for _, block in groupby(missing, key=lambda t: t.block):
            trials = list(block)
            # A folder of its own for key and inventory, gone with the instance.
            run_dir = RUN / self.plan.name
            shutil.rmtree(run_dir, ignore_errors=True)
            run_dir.mkdir(parents=True, mode=0o700)
            instance = asdict(trials[0].instance)
            variables = {
                "virtbed_instance": instance,
                "virtbed_image_digest": image,
                "virtbed_run_dir": str(run_dir),
            }
            try:
                self._block(trials, ledger, doctor, variables, run_dir)
            finally:
                self._release(instance)
                shutil.rmtree(run_dir, ignore_errors=True)
            self._stop_if_ended()

    def _block(
        self, trials: list[Trial], ledger: Ledger, doctor: dict[str, Any],
        variables: dict[str, Any], run_dir: Path,
    ) -> None:  # fmt: skip
        self._stop_if_ended()
        self._progress.doing(trials[0], "provision")
        begun = time.monotonic()
        provisioned = playbooks.play(
            "provision", variables, [self._inventory], cancelled=lambda: self._ended
        )
        self._stop_if_ended()
        for trial in trials:
            attempt = ledger.attempt(trial.id)
            if provisioned.ok:
                self._progress.doing(trial, "run")
                error = self._trial(trial, attempt, doctor, variables, run_dir)
            else:
                error = provisioned.message
                self._fail(trial, attempt, "provision", error, None)
            seconds = time.monotonic() - begun
            ledger.close(trial.id, "failed" if error else "done", seconds)
            if error:
                self.failed.append(trial.id)
            self._progress.done(trial, seconds, error)
            begun = time.monotonic()

    def _trial(
        self, trial: Trial, attempt: int, doctor: dict[str, Any], variables: dict[str, Any],
        run_dir: Path,
    ) -> str:  # fmt: skip
        """Run one trial and record it; return why it failed, or nothing."""
        spool = run_dir / "outcome.json"
        spool.unlink(missing_ok=True)
        started_at = records.now()
        outcome = playbooks.play(
            "trial",
            variables
            | {
                "virtbed_trial": {
                    "id": trial.id,
                    "argv": trial.argv(self.plan.seed),
                    "timeout_s": trial.timeout_s,
                    "spool": str(spool),
                }
            },
            [self._inventory, run_dir / "inventory.yml"],
            cancelled=lambda: self._ended,
        )
        self._stop_if_ended()
        came = json.loads(spool.read_text()) if spool.exists() else {}
        evidence = {
            "schema": records.EVIDENCE_SCHEMA,
            "trial": trial.id,
            "asked": variables["virtbed_instance"] | {"image": variables["virtbed_image_digest"]},
            **{m: came.get("evidence", {}).get(m) for m in ("before", "inside", "after")},
            "attested": outcome.ok,
            "mismatches": [] if outcome.ok else [outcome.message],
        }
        if not outcome.ok:
            self._fail(trial, attempt, "trial", outcome.message, evidence)
            return outcome.message
        document = came["document"]
        files = document.pop("files")
        result = document | {
            "trial": self._identity(trial, attempt, doctor, variables) | {"started_at": started_at}
        }
        try:
            records.write_trial(self.folder / "trials" / trial.id, result, evidence, files)
        except records.RecordError as error:
            self._fail(trial, attempt, "record", str(error), evidence)
            return str(error)
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
