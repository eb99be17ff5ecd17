"""Trainings that are compared: budgets, candidates, the ablation, the demonstration."""
