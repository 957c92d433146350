"""Checks of the results in a folder that this call does not carry out, such as another shard's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from virtbed import ledger_view, records
from virtbed.ledger import NAME, Digests, LedgerError
from virtbed.sweep.standing import BadResultError, read_result, trusted, unchanged
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.identifiers import FAILURE
from virtbed_contract.objections import Planned
from virtbed_contract.sweep import Design, Failure


@dataclass(frozen=True)
class Judge:
    """Checks whether a trial's folder holds a valid result of a design.

    Attributes:
        folder: The results folder.
        design: Its design.
        hosts: The names of the hosts whose results it may hold; None for any host.
    """

    folder: Path
    design: Design
    hosts: Collection[str] | None

    @cached_property
    def planned(self) -> Planned:
        """What the design plans."""
        return Planned.of(self.design)

    @cached_property
    def known(self) -> Mapping[str, Digests]:
        """The digests that the folder's ledger knows, by trial; empty if it cannot be read."""
        ledger = self.folder / NAME
        try:
            return ledger_view.digests(ledger) if ledger.exists() else {}
        except LedgerError:
            return {}

    def check(self, place: Path) -> tuple[Mapping[str, Any], Digests]:
        """Return labels and digests of the valid result in a trial's folder.

        Raises:
            BadResultError: It is damaged, belongs to another trial or sweep, was changed, or the
                report would leave it out.
        """
        if place.is_symlink():
            raise BadResultError("it is a symbolic link")
        if place.name in self.known:
            unchanged(place, self.known[place.name])
        result, proof = read_result(place)
        try:
            found = records.digests(place)
        except OSError as error:
            raise BadResultError(str(error)) from error
        trial = result["trial"]
        for name, value, needed in self._labels(trial, place.name):
            if value != needed:
                raise BadResultError(f"result.json: {name} {value!r} found, {needed!r} needed")
        if self.hosts is not None and trial["host"] not in self.hosts:
            hosts = ", ".join(sorted(self.hosts))
            raise BadResultError(f"result.json: host {trial['host']!r} found, {hosts} needed")
        trusted(result, proof, self.planned)
        return trial, found

    def failure(self, place: Path) -> Failure:
        """Return the failure in a trial's folder.

        Raises:
            BadResultError: It is damaged, or belongs to another trial or sweep.
        """
        try:
            found = decode(Failure, json_file.read(place / "failure.json"), "failure.json")
        except DocumentError as error:
            raise BadResultError(str(error)) from error
        planned = place.name in self.planned.trials
        if (found.schema, found.id) != (FAILURE, place.name) or not planned:
            raise BadResultError(
                f"failure.json: trial {found.id} found; {place.name}, planned in design.json, "
                "needed"
            )
        return found

    def _labels(self, trial: Mapping[str, Any], name: str) -> Iterator[tuple[str, object, object]]:
        """Yield name, found value and needed value of each label of a result."""
        if name not in self.planned.trials:
            raise BadResultError("it is not among the trials that design.json plans")
        labels = {
            **self.planned.trials[name],
            "plan_digest": self.design.plan_digest,
            "image_digest": self.design.image_digest,
        }
        for key, needed in labels.items():
            if key in trial:
                yield key, trial[key], needed
