"""Knows how to misbehave on request: a fake application, for tests of the harness and runner only.

The environment variable ``VIRTBED_NULL`` chooses what goes wrong: ``wrong`` (one wrong answer),
``fails`` (loading fails), ``noisy`` (native code prints to standard output). Unset, all is well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from virtbed_workloads.contract import Application, ApplicationError, Check, Description


class Null(Application):
    """Measures the length of three texts."""

    name: ClassVar[str] = "null"
    version: ClassVar[str] = "1"

    def load(self, scale: str, seed: int) -> Description:
        """Load nothing."""
        self._fault = os.environ.get("VIRTBED_NULL", "")
        if self._fault == "fails":
            raise ApplicationError("null: VIRTBED_NULL=fails found, asked to fail; unset it")
        return Description(model="none", weights="seeded")

    def inputs(self) -> Mapping[str, bytes]:
        """Return three texts, unsorted on purpose."""
        return {"three": b"abc", "one": b"a", "two": b"ab"}

    def preprocess(self, request: bytes) -> str:
        """Decode."""
        return request.decode()

    def infer(self, features: str) -> int:
        """Count, and in noisy mode print as native code does: past Python's ``sys.stdout``."""
        if self._fault == "noisy":
            os.write(1, b"a library's banner\n")
        return len(features)

    def postprocess(self, outputs: int) -> int:
        """Return the count, or one too many in wrong mode."""
        return outputs + (self._fault == "wrong")

    def check(self, name: str, answer: int) -> Check:
        """Compare with the name, which is the count in words."""
        words = ("zero", "one", "two", "three", "four")
        return Check(words[answer] == name, words[answer], name, 1.0)
