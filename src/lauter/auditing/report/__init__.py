"""The report: one self-contained HTML page about labels, networks and how they came about."""

from lauter.auditing.report.content import ReportContent
from lauter.auditing.report.write import write_report

__all__ = ["ReportContent", "write_report"]
