"""Real MNIST on a CPU: exact gaps under a linear decoder, and five methods that train the papers' deep model."""
