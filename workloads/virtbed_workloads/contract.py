"""Knows what an application is: the five steps the harness times, and what it says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


class ApplicationError(Exception):
    """An application cannot do its work; the message names what was found and what is needed."""


@dataclass(frozen=True)
class Description:
    """What was loaded; written into every result."""

    model: str
    weights: str
    """``trained`` or ``seeded``: seeded weights cost the same and know nothing."""
    frameworks: Mapping[str, str] = field(default_factory=dict)
    intra_op_threads: int = 0
    """Threads within one operation; 0 is the framework's own choice."""
    inter_op_threads: int = 0
    """Operations at a time; 0 is the framework's own choice."""


@dataclass(frozen=True)
class Check:
    """One answer held against what is known of its input."""

    right: bool
    answer: str
    """The answer, rounded to its tolerance: equal on every platform, and so digested."""
    expected: str
    score: float | None = None


class Application(ABC):
    """One pipeline from bytes to an answer. A trial makes one, loads it once, and calls it often.

    A module that holds an application imports its frameworks at the top: the harness imports the
    module only when the application is chosen, and that import is timed.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    """Raised whenever results before and after must not be compared."""

    @abstractmethod
    def load(self, scale: str, seed: int) -> Description:
        """Make ready all that is not per request: weights, graph, labels.

        Args:
            scale: One of the scales that the registry lists for this application.
            seed: For whatever is random. Equal seeds, equal answers.

        Raises:
            ApplicationError: Something needed is missing.
        """

    @abstractmethod
    def inputs(self) -> Mapping[str, bytes]:
        """Return the requests by name, read into memory: reading a disk is not timed."""

    @abstractmethod
    def preprocess(self, request: bytes) -> Any:
        """Turn a request into what the model takes."""

    @abstractmethod
    def infer(self, features: Any) -> Any:
        """Run the model; return only once the result lies in the host's memory."""

    @abstractmethod
    def postprocess(self, outputs: Any) -> Any:
        """Turn the model's outputs into the answer a user would be sent."""

    @abstractmethod
    def check(self, name: str, answer: Any) -> Check:
        """Hold the answer to the input called ``name`` against what is known. Not timed."""
