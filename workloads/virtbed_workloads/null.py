"""An application that computes nothing and misbehaves on request, for tests of the testbed.

Its results have `weights` none, so the analysis does not use its times as a measurement.

The environment variable ``VIRTBED_NULL`` chooses the fault: ``wrong`` (a wrong answer), ``fails``
(loading fails), ``broken`` (a request is not text), ``fickle`` (a later answer differs), ``noisy``
(native code prints to standard output). Unset, there is no fault.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import ClassVar

from virtbed_workloads.contract import Application, ApplicationError, Check, Description

INFER_S = 0.005  # long enough for LoadGen's clock and the harness's to be compared


class Null(Application):
    """Measures the length of three texts."""

    version: ClassVar[str] = "3"
    keras: ClassVar[bool] = False

    def load(self) -> Description:
        """Load nothing."""
        self._fault = os.environ.get("VIRTBED_NULL", "")
        self._calls = 0
        if self._fault == "fails":
            raise ApplicationError("VIRTBED_NULL=fails found, so loading fails; unset VIRTBED_NULL")
        return Description(model="none", weights="none")

    def inputs(self) -> Mapping[str, bytes]:
        """Return three texts, unsorted, so that tests see the harness sort them."""
        third = b"\xff" if self._fault == "broken" else b"abc"
        return {"three": third, "one": b"a", "two": b"ab"}

    def preprocess(self, request: bytes) -> str:
        """Decode the text."""
        try:
            return request.decode()
        except UnicodeDecodeError:
            raise ApplicationError(f"{request!r} found, UTF-8 needed") from None

    def infer(self, features: str) -> int:
        """Count the characters; in noisy mode, print past Python's ``sys.stdout`` first."""
        if self._fault == "noisy":
            os.write(1, b"a library's banner\n")
        self._calls += 1
        time.sleep(INFER_S)
        return len(features)

    def postprocess(self, outputs: int) -> int:
        """Return the count, or one too many in wrong mode."""
        return outputs + (self._fault == "wrong") + (self._fault == "fickle" and self._calls > 8)

    def describe(self, answer: int) -> str:
        """Return the count in words."""
        return ("zero", "one", "two", "three", "four")[answer]

    def check(self, name: str, answer: int) -> Check:
        """Compare with the input's name, which is the count in words."""
        return Check(self.describe(answer) == name, name, 1.0)
