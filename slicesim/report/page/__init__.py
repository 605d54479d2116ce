"""The report: one HTML page about one run or several, complete in itself."""

from slicesim.report.page.page import write_report

__all__ = ["write_report"]
