"""What a trained model is worth: bounds, annealed importance sampling, diagnostics, beside exact values where there are."""
