"""The error that callers of the analysis catch; its message has found, needed and the remedy."""


class AnalysisError(Exception):
    """A folder or an argument that cannot be analysed; single bad files are rejected, not raised.

    Example:
        >>> raise AnalysisError("results/quick: no such results folder")
        Traceback (most recent call last):
            ...
        virtbed_analysis.errors.AnalysisError: results/quick: no such results folder
    """
