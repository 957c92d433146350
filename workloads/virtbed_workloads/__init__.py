"""The applications that virtbed times and the harness that times them.

The package knows models and never platforms: it does not know where it runs. Importing it loads no
framework. TensorFlow, Keras, NumPy and Pillow are imported when an application is loaded, because
that time is measured.
"""

from time import time_ns

STARTED_NS = time_ns()
"""CLOCK_REALTIME in ns, read before any other import: the end of the measured spawning.

It is not the monotonic clock, because a sandbox's monotonic clock starts with the sandbox and
cannot be compared with that of the process that launched this one.
"""

__version__ = "0.1.0"
