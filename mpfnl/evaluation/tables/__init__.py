"""Tables I and II: image quality and segmentation by method, with intervals and paired tests."""
