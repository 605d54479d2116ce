"""Policies as YAML: one file names the seven strategies of one policy."""
