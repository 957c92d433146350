"""Face detection: right and robust answers, refusals, suppression, and the published networks.

These tests run in the image, which has the frameworks and the published weights.
"""

from typing import Any

import joblib
import numpy as np
import pytest

from virtbed_workloads import face_detection as module
from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.models import mtcnn, ssd_mobilenet
from virtbed_workloads.packaged import package_file
from virtbed_workloads.registry import APPLICATIONS


@pytest.fixture(scope="module", params=("trained", "mlperf", "tiny"))
def application(request: pytest.FixtureRequest) -> Any:
    made = APPLICATIONS["face_detection"].create(request.param)
    made.load()
    return made


def noisy(outputs: Any) -> Any:
    """Return outputs changed by a thousandth, far more than another instruction set does."""
    generator = np.random.default_rng(1)

    def one(array: Any) -> Any:
        factor = 1 + 1e-3 * generator.standard_normal(array.shape)
        return (array * factor).astype(array.dtype)

    return tuple(map(one, outputs)) if isinstance(outputs, tuple) else one(outputs)


def test_every_photograph_has_the_right_answer_and_noise_does_not_change_it(
    application: Any,
) -> None:
    answers = set()
    for name, request in application.inputs().items():
        outputs = application.infer(application.preprocess(request))
        answer = application.postprocess(outputs)
        check = application.check(name, answer)
        assert check.right, (name, application.describe(answer), check)
        answers.add(application.describe(answer))
        again = application.postprocess(noisy(outputs))
        assert application.describe(again) == application.describe(answer), name
    assert len(answers) > 1


def test_bad_photographs_are_refused(application: Any) -> None:
    photograph = module.photograph("six.jpg")
    for request, found in (
        (b"", "0 bytes"),
        (b"no picture at all", "17 bytes"),
        (photograph[: len(photograph) // 2], "truncated"),
    ):
        with pytest.raises(ApplicationError, match=found):
            application.preprocess(request)


def test_a_missing_a_moved_and_an_extra_face_are_wrong() -> None:
    application = module.Mtcnn()
    known = np.array([[*box, 0.99] for box in application.known("six.jpg")], "float32")
    assert application.check("six.jpg", known).right
    moved = known + np.array([60, 60, 60, 60, 0], "float32")
    invented = np.vstack([known, [[0, 0, 9, 9, 0.99]]]).astype("float32")
    doubled = np.vstack([known[:5], known[:1]])  # six boxes, and a face without one
    for wrong in (known[1:], moved, invented, doubled, known[:0]):
        assert not application.check("six.jpg", wrong).right
    assert application.check("coffee.png", known[:0]).right
    assert not application.check("coffee.png", known[:1]).right


def test_suppression_keeps_the_likeliest_of_overlapping_boxes() -> None:
    boxes = np.array(
        [[0, 0, 10, 10, 0.8], [1, 1, 11, 11, 0.9], [50, 50, 60, 60, 0.7], [51, 51, 53, 53, 0.6]],
        "float32",
    )
    assert module.suppress(boxes, 0.5)[:, 4] == pytest.approx([0.9, 0.7, 0.6])
    assert module.suppress(boxes, 0.5, of_smaller=True)[:, 4] == pytest.approx([0.9, 0.7])
    # A suppressed box suppresses no other box.
    chain = np.array([[0, 0, 10, 10, 0.9], [4, 0, 14, 10, 0.8], [8, 0, 18, 10, 0.7]], "float32")
    assert module.suppress(chain, 0.4)[:, 4] == pytest.approx([0.9, 0.7])
    assert len(module.suppress(boxes[:0], 0.5)) == 0


def test_overlap_of_boxes_computed_by_hand() -> None:
    first = np.array([[0, 0, 2, 2, 1]], "float32")
    others = np.array([[1, 0, 3, 2, 1], [0, 0, 1, 1, 1], [5, 5, 6, 6, 1]], "float32")
    assert module.overlap(first, others)[0] == pytest.approx([1 / 3, 1 / 4, 0])
    assert module.overlap(first, others, of_smaller=True)[0] == pytest.approx([1 / 2, 1, 0])


def test_boxes_are_widened_around_their_centres() -> None:
    assert module.square(np.array([[0, 10, 10, 30, 0.5]], "float32"))[0] == pytest.approx(
        [-5, 10, 15, 30, 0.5]
    )


def test_anchors_are_those_of_ssd_and_zero_offsets_decode_to_the_anchors() -> None:
    anchors = ssd_mobilenet.anchors()
    assert anchors.shape == (1917, 4)
    assert anchors[0, :2] == pytest.approx([0.5 / 19, 0.5 / 19])
    assert anchors[-1, :2] == pytest.approx([0.5, 0.5])
    inner = np.array([[0.5, 0.5, 0.2, 0.4]], "float32")
    still = ssd_mobilenet.decode(np.zeros((1, 4), "float32"), inner)
    assert still[0] == pytest.approx([0.4, 0.3, 0.6, 0.7])
    moved = ssd_mobilenet.decode(np.array([[1, 0, 0, np.log(0.5) / 0.2]], "float32"), inner)
    assert moved[0] == pytest.approx([0.42, 0.4, 0.62, 0.6])


def test_the_refinement_net_agrees_with_the_published_weights() -> None:
    """R-Net in NumPy with the weights from the file, compared with the Keras model."""
    weights = joblib.load(package_file("mtcnn", "assets/weights/rnet.lz4"))
    values = iter([np.asarray(w, float) for w in weights])
    crop = np.random.default_rng(1).uniform(-1, 1, (24, 24, 3))

    def prelu(x: Any) -> Any:
        slope = next(values).reshape(-1)
        return np.where(x > 0, x, x * slope)

    def convolve(x: Any) -> Any:
        kernel, bias = next(values), next(values)
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
        return prelu(np.einsum("yxcij,ijco->yxo", windows, kernel) + bias)

    def pool(x: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))
        return windows[::2, ::2].max(axis=(3, 4))

    x = convolve(crop)
    x = pool(np.pad(x, ((0, 1), (0, 1), (0, 0)), constant_values=-np.inf))
    x = convolve(pool(convolve(x)))
    kernel, bias = next(values), next(values)
    x = prelu(x.transpose(1, 0, 2).ravel() @ kernel + bias)
    offsets = x @ next(values) + next(values)
    logits = x @ next(values) + next(values)
    likelihoods = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()

    network = mtcnn.trained(mtcnn.refinement(), "rnet")
    ours = [np.asarray(o)[0] for o in network(crop[np.newaxis].astype("float32"))]
    np.testing.assert_allclose(ours[0], offsets, atol=1e-4)
    np.testing.assert_allclose(ours[1], likelihoods, atol=1e-4)
