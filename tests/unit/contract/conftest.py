"""Results folders with a known truth, as for the tests of the analysis."""

from ..analysis.conftest import folder as folder
