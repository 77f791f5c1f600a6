"""Norms of the convolution written as a matrix (SPSRC: Sun and Shi, 2024)."""
