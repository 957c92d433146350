"""Audio transcription: right and robust answers, refusals, notes, and the published network.

These tests run in the image, which has the frameworks and the published weights.
"""

import io
from typing import Any

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from virtbed_workloads import audio_transcription as module
from virtbed_workloads.audio_transcription import Note
from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.models import basic_pitch
from virtbed_workloads.packaged import package_file
from virtbed_workloads.registry import APPLICATIONS


@pytest.fixture(scope="module", params=("trained", "mlperf", "tiny"))
def application(request: pytest.FixtureRequest) -> Any:
    made = APPLICATIONS["audio_transcription"].create(request.param)
    made.load()
    return made


def noisy(outputs: Any) -> Any:
    """Return outputs changed by a thousandth, far more than another instruction set does."""
    generator = np.random.default_rng(1)

    def one(array: Any) -> Any:
        factor = 1 + 1e-3 * generator.standard_normal(array.shape)
        return (array * factor).astype(array.dtype)

    return tuple(map(one, outputs)) if isinstance(outputs, tuple) else one(outputs)


def test_every_clip_has_the_right_answer_and_noise_does_not_change_it(application: Any) -> None:
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


def test_bad_audio_is_refused(application: Any) -> None:
    whole = module.play(module.TINY_CLIPS["third.wav"])
    short = io.BytesIO()
    soundfile.write(short, np.zeros(100), 16000, format="WAV")
    for request, found in (
        (b"", "0 bytes"),
        (b"no sound at all", "15 bytes"),
        (whole[: len(whole) // 2], f"{len(whole) // 2} bytes found of a WAV file of {len(whole)}"),
        (whole[:20], "of a WAV file"),
        (short.getvalue(), "100 samples at 16000 Hz found"),
    ):
        with pytest.raises(ApplicationError, match=found):
            application.preprocess(request)


def test_speech_beyond_the_longest_position_is_refused() -> None:
    application = APPLICATIONS["audio_transcription"].create("mlperf")
    application.load()
    long = io.BytesIO()
    soundfile.write(long, np.zeros(16000 * 165), 16000, format="WAV")
    with pytest.raises(ApplicationError, match="165 s of speech found; 164 s or less"):
        application.preprocess(long.getvalue())


def test_a_missing_a_late_and_an_extra_note_are_wrong() -> None:
    application = module.BasicPitch()
    played = application.clips["scale.wav"].notes
    assert application.check("scale.wav", played).right
    late = [*played[1:], Note(played[0].pitch, played[0].start_s + 0.06, 1)]
    octave = [*played[1:], Note(played[0].pitch + 12, 0, 1)]
    for wrong in (played[1:], [*played, Note(40, 0, 1)], late, octave, [*played, played[0]], []):
        assert not application.check("scale.wav", wrong).right


def test_a_note_ends_with_a_long_silence_and_a_short_note_is_dropped() -> None:
    application = module.BasicPitch()
    shape = (1, basic_pitch.FRAMES, basic_pitch.NOTES)
    notes, onsets = np.zeros(shape, "float32"), np.zeros(shape, "float32")
    onsets[0, [20, 40, 100], [5, 6, 7]] = 0.9
    notes[0, 20:60, 5] = 0.8
    notes[0, 35:40, 5] = 0  # five frames of silence do not end a note
    notes[0, 40:49, 6] = 0.8  # too short
    notes[0, 100:120, 7] = 0.8
    notes[0, 135:150, 7] = 0.8  # after fifteen frames of silence: not part of the note
    found = application.postprocess((notes, onsets))
    frame = basic_pitch.HOP / basic_pitch.RATE
    assert [note.pitch for note in found] == [21 + 5, 21 + 7]
    assert [round(note.start_s / frame) for note in found] == [20 - 15, 100 - 15]
    assert [round(note.end_s / frame) for note in found] == [59 - 15, 119 - 15]


def test_the_first_frame_may_be_an_onset_and_windows_join_without_a_seam() -> None:
    application = module.BasicPitch()
    application.load()
    clip = module.Clip(22050, 1, 3.0, ((60,), (64,)))  # notes longer than a window
    found = application.postprocess(application.infer(application.preprocess(module.play(clip))))
    assert [note.pitch for note in found] == [60, 64]
    assert found[0].start_s == pytest.approx(0, abs=0.05)
    assert found[1].start_s == pytest.approx(3, abs=0.05)


def test_stereo_at_another_rate_decodes_to_the_same_signal() -> None:
    clip = module.Clip(44100, 2, 0.5, ((60, 64),))
    stereo = module.decode(module.play(clip), 22050)
    mono = module.decode(module.play(module.Clip(22050, 1, 0.5, ((60, 64),))), 22050)
    assert len(stereo) == len(mono)
    assert np.corrcoef(stereo, mono)[0, 1] > 0.999


def test_mel_filters_are_triangles_without_gaps() -> None:
    filters = module.mel_filters(20, 512, 16000)
    assert filters.shape == (257, 20)
    assert filters.min() >= 0 and filters.max() <= 1
    assert (np.diff(filters.argmax(axis=0)) > 0).all()
    inner = slice(filters[:, 0].argmax(), filters[:, -1].argmax())
    assert filters[inner].sum(axis=1) == pytest.approx(1)


def test_the_network_agrees_with_the_published_one() -> None:
    saved = package_file("basic_pitch", "saved_models/icassp_2022/nmp/saved_model.pb").parent
    signal = 0.1 * np.random.default_rng(1).standard_normal((2, basic_pitch.WINDOW, 1))
    signal[1, 9000:] = 0
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(saved))
        signature = loaded.signature_def["serving_default"]
        (feed,) = signature.inputs.values()
        wanted = {name: signature.outputs[name].name for name in ("note", "onset")}
        published = session.run(wanted, {feed.name: signal})
    ours = basic_pitch.trained()(signal.astype("float32"))
    for name, values in zip(("note", "onset"), ours, strict=True):
        np.testing.assert_allclose(np.asarray(values), published[name], atol=1e-4)
