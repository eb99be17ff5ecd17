"""A loader of training batches that a resumed training can enter in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


class EpochLoader(DataLoader[Any]):
    """Asks its sampler for the order when the first batch is taken, not when the iterator is made.

    Lightning 2.6 makes the iterator before it tells a resumed training's epoch, and workers read ahead.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader's own class is private
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer's progress says which batches were trained on; see `EpochSampler`.

        That there is a state tells Lightning that the loader goes on in the middle of an epoch.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
