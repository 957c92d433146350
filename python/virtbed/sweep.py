"""Knows alone how a sweep goes on: blocks, releases, records, interruptions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from virtbed import host, playbooks, records
from virtbed.checkout import commit
from virtbed.design import Design, Trial, design, isa_needed
from virtbed.image import REPOSITORY, image_key
from virtbed.ledger import Ledger
from virtbed.outcome import evidence_of, result_of
from virtbed.plan import Plan, PlanError
from virtbed.progress import Progress
from virtbed_analysis import unneeded_trials

# Ansible's start costs as much as many tasks; its list of what is to come grows with each block.
BLOCKS_A_PLAYBOOK = 20


class SweepError(RuntimeError):
    """A sweep that cannot begin or go on; nothing of it is left on the host."""


class Interrupted(SweepError):
    """The user ended the sweep; what was standing is released, and the next call goes on."""


class Sweep:
    """One plan carried out on one host, into results/<plan name>."""

    def __init__(
        self, plan: Plan, progress: Progress, inventory: Path = host.LOCAL,
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
        with self._signals(), host.alone(self._stop_if_ended):
            # CPUs that a killed sweep left offline would be taken for another host.
            if host.restore(self._inventory):
                self._progress.say("put back what a sweep that was cut off had changed of the host")
            self._progress.say("examining the host (booting the guest kernel under KVM, to see)")
            doctor = host.examine(self._inventory)
            image = self._image(doctor)
            self._platforms(doctor)
            laid = design(self.plan, doctor)
            self.folder.mkdir(parents=True, exist_ok=True)
            with Ledger(self.folder / "ledger.sqlite") as ledger:
                ledger.begin(
                    _identity(self.plan, laid, doctor, image),
                    [(t.id, t.position, t.instance.platform) for t in laid.trials],
                )
                missing = self._missing(laid, ledger)
                self._write_design(laid, missing, doctor, image)
                if host.clear(self._inventory):
                    self._progress.say("released what a sweep that was cut off had left")
                with host.tuned(self._inventory) if self.plan.tuning else nullcontext():
                    self._blocks(len(laid.trials), missing, ledger, doctor, image)

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

    def _write_design(
        self, laid: Design, missing: list[Trial], doctor: dict[str, Any], image: str
    ) -> None:
        plan = yaml.safe_dump(self.plan.model_dump(mode="json"), sort_keys=False)
        records.write_text(self.folder / "plan.yml", plan)
        commits = self._commits()
        if missing:  # else this call carries nothing out
            commits = list(dict.fromkeys([*commits, commit()]))
        records.write_json(self.folder / "doctor.json", {**doctor, "commits": commits})
        head = {
            "sweep": self.plan.name,
            "plan_digest": self.plan.digest(),
            "seed": self.plan.seed,
            "image_digest": image,
            "precision": self.plan.precision,
            "min_replicates": self.plan.min_replicates,
        }
        write_design(self.folder, laid, head)

    def _commits(self) -> list[str]:
        """Return the commits of virtbed that carried this sweep out so far."""
        try:
            before = json.loads((self.folder / "doctor.json").read_text())
        except (OSError, ValueError):
            return []
        return list(before.get("commits", [])) if isinstance(before, dict) else []

    def _missing(self, laid: Design, ledger: Ledger) -> list[Trial]:
        done = {i for i in ledger.done() if (self.folder / "trials" / i / "result.json").exists()}
        return [t for t in laid.trials if t.id not in done]

    def _blocks(
        self, planned: int, missing: list[Trial], ledger: Ledger, doctor: dict[str, Any], image: str
    ) -> None:
        self._progress.begin(planned, missing, ledger.seconds())
        self._since = time.monotonic()
        adaptive = self.plan.precision is not None
        # What is no longer needed is known anew after each replicate.
        for _, group in groupby(missing, key=lambda t: t.replicate if adaptive else 0):
            trials = list(group)
            needed = self._needed(trials) if adaptive else trials
            blocks = [list(block) for _, block in groupby(needed, key=lambda t: t.block)]
            while blocks:
                begun = self._carry_out(blocks[:BLOCKS_A_PLAYBOOK], ledger, doctor, image)
                del blocks[:begun]

    def _needed(self, trials: list[Trial]) -> list[Trial]:
        unneeded = unneeded_trials(self.folder)
        for trial in trials:
            if trial.id in unneeded:
                self._progress.unneeded(trial)
        return [t for t in trials if t.id not in unneeded]

    def _carry_out(
        self, blocks: list[list[Trial]], ledger: Ledger, doctor: dict[str, Any], image: str
    ) -> int:
        """Carry out some blocks; return how many: the first that cannot be ends the playbook.

        Whatever happens, no instance is left standing.
        """
        self._stop_if_ended()
        host.end_strays()
        waiting = {trial.id: trial for block in blocks for trial in block}
        attempts = {id_: ledger.attempt(id_) for id_ in waiting}
        begun: list[str] = []

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
            if self._ended:
                return
            if module == "controller_affinity":
                begun.append(result["instance"])
                if result["here"]:
                    host.keep_to(result["cpus"])
            elif module == "trial_outcome":
                came = result["outcome"]
                trial = waiting[came["id"]]
                close(trial, self._record(trial, attempts[trial.id], came, doctor, image))

        self._progress.doing(blocks[0][0])
        ended_well = False
        try:
            with self._keys() as keys, host.affinity_restored():
                outcome = playbooks.play(
                    "block",
                    {
                        "virtbed_bench": doctor["host"],
                        "virtbed_image_digest": image,
                        "virtbed_run_dir": str(keys),
                        "virtbed_tuned": self.plan.tuning,
                    },
                    [self._inventory],
                    cancelled=lambda: self._ended,
                    heard=heard,
                    turns=[
                        {
                            "virtbed_instance": asdict(block[0].instance),
                            "virtbed_trials": [self._asked(trial, doctor) for trial in block],
                        }
                        for block in blocks
                    ],
                )
            ended_well = outcome.ok
        finally:
            if not ended_well:
                host.clear(self._inventory)
        self._stop_if_ended()
        carried_out = blocks if outcome.ok else blocks[: len(begun) or 1]
        for block in carried_out:
            cut_off = not outcome.ok and block is carried_out[-1]
            why = outcome.message if cut_off else "the playbook went on, and told nothing of it"
            left = [trial for trial in block if trial.id in waiting]
            # Without an instance no trial ran; without its connection the rest of them did not.
            stage = "provision" if len(left) == len(block) else "trial"
            for trial in left:
                self._fail(trial, attempts[trial.id], stage, why, None)
                close(trial, why)
        return len(carried_out)

    @contextmanager
    def _keys(self) -> Iterator[Path]:
        """Give a folder of its own for the keys of guests, and remove it."""
        folder = host.RUN / self.plan.name
        shutil.rmtree(folder, ignore_errors=True)  # there is none, unless a sweep was killed
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # the error that ended the sweep is told

    def _asked(self, trial: Trial, doctor: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": trial.id,
            "argv": trial.argv(self.plan.seed),
            "threads": trial.threads,
            "isa": isa_needed(doctor, trial),
            "timeout_s": trial.timeout_s,
        }

    def _record(
        self, trial: Trial, attempt: int, came: dict[str, Any], doctor: dict[str, Any], image: str
    ) -> str:
        """Write what came of a trial; return why it failed, or nothing."""
        failure = came["failure"]
        error = playbooks.failure_message(failure["task"], failure["result"]) if failure else ""
        evidence = evidence_of(trial, came, image, error)
        if error:
            self._fail(trial, attempt, "trial", error, evidence)
            return error
        result = result_of(trial, came, self.plan, doctor["host"], image, attempt)
        files = result.pop("files")
        try:
            records.write_trial(self.folder / "trials" / trial.id, result, evidence, files)
        except records.RecordError as refused:
            self._fail(trial, attempt, "record", str(refused), evidence)
            return str(refused)
        return ""

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
