"""What a notebook or the command line may use of the analysis, and the error that it raises."""

from virtbed_analysis.calibration import calibrate
from virtbed_analysis.columns import described
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.load import load, write_parquet
from virtbed_analysis.precision import unneeded_trials
from virtbed_analysis.published import document as analyse_published
from virtbed_analysis.report import ReportPaths, report
from virtbed_analysis.suspicion import suspicions

__all__ = [
    "AnalysisError",
    "ReportPaths",
    "analyse_published",
    "calibrate",
    "described",
    "load",
    "report",
    "suspicions",
    "unneeded_trials",
    "write_parquet",
]
