"""The applications that exist, known without importing any. A new application is one entry here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from virtbed_workloads.contract import Application


@dataclass(frozen=True)
class Entry:
    """One type of application, and the class that runs it at each scale."""

    summary: str
    scales: Mapping[str, str]
    """Scale to ``module:Class`` within this package."""
    mlperf_model: str = "*"
    """LoadGen's name of the MLPerf benchmark whose rules fit."""
    framework: str | None = "tensorflow"
    """Framework that the image's variant must contain (images.yml); None if none is needed."""
    hidden: bool = False
    """True for applications that test the testbed and measure nothing: ``--list`` omits them."""

    def create(self, scale: str) -> Application:
        """Import the application's module with its frameworks; return an instance.

        Raises:
            KeyError: The application has no such scale.
            ModuleNotFoundError: The module, or a framework that it imports, is not installed.
        """
        module, _, name = self.scales[scale].partition(":")
        made: Application = getattr(importlib.import_module(f"{__package__}.{module}"), name)()
        return made


APPLICATIONS = {
    "image_classification": Entry(
        "names what a photograph shows",
        {
            "trained": "image_classification:EfficientNetLite0",
            "mlperf": "image_classification:ResNet50",
            "tiny": "image_classification:TinyEfficientNet",
        },
        mlperf_model="resnet50",
    ),
    "face_detection": Entry(
        "finds the faces in a photograph",
        {
            "trained": "face_detection:Mtcnn",
            "mlperf": "face_detection:SsdMobileNet",
            "tiny": "face_detection:TinyMtcnn",
        },
        mlperf_model="retinanet",
    ),
    "medical_segmentation": Entry(
        "finds the brain in a scan of a head",
        {
            "trained": "medical_segmentation:SkullStrip",
            "mlperf": "medical_segmentation:SlidingUNet",
            "tiny": "medical_segmentation:TinyUNet",
        },
        mlperf_model="3d-unet",
    ),
    "question_answering": Entry(
        "finds the passage that answers a question",
        {
            "trained": "question_answering:MiniLm",
            "mlperf": "question_answering:BertBase",
            "tiny": "question_answering:TinyEncoder",
        },
        mlperf_model="bert",
    ),
    "audio_transcription": Entry(
        "writes down the notes of music, or the letters of speech",
        {
            "trained": "audio_transcription:BasicPitch",
            "mlperf": "audio_transcription:ConformerCtc",
            "tiny": "audio_transcription:TinyPitch",
        },
        mlperf_model="rnnt",
    ),
    "null": Entry(
        "computes nothing and measures nothing; to test the testbed",
        {"tiny": "null:Null"},
        framework=None,
        hidden=True,
    ),
}
