"""Question answering: right and robust answers, refusals, and the published weights.

These tests run in the image, which has the frameworks and the published weights.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.models import bert
from virtbed_workloads.question_answering import BertBase, Features, Outputs, read_model
from virtbed_workloads.registry import APPLICATIONS


@pytest.fixture(scope="module", params=("trained", "mlperf", "tiny"))
def application(request: pytest.FixtureRequest) -> Any:
    made = APPLICATIONS["question_answering"].create(request.param)
    made.load()
    return made


def test_every_question_has_the_right_answer_and_noise_does_not_change_it(
    application: Any,
) -> None:
    noise = np.random.default_rng(1)
    answers = set()
    for name, request in application.inputs().items():
        outputs = application.infer(application.preprocess(request))
        answer = application.postprocess(outputs)
        check = application.check(name, answer)
        assert check.right, (name, application.describe(answer), check)
        answers.add(application.describe(answer))
        # The differences between instruction sets are far smaller.
        factor = (1 + 1e-3 * noise.standard_normal(outputs.values.shape)).astype("float32")
        disturbed = dataclasses.replace(outputs, values=outputs.values * factor)
        again = application.postprocess(disturbed)
        assert application.describe(again) == application.describe(answer)
    assert len(answers) == len(application.inputs())


def test_bad_texts_are_refused(application: Any) -> None:
    for request, found in (
        (b"", "0 paragraphs"),
        (b"\n\n  \n\n", "0 paragraphs"),
        (b"Only a question?", "1 paragraphs"),
        (b"caf\xe9\n\nlatin-1", "byte 3 is not UTF-8"),
    ):
        with pytest.raises(ApplicationError, match=found):
            application.preprocess(request)


def test_padding_changes_no_ranking() -> None:
    """A passage has the same score alone as next to a longer one, whose length pads it."""
    application = APPLICATIONS["question_answering"].create("tiny")
    application.load()
    short = b"Why?\n\nBecause it rained."
    alone, padded = (
        application.postprocess(application.infer(application.preprocess(request)))
        for request in (short, short + b"\n\n" + b"long " * 40)
    )
    score = dict(zip(padded.order, padded.scores, strict=True))[0]
    assert score == pytest.approx(alone.scores[0], abs=1e-5)


def test_a_span_is_found_in_the_document_and_not_too_long() -> None:
    application = BertBase()
    length = application.length
    text = " ".join(f"w{index:03d}" for index in range(length))
    offsets = np.array([[(5 * index, 5 * index + 4) for index in range(length)]], "int32")
    segments = np.ones((1, length), "int32")
    segments[0, :10] = 0  # the question
    features = Features(segments, segments, np.ones((1, length), "float32"), [text], offsets)

    def answer(starts: dict[int, float], ends: dict[int, float]) -> str:
        values = np.zeros((1, length, 2), "float32")
        for index, marks in enumerate((starts, ends)):
            for place, value in marks.items():
                values[0, place, index] = value
        return str(application.postprocess(Outputs(values, features)).text)

    assert answer({20: 5}, {22: 5}) == "w020 w021 w022"
    assert answer({20: 5}, {19: 9, 21: 5}) != "w019"  # the end is not before the start
    assert answer({3: 9, 30: 5}, {5: 9, 30: 5}) == "w030"  # the span is not in the question
    # A span has at most thirty tokens, so the farther end is not chosen.
    assert answer({40: 5}, {69: 5, 70: 9}) == " ".join(f"w{i:03d}" for i in range(40, 70))


def test_a_long_document_takes_several_windows_that_overlap() -> None:
    application = BertBase()
    application.load()
    document = " ".join(f"word{index}" for index in range(600)).encode()
    features = application.preprocess(b"Which?\n\n" + document)
    assert len(features.tokens) > 1
    assert features.tokens.shape[1] == application.length
    ends = features.offsets[0].max()
    starts = features.offsets[1][features.segments[1] == 1][:, 0].min()
    assert starts < ends


def test_the_encoder_agrees_with_the_published_weights_in_double_precision() -> None:
    """MiniLM in NumPy with the weights of the state dict, compared with the Keras model."""
    state = {k: v.astype(float) for k, v in load(read_model("model.safetensors")).items()
             if k != "embeddings.position_ids"}  # fmt: skip
    tokens = np.array([[101, 2339, 2515, 1037, 4542, 102], [101, 2158, 102, 0, 0, 0]])
    mask = (tokens > 0).astype(float)

    def dense(x: Any, name: str) -> Any:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * state[f"{name}.LayerNorm.weight"] + state[f"{name}.LayerNorm.bias"]

    x = state["embeddings.word_embeddings.weight"][tokens]
    x = x + state["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(x + state["embeddings.token_type_embeddings.weight"][0], "embeddings")
    rows, length, width = x.shape
    for index in range(6):
        layer = f"encoder.layer.{index}"

        def heads(name: str, x: Any = x, layer: str = layer) -> Any:
            split = dense(x, f"{layer}.attention.self.{name}").reshape(rows, length, 12, 32)
            return split.transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.sqrt(32)
        shares = np.exp(scores - scores.max(-1, keepdims=True)) * mask[:, None, None]
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ heads("value")).transpose(0, 2, 1, 3).reshape(rows, length, width)
        x = norm(x + dense(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        wide = dense(x, f"{layer}.intermediate.dense")
        wide = wide * (1 + np.vectorize(math.erf)(wide / np.sqrt(2))) / 2
        x = norm(x + dense(wide, f"{layer}.output.dense"), f"{layer}.output")

    model = bert.build(bert.MINILM)
    bert.set_weights(model, load(read_model("model.safetensors")))
    places = np.broadcast_to(np.arange(length), tokens.shape)
    ours = np.asarray(model([tokens, np.zeros_like(tokens), places, mask]))
    np.testing.assert_allclose(ours * mask[..., None], x * mask[..., None], atol=1e-4)
