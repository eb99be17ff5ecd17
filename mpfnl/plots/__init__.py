"""Pictures of scans: pure functions from arrays to matplotlib figures."""
