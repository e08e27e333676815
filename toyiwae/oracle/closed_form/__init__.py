"""What needs no K: the posterior, divergences, the Rényi family."""
