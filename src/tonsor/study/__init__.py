"""Comparisons of methods on real data: many small runs that share all but what is compared."""
