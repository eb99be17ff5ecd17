"""Public data sets as they are downloaded, and the manifests written from them."""

from mpfnl.datasets.registry import dataset_names, find_dataset, register_dataset

__all__ = ["dataset_names", "find_dataset", "register_dataset"]
