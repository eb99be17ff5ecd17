"""A whole volume through a network."""
