"""The phase-leak check of an evaluation, and the swap test."""
