"""The one error that callers catch: its message says what was found and what to do."""


class AnalysisError(Exception):
    """The folder cannot be analysed at all; single bad files are rejected instead, not raised."""
