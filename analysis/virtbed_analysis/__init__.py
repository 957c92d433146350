"""What a notebook or the command line may use of the analysis: `load`, `report`, their error."""

from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.load import load
from virtbed_analysis.report import ReportPaths, report

__all__ = ["AnalysisError", "ReportPaths", "load", "report"]
