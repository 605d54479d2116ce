"""Policies as YAML: one file names the strategies of one policy."""
