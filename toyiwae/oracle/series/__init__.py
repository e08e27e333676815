"""Expansions in 1/K, in float64, in multiprecision and with SymPy."""
