"""Medical segmentation: right and robust answers on every grid, refusals, the published network.

These tests run in the image, which has the frameworks and the published weights.
"""

import gzip
from dataclasses import replace
from typing import Any

import nibabel
import numpy as np
import pytest
import tensorflow as tf

from virtbed_workloads import medical_segmentation as module
from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.models import unet
from virtbed_workloads.packaged import package_file
from virtbed_workloads.registry import APPLICATIONS


@pytest.fixture(scope="module", params=("trained", "mlperf", "tiny"))
def application(request: pytest.FixtureRequest) -> Any:
    made = APPLICATIONS["medical_segmentation"].create(request.param)
    made.load()
    return made


def test_every_scan_has_the_right_answer_and_noise_does_not_change_it(application: Any) -> None:
    answers = set()
    for name, request in application.inputs().items():
        outputs = application.infer(application.preprocess(request))
        answer = application.postprocess(outputs)
        check = application.check(name, answer)
        assert check.right, (name, application.describe(answer), check)
        answers.add(application.describe(answer))
        # Change the outputs by a thousandth, far more than another instruction set does.
        factor = 1 + 1e-3 * np.random.default_rng(1).standard_normal(outputs.values.shape)
        noisy = replace(outputs, values=(outputs.values * factor).astype("float32"))
        assert application.describe(application.postprocess(noisy)) == application.describe(answer)
    assert len(answers) > 1


def test_the_mask_has_the_grid_of_the_file() -> None:
    application = module.SkullStrip()
    application.load()
    for name, request in application.inputs().items():
        content = request if name.endswith(".nii") else gzip.decompress(request)
        scan = nibabel.Nifti1Image.from_bytes(content)
        answer = application.postprocess(application.infer(application.preprocess(request)))
        assert answer.mask.shape == scan.shape
        assert nibabel.aff2axcodes(answer.affine) == nibabel.aff2axcodes(scan.affine)
        assert "".join(nibabel.aff2axcodes(scan.affine)) == application.scans[name].axes
        assert not application.check(name, replace(answer, mask=answer.mask[::-1, ::-1])).right


def volume(shape: tuple[int, ...], *, value: float | None = None) -> bytes:
    data = np.random.default_rng(1).integers(0, 99, shape).astype("float32")
    if value is not None:
        data[:] = value
    content: bytes = nibabel.Nifti1Image(data, np.eye(4)).to_bytes()
    return content


def test_a_grid_that_would_fill_memory_is_refused() -> None:
    metres = nibabel.Nifti1Image(np.random.default_rng(1).random((20, 20, 20)), np.eye(4) * 100)
    with pytest.raises(ApplicationError, match="a volume of 2000 mm found"):
        module.TinyUNet().preprocess(metres.to_bytes())


def test_bad_scans_are_refused(application: Any) -> None:
    whole = volume((20, 20, 20))
    rgb = np.zeros((20, 20, 20), [(part, "u1") for part in "RGB"])
    colours = nibabel.Nifti1Image(rgb, np.eye(4))
    for request, found in (
        (b"", "0 bytes"),
        (b"no scan at all", "14 bytes"),
        (whole[:1000], "no whole NIfTI file"),
        (gzip.compress(whole)[:1000], "no whole NIfTI file"),
        (colours.to_bytes(), "no whole NIfTI file"),
        (volume((64, 64)), r"shape \(64, 64\) found"),
        (volume((20, 20, 20, 3)), r"shape \(20, 20, 20, 3\) found"),
        (volume((20, 8, 20)), r"shape \(20, 8, 20\) found"),
        (volume((20, 20, 20), value=7), "no finite range"),
        (volume((20, 20, 20), value=np.nan), "no finite range"),
    ):
        with pytest.raises(ApplicationError, match=found):
            application.preprocess(request)


def test_dice_and_largest_part_of_masks_computed_by_hand() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, :3] = True
    mask[3, 3, 3] = True
    kept = module.largest_part(mask)
    assert kept.sum() == 3 and not kept[3, 3, 3]
    assert module.dice(mask, kept) == pytest.approx(6 / 7)
    assert module.dice(mask, ~mask) == 0
    assert module.largest_part(np.zeros((4, 4, 4), bool)).sum() == 0


def test_resampling_keeps_the_place_and_the_mean() -> None:
    ramp = np.broadcast_to(np.arange(16, dtype="float32")[:, None, None], (16, 16, 16))
    small = module.resample(np.ascontiguousarray(ramp), (8, 8, 8))
    assert small[1:-1, 4, 4] == pytest.approx(np.arange(2.5, 14, 2), abs=0.05)
    assert module.resample(small, (16, 16, 16)).mean() == pytest.approx(ramp.mean(), abs=0.05)


def test_windows_cover_every_voxel_and_overlap_by_half() -> None:
    application = module.SlidingUNet()
    for shape in ((128, 128, 128), (129, 181, 300)):
        seen = np.zeros(shape, int)
        for window in application._windows(shape):
            assert all(part.stop - part.start == 128 for part in window)
            seen[window] += 1
        assert seen.min() >= 1
        assert all(step <= 64 for n in shape for step in np.diff(application._starts(n)))


def test_the_network_agrees_with_the_published_graph() -> None:
    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(package_file("deepbrain", "models/graph.pb").read_bytes())
    scan = np.random.default_rng(1).random((1, 128, 128, 128, 1)).astype("float32")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        feed = {graph.get_tensor_by_name("img:0"): scan}
        for name in ("training", "is_training"):
            if name in {operation.name for operation in graph.get_operations()}:
                feed[graph.get_tensor_by_name(f"{name}:0")] = False
        published = session.run(graph.get_tensor_by_name("prob:0"), feed)
    ours = unet.trained_strip()(scan)
    np.testing.assert_allclose(np.asarray(ours), published, atol=1e-4)
