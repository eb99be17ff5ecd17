"""Figures of scans and metrics; the modules are imported one by one, since Matplotlib is slow to load."""
