"""The applications virtbed times, and the harness that times them; knows models, never platforms.

Importing the package loads no framework: TensorFlow, Keras, NumPy and Pillow are imported when
an application is loaded, because that time is measured.
"""

from time import monotonic_ns

STARTED_NS = monotonic_ns()
"""The process's first clock reading, before any other import: here spawning ends."""

__version__ = "0.1.0"
