"""Stripes, columns and dense convolutions on GPUs, by one Triton kernel; see `launch`."""
