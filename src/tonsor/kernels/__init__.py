"""Compiled convolutions for processors, and how they come to a machine.

Importing this package imports neither torch nor numpy, so that a build of the wheel can use
`source`, `compiler` and `build` where nothing is installed yet.
"""
