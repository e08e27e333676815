"""Engines that draw noise and form weighted sums of it: torch, Numba on CPUs, Triton on GPUs.

Importing this package loads none of them.
"""
