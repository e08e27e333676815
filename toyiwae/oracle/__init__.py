"""The truth: bounds and gradient moments at any finite K, from the law of the weight and an estimator's Form."""
