"""The HTML report of a run."""

from __future__ import annotations

from onestage.report.figures import coverage_figure, coverage_maps
from onestage.report.page import Pictures, write_report

__all__ = ["Pictures", "coverage_figure", "coverage_maps", "write_report"]
