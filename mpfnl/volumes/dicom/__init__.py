"""DICOM: a folder of CT slices as one scan in HU, and an enhanced scan as a derived series."""
