"""How a trial is reduced to one logarithm: the mean over inputs of each input's mean time.

What is estimated is the time of this mix of inputs, each once, as a user pays it. A mean over
inputs of logarithms is another quantity, and is low where few samples of an input hold a stall: a
logarithm of a mean of one sample shows less of it than the mean of all does (Jensen's inequality).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def log_mean(logs: ArrayLike) -> float:
    """Return the logarithm of the mean of the values whose logarithms are given.

    >>> log_mean(np.log([10.0, 30.0])) == np.log(20.0)
    np.True_
    """
    values = np.asarray(logs, dtype=np.float64)
    return float(np.logaddexp.reduce(values) - np.log(values.size))
