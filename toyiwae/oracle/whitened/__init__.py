"""A problem in whitened noise: the spectrum β, the shifts h, the gradients' polynomials, log p(x)."""
