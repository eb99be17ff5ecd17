"""The report: one HTML file for clinicians, complete in itself."""
