"""The interface of an application: the steps that the harness times and the metadata it records.

Application modules implement `Application`; `harness` calls it. docs/how-to/application.md has a
whole module as an example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


class ApplicationError(Exception):
    """An application cannot do its work; the message names what was found and what is needed."""


@dataclass(frozen=True)
class Description:
    """The loaded model, as it is written into every result."""

    model: str
    weights: str
    """``trained``, ``seeded`` (random: same cost, meaningless answers) or ``none`` (no model)."""


@dataclass(frozen=True)
class Check:
    """The comparison of one answer with the expected answer to its input."""

    right: bool
    expected: str
    score: float | None = None
    """Quality of the answer, where it is a number: a probability, an overlap."""


class Application(ABC):
    """One pipeline from bytes to an answer, at one scale.

    A trial creates one instance and calls it for every request: `preprocess`, `infer`,
    `postprocess`, in this order.

    A module that holds applications imports its frameworks at the top: the harness imports the
    module only when the application is chosen, and that import is timed.
    """

    version: ClassVar[str]
    """Increase it with every change after which results cannot be compared with earlier ones."""
    keras: ClassVar[bool] = True
    """Whether the application runs a Keras model; the application null does not."""

    @abstractmethod
    def load(self) -> Description:
        """Load everything that is not per request: weights, graph, labels.

        Raises:
            ApplicationError: A needed file or package is missing.
        """

    def threads(self) -> tuple[int, int]:
        """Return the threads within one operation and of concurrent operations, as in `backend`.

        Called after `load`, unless the application runs a Keras model. Read both back from the
        runtime: a trial with matched threads is refused if they are not the number of usable cores.
        The default, 0, means that the runtime chooses.
        """
        return 0, 0

    @abstractmethod
    def inputs(self) -> Mapping[str, bytes]:
        """Return the requests by name, in memory, because disk reads are not timed."""

    @abstractmethod
    def preprocess(self, request: bytes) -> Any:
        """Turn a request into the model's input.

        Raises:
            ApplicationError: The request is invalid. The message names the value found and the
                value needed; the harness adds the request's name.
        """

    @abstractmethod
    def infer(self, features: Any) -> Any:
        """Run the model; return only when the result is in the host's memory."""

    @abstractmethod
    def postprocess(self, outputs: Any) -> Any:
        """Turn the model's outputs into the answer that a user would receive."""

    @abstractmethod
    def describe(self, answer: Any) -> str:
        """Write the answer as one line, rounded so that it is equal on every platform. Not timed.

        The digest of these lines is compared across platforms. So the rounding must be coarser than
        the differences between instruction sets, and no answer may be close to a rounding boundary.
        """

    @abstractmethod
    def check(self, name: str, answer: Any) -> Check:
        """Compare the answer to the input ``name`` with the expected answer. Not timed."""
