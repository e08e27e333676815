"""From Laplace transforms to any number of particles: bounds, gradients, logarithms, fourth moments."""
