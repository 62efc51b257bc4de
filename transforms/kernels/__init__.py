"""Compiled, Beam-free computation on batches: numpy, Arrow, numba.

Kernels are compiled once and cached beside their source, or where that cannot be written (a read-only install, a
worker that does not own it) in a folder of the user's own. numba reads the variable that says so when it is first
imported, so this module must come first, and it does: every kernel lives below it.
"""

from transforms.kernels import kernel_cache

kernel_cache.choose()
