"""The applications virtbed times, and the harness that times them; knows models, never platforms.

Importing the package loads no framework: TensorFlow, Keras, NumPy and Pillow are imported when
an application is loaded, because that time is measured.
"""

from time import time_ns

STARTED_NS = time_ns()
"""CLOCK_REALTIME in ns, read before any other import: here spawning ends.

Not the monotonic clock: a sandbox's begins with the sandbox, and cannot be compared with that of
the process that launched this one.
"""

__version__ = "0.1.0"
