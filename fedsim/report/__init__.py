"""Figures, tables and pages of runs and studies."""
