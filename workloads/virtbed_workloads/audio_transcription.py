"""Application that transcribes audio: music to notes, speech to letters.

A request is an audio file: WAV here, or any format that libsndfile reads.

Scale ``trained``: Basic Pitch with the weights of the package ``basic-pitch``, on synthesized music
with known notes. Scale ``mlperf``: a Conformer with seeded weights and CTC beam search, on speech
from Debian's pocketsphinx-testdata. Seeded weights give meaningless answers; the expected answers
were recorded once on bare metal, as a regression check. Scale ``tiny``: Basic Pitch on two seconds
of music.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.fft
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import argrelmax, get_window

from virtbed_workloads import backend
from virtbed_workloads.contract import Application, ApplicationError, Check, Description
from virtbed_workloads.models import basic_pitch, conformer
from virtbed_workloads.packaged import debian_file

Signal = NDArray[np.float32]
"""One channel, -1 to 1."""
PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
# Amplitude of each harmonic relative to the one below, and decay rate of the lowest in 1/s. With
# stronger harmonics Basic Pitch finds octaves that are not in the music.
TIMBRE, FADE = 0.2, 2.0
SHORTEST_S = 0.1  # a shorter request is refused: it holds nothing to transcribe


@dataclass(frozen=True)
class Note:
    """One note: its pitch as a MIDI number (60 is middle C), its onset and its end."""

    pitch: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Clip:
    """A piece of music, a sequence of chords of equal length, and the format of its file."""

    rate: int
    channels: int
    chord_s: float
    chords: tuple[tuple[int, ...], ...]

    @property
    def notes(self) -> list[Note]:
        """The notes in the music."""
        return [
            Note(pitch, index * self.chord_s, (index + 1) * self.chord_s)
            for index, chord in enumerate(self.chords)
            for pitch in chord
        ]


_SCALE = tuple((pitch,) for pitch in (60, 62, 64, 65, 67, 69, 71, 72))
_CADENCE = ((48, 55, 64), (45, 52, 60), (41, 53, 60), (43, 50, 59))
_ARPEGGIO = tuple((pitch,) for pitch in (48, 52, 55, 60, 64, 67, 72, 67, 64, 60))
CLIPS = {
    "arpeggio.wav": Clip(22050, 1, 0.4, _ARPEGGIO),
    "cadence.wav": Clip(44100, 2, 1.0, _CADENCE),
    "melody.wav": Clip(48000, 2, 0.75, (*_SCALE, *_SCALE[::-1], *_CADENCE)),
    "scale.wav": Clip(16000, 1, 0.5, _SCALE),
}
TINY_CLIPS = {
    "fifth.wav": Clip(22050, 1, 0.75, ((57,), (64,))),
    "third.wav": Clip(16000, 1, 0.75, ((60, 64), (67,))),
}
SPEECH = (
    "cards/001.wav",
    "cards/005.wav",
    "librivox/sense_and_sensibility_01_austen_64kb-0870.wav",
    "librivox/sense_and_sensibility_01_austen_64kb-0880.wav",
    "librivox/sense_and_sensibility_01_austen_64kb-0930.wav",
)


def play(clip: Clip) -> bytes:
    """Return a clip as a WAV file that sounds like plucked strings: high harmonics decay faster."""
    time = np.arange(int(clip.chord_s * clip.rate)) / clip.rate
    fades = np.minimum(1, np.minimum(time / 0.005, (clip.chord_s - time) / 0.02))
    sound = []
    for chord in clip.chords:
        tones = [
            TIMBRE**k
            * np.exp(-FADE * (1 + k) * time)
            * np.sin(2 * np.pi * (1 + k) * _hertz(pitch) * time)
            for pitch in chord
            for k in range(6)
        ]
        sound.append(fades * np.sum(tones, axis=0) * 0.2)
    channels = np.repeat(np.concatenate(sound)[:, np.newaxis], clip.channels, axis=1)
    file = io.BytesIO()
    soundfile.write(file, channels, clip.rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def decode(request: bytes, rate: int) -> Signal:
    """Decode an audio file to one channel at a sample rate in Hz.

    Raises:
        ApplicationError: libsndfile cannot read it, it is truncated, or it is too short.
    """
    needed = "a whole WAV, FLAC or Ogg file is needed"
    if request[:4] == b"RIFF":  # libsndfile reads a truncated WAV file without an error
        promised = 8 + int.from_bytes(request[4:8], "little")
        if promised > len(request):
            raise ApplicationError(
                f"{len(request)} bytes found of a WAV file of {promised} bytes; {needed}"
            )
    try:
        channels, own = soundfile.read(io.BytesIO(request), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ApplicationError(
            f"{len(request)} bytes found that are not audio ({error.error_string}); {needed}"
        ) from error
    if len(channels) < SHORTEST_S * own:
        raise ApplicationError(
            f"{len(channels)} samples at {own} Hz found; {SHORTEST_S} s or more are needed"
        )
    return np.asarray(soxr.resample(channels.mean(axis=1), own, rate), "float32")


class BasicPitch(Application):
    """Audio to notes: scale ``trained``."""

    version: ClassVar[str] = "1"
    clips: ClassVar[Mapping[str, Clip]] = CLIPS
    # The package's own values.
    overlap: ClassVar[int] = 30  # frames that two windows share
    onset: ClassVar[float] = 0.5  # minimum likelihood of an onset
    sounding: ClassVar[float] = 0.3  # minimum likelihood of a sounding note
    silence: ClassVar[int] = 11  # frames of silence that end a note, and its minimum length
    tolerance_s: ClassVar[float] = 0.05  # of an onset, as in MIREX

    def load(self) -> Description:
        """Build the network with its published weights."""
        shape = (None, basic_pitch.WINDOW, 1)
        self._call = backend.compiled(basic_pitch.trained(), [(shape, "float32")])
        return Description(model="Basic Pitch", weights="trained")

    def inputs(self) -> Mapping[str, bytes]:
        """Synthesize the clips."""
        return {name: play(clip) for name, clip in self.clips.items()}

    def preprocess(self, request: bytes) -> NDArray[np.float32]:
        """Decode, resample, and cut into overlapping windows, (n, samples, 1).

        Raises:
            ApplicationError: The request is not a whole audio file.
        """
        signal = decode(request, basic_pitch.RATE)
        window, step = basic_pitch.WINDOW, self._step
        number = 1 + max(0, -(-(len(signal) + self._lead - window) // step))
        padded = np.pad(signal, (self._lead, window + step))
        return np.stack([padded[i * step : i * step + window] for i in range(number)])[..., None]

    @property
    def _step(self) -> int:
        return basic_pitch.WINDOW - self.overlap * basic_pitch.HOP

    @property
    def _lead(self) -> int:
        """Samples of silence before the signal: half the overlap, which `postprocess` cuts."""
        return self.overlap // 2 * basic_pitch.HOP

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Run the network; return the likelihoods of notes and of onsets, (n, frames, 88) each."""
        return tuple(self._call(features))

    def postprocess(self, outputs: tuple[NDArray[np.float32], ...]) -> list[Note]:
        """Join the windows; follow each onset until its note falls silent."""
        cut = self.overlap // 2
        inner = np.arange(cut, basic_pitch.FRAMES - cut)
        notes, onsets = (o[:, inner].reshape(-1, basic_pitch.NOTES).copy() for o in outputs)
        starts = np.arange(len(outputs[0]))[:, np.newaxis] * self._step - self._lead
        times = (starts + inner * basic_pitch.HOP).ravel() / basic_pitch.RATE
        framed = np.pad(onsets, ((1, 1), (0, 0)))  # so that the very first frame can be a peak
        peaks, pitches = argrelmax(framed)
        peaks -= 1
        found = []
        for frame, pitch in sorted(zip(peaks.tolist(), pitches.tolist(), strict=True))[::-1]:
            if onsets[frame, pitch] < self.onset:
                continue
            sounding = np.flatnonzero(notes[frame + 1 :, pitch] >= self.sounding)
            gaps = np.flatnonzero(np.diff(sounding, prepend=-1) > self.silence)
            heard = sounding[: gaps[0]] if len(gaps) else sounding
            last = frame + 1 + int(heard[-1]) if len(heard) else frame
            if last - frame > self.silence:
                notes[frame : last + 1, pitch] = 0
                start, end = float(times[frame]), float(times[last])
                found.append(Note(basic_pitch.LOWEST + pitch, start, end))
        return sorted(found, key=lambda note: (note.start_s, note.pitch))

    def describe(self, answer: list[Note]) -> str:
        """List the notes by name, ordered by onset rounded to a quarter of a second."""
        ordered = sorted((round(note.start_s * 4), note.pitch) for note in answer)
        names = [f"{PITCHES[pitch % 12]}{pitch // 12 - 1}" for _, pitch in ordered]
        return " ".join(names) or "silence"

    def check(self, name: str, answer: list[Note]) -> Check:
        """Compare with the notes in the music: each must be found once, in time, and no other.

        The score is the F-measure of the onsets.
        """
        played = self.clips[name].notes
        unmatched = list(answer)
        hits = 0
        for note in played:
            for other in unmatched:
                if (
                    other.pitch == note.pitch
                    and abs(other.start_s - note.start_s) <= self.tolerance_s
                ):
                    hits += 1
                    unmatched.remove(other)
                    break
        score = 2 * hits / (len(played) + len(answer))
        return Check(score == 1, self.describe(played), round(score, 3))


class TinyPitch(BasicPitch):
    """Basic Pitch on one window of music: scale ``tiny``."""

    clips = TINY_CLIPS


class ConformerCtc(Application):
    """Speech to letters, seeded: scale ``mlperf``."""

    version: ClassVar[str] = "1"
    rate: ClassVar[int] = 16000
    seed: ClassVar[int] = 1  # the answers below are valid for this seed only, with clear margins
    span: ClassVar[int] = 400  # samples of a frame
    hop: ClassVar[int] = 160  # samples from frame to frame
    points: ClassVar[int] = 512  # length of the Fourier transform
    beams: ClassVar[int] = 100
    answers: ClassVar[Mapping[str, str]] = {
        "001.wav": "about 20 letters, first 'wkgv'",
        "005.wav": "about 60 letters, first 'wagh'",
        "sense_and_sensibility_01_austen_64kb-0870.wav": "about 140 letters, first 'qzgv'",
        "sense_and_sensibility_01_austen_64kb-0880.wav": "about 60 letters, first 'jqlg'",
        "sense_and_sensibility_01_austen_64kb-0930.wav": "about 60 letters, first 'qzqg'",
    }

    def load(self) -> Description:
        """Build the network with seeded weights, and its mel filters."""
        network = conformer.build()
        conformer.seed(network, self.seed)
        self._call = backend.compiled(network, [((1, None, conformer.MELS), "float32")])
        self._window = get_window("hann", self.span).astype("float32")
        self._filters = mel_filters(conformer.MELS, self.points, self.rate)
        return Description(model="Conformer-CTC (medium)", weights="seeded")

    def inputs(self) -> Mapping[str, bytes]:
        """Read the recordings."""
        root = "pocketsphinx/test/data"
        files = [debian_file("pocketsphinx-testdata", f"{root}/{name}") for name in SPEECH]
        return {file.name: file.read_bytes() for file in files}

    def preprocess(self, request: bytes) -> NDArray[np.float32]:
        """Decode, and compute normalised log mel spectra, (1, frames, 80).

        Raises:
            ApplicationError: The request is not a whole audio file, or too long.
        """
        signal = decode(request, self.rate)
        longest_s = 4 * conformer.LONGEST * self.hop / self.rate
        if len(signal) > longest_s * self.rate:
            raise ApplicationError(
                f"{len(signal) / self.rate:.0f} s of speech found; {longest_s:.0f} s or less needed"
            )
        frames = np.lib.stride_tricks.sliding_window_view(signal, self.span)[:: self.hop]
        spectrum = scipy.fft.rfft(frames * self._window, self.points)
        power = spectrum.real**2 + spectrum.imag**2
        mels = np.log(power @ self._filters + np.float32(1e-6))
        mels = (mels - mels.mean(axis=0)) / (mels.std(axis=0) + np.float32(1e-5))
        return np.asarray(mels[np.newaxis], "float32")

    def infer(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; return logits, (frames / 4, 29)."""
        return np.asarray(self._call(features)[0])

    def postprocess(self, outputs: NDArray[np.float32]) -> str:
        """Find the likeliest text by CTC beam search with `beams` beams."""
        import tensorflow as tf

        (best,), _ = tf.nn.ctc_beam_search_decoder(
            outputs[:, np.newaxis], [len(outputs)], beam_width=self.beams
        )
        return "".join(conformer.LETTERS[index] for index in best.values.numpy())

    def describe(self, answer: str) -> str:
        """Return the text's length, rounded to 20 characters, and its first four letters."""
        letters = "".join(filter(str.isalpha, answer))
        return f"about {round(len(answer) / 20) * 20} letters, first {letters[:4]!r}"

    def check(self, name: str, answer: str) -> Check:
        """Compare with the answer recorded for the seeded weights."""
        expected = self.answers[name]
        return Check(self.describe(answer) == expected, expected)


def mel_filters(bands: int, points: int, rate: int) -> NDArray[np.float32]:
    """Return triangular mel filters, (points / 2 + 1, bands); mel(f) = 2595 log10(1 + f / 700)."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequencies = np.linspace(0, rate / 2, points // 2 + 1)[:, np.newaxis]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(0, np.minimum(rising, falling)), "float32")


def _hertz(pitch: int) -> float:
    return float(440 * 2 ** ((pitch - 69) / 12))
