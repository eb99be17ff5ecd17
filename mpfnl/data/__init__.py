"""Cohorts: the manifest, the phantoms, and the data module that feeds the models."""
