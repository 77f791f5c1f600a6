"""Families of pieces as pools, each of the pieces of one place, which are masked while training."""
