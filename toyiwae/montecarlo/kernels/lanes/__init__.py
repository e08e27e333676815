"""Vectors of whole registers in Numba: operations, sums and products of them, and the cache of compiled code."""
