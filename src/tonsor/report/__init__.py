"""Figures and pages: what a run has found, in one file that needs nothing else to be read."""
