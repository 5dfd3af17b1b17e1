"""Reports: self-contained HTML pages about labels and networks, of a run and of an audit."""

from lauter.auditing.report.audit_content import AuditContent
from lauter.auditing.report.audit_page import write_audit_report
from lauter.auditing.report.content import ReportContent
from lauter.auditing.report.write import write_report

__all__ = ["AuditContent", "ReportContent", "write_audit_report", "write_report"]
