"""Stripes: the 1×1 filters, one for each position of the kernel, that a filter is made of."""
