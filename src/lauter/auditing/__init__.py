"""Audit: what is wrong with the labels, as verdicts, tables and a report to look at."""
