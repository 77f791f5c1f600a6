"""The compiled kernels: how they come to a machine, and what they compute."""
