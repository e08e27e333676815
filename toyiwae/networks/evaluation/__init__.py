"""Evaluation of trained models: bounds, annealing, diagnostics, and exact values where there are any."""
