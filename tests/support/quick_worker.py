"""mpfnl's worker with nnU-Net's sequential prediction in place of its process pools: the same labels, sooner.

The whole of TotalSegmentator runs as it does for users, but for nnU-Net's helpers, whose start takes most of
the time. One test runs with them.
"""

from __future__ import annotations

from typing import Any

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from mpfnl.segmentation.worker import main


def predict_from_files(
    predictor: nnUNetPredictor,
    source: str,
    target: str,
    save_probabilities: bool = False,
    overwrite: bool = True,
    folder_with_segs_from_prev_stage: str | None = None,
    **_: Any,
) -> Any:
    return predictor.predict_from_files_sequential(
        source, target, save_probabilities, overwrite, folder_with_segs_from_prev_stage
    )


if __name__ == "__main__":
    nnUNetPredictor.predict_from_files = predict_from_files
    main()
