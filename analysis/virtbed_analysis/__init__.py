"""Statistics and reports of virtbed's results: the public interface of the package.

`__all__` lists what the command line, the controller and notebooks may use. Each name is imported
on first use (PEP 562), so a sweep needs neither Polars nor Matplotlib until something is estimated,
drawn or archived.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virtbed_analysis.advice import advise
    from virtbed_analysis.calibration import calibrate
    from virtbed_analysis.columns import described
    from virtbed_analysis.comparison import changed, compare
    from virtbed_analysis.crate import archive
    from virtbed_analysis.crate import problems as archive_problems
    from virtbed_analysis.errors import AnalysisError
    from virtbed_analysis.explained import of_sweep as explain
    from virtbed_analysis.frames import Sweep, export, load, read_sweep, write_parquet
    from virtbed_analysis.hosts import UnlikeHostsError
    from virtbed_analysis.isolation import of_sweep as isolation_of
    from virtbed_analysis.page import ReportPaths, render_comparison, report
    from virtbed_analysis.precision import earlier_attempts, log_means, unneeded_trials
    from virtbed_analysis.published import document as analyse_published
    from virtbed_analysis.question import Question, read_prices
    from virtbed_analysis.samples_per_trial import of_report as best_samples
    from virtbed_analysis.suspicion import suspicions
    from virtbed_analysis.words import points as point_words
    from virtbed_analysis.words import rise as rise_words
    from virtbed_analysis.words import subject as subject_words
    from virtbed_analysis.words import undecided as undecided_words

_PLACES = {
    "AnalysisError": "errors",
    "Question": "question",
    "ReportPaths": "page",
    "Sweep": "frames",
    "UnlikeHostsError": "hosts",
    "advise": "advice",
    "analyse_published": "published.document",
    "archive": "crate",
    "archive_problems": "crate.problems",
    "best_samples": "samples_per_trial.of_report",
    "calibrate": "calibration",
    "changed": "comparison",
    "compare": "comparison",
    "described": "columns",
    "earlier_attempts": "precision",
    "explain": "explained.of_sweep",
    "export": "frames",
    "isolation_of": "isolation.of_sweep",
    "load": "frames",
    "log_means": "precision",
    "point_words": "words.points",
    "read_prices": "question",
    "read_sweep": "frames",
    "render_comparison": "page",
    "report": "page",
    "rise_words": "words.rise",
    "subject_words": "words.subject",
    "suspicions": "suspicion",
    "undecided_words": "words.undecided",
    "unneeded_trials": "precision",
    "write_parquet": "frames",
}
"""The module of each public name; after a dot, its name in that module if it differs."""

__all__ = [
    "AnalysisError",
    "Question",
    "ReportPaths",
    "Sweep",
    "UnlikeHostsError",
    "advise",
    "analyse_published",
    "archive",
    "archive_problems",
    "best_samples",
    "calibrate",
    "changed",
    "compare",
    "described",
    "earlier_attempts",
    "explain",
    "export",
    "isolation_of",
    "load",
    "log_means",
    "point_words",
    "read_prices",
    "read_sweep",
    "render_comparison",
    "report",
    "rise_words",
    "subject_words",
    "suspicions",
    "undecided_words",
    "unneeded_trials",
    "write_parquet",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own = _PLACES[name].partition(".")
    value = getattr(import_module(f"{__name__}.{module}"), own or name)
    globals()[name] = value
    return value
