"""Preparation: from a raw manifest to a registered, cropped, checked cohort."""
