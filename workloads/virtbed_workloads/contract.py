"""What an application is: the steps the harness times, and what it says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


class ApplicationError(Exception):
    """An application cannot do its work; the message names what was found and what is needed."""


@dataclass(frozen=True)
class Description:
    """What was loaded; written into every result."""

    model: str
    weights: str
    """``trained``, ``seeded`` (which cost the same and know nothing), or ``none``: no model."""


@dataclass(frozen=True)
class Check:
    """One answer held against what is known of its input."""

    right: bool
    expected: str
    score: float | None = None
    """How good the answer is, where that is a number: a probability, an overlap."""


class Application(ABC):
    """One pipeline from bytes to an answer, at one scale. A trial makes one and calls it often.

    A module that holds applications imports its frameworks at the top: the harness imports the
    module only when the application is chosen, and that import is timed.
    """

    version: ClassVar[str]
    """Raised whenever results before and after must not be compared."""
    keras: ClassVar[bool] = True
    """Whether it runs a Keras model; the application null does not."""

    @abstractmethod
    def load(self) -> Description:
        """Make ready all that is not per request: weights, graph, labels.

        Raises:
            ApplicationError: Something needed is missing.
        """

    @abstractmethod
    def inputs(self) -> Mapping[str, bytes]:
        """Return the requests by name, read into memory: reading a disk is not timed."""

    @abstractmethod
    def preprocess(self, request: bytes) -> Any:
        """Turn a request into what the model takes.

        Raises:
            ApplicationError: The request is not what it should be: what was found, what is needed.
                The harness adds the request's name.
        """

    @abstractmethod
    def infer(self, features: Any) -> Any:
        """Run the model; return only once the result lies in the host's memory."""

    @abstractmethod
    def postprocess(self, outputs: Any) -> Any:
        """Turn the model's outputs into the answer a user would be sent."""

    @abstractmethod
    def describe(self, answer: Any) -> str:
        """Write the answer as one line, rounded so that it is equal on every platform. Not timed.

        Rounding must be coarser than what another instruction set changes, and the answers to the
        inputs must not lie on its edges: the digest of these lines is compared across platforms.
        """

    @abstractmethod
    def check(self, name: str, answer: Any) -> Check:
        """Hold the answer to the input called ``name`` against what is known of it. Not timed."""
