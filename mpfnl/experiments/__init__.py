"""Experiments that train and compare models: the ablation and the demonstration."""
