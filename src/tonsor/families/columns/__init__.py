"""Columns: one tap of one input of a convolution, in all of its filters."""
