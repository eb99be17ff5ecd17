"""Public data sets as they are downloaded, and the manifests written from them."""

from mpfnl.datasets.registry import register_dataset

__all__ = ["register_dataset"]
