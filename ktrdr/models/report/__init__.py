"""`report.html` of a model version: one self-contained page, rendered from the files of the version."""

from ktrdr.models.report.context import ReportContext
from ktrdr.models.report.render import render_report

__all__ = ["ReportContext", "render_report"]
