"""The program in which TotalSegmentator runs: `python -m mpfnl.segmentation.worker`.

It reads requests from standard input, one line of JSON each, and answers each with a line of JSON. The output
of TotalSegmentator goes to standard error. TotalSegmentator has a process of its own since it changes the
environment, calls `sys.exit`, and starts helpers that import the main program again.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import IO, Any


def main() -> None:
    """Answers requests until the input ends; if it ends during a call, ends the whole process group."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    # nnU-Net's helpers close sys.stdin when they start, which would wait for its reader.
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  # for as long as the program runs
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(lines, requests, busy), daemon=True).start()
    while line := requests.get():
        answer = _answer(json.loads(line))
        busy.clear()
        print(json.dumps(answer), file=answers, flush=True)


def _listen(lines: IO[str], requests: queue.SimpleQueue[str], busy: threading.Event) -> None:
    """Queues the requests; ends the process group when the caller is gone during a call."""
    for line in lines:
        busy.set()
        requests.put(line)
    if busy.is_set():
        if sys.platform != "win32" and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
    requests.put("")


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        _segment(**request)
    except (SystemExit, Exception) as error:
        reason = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {reason}" if reason else type(error).__name__}
    return {"error": ""}


def _segment(scan: str, labels: str, **arguments: Any) -> None:
    """Segments the NIfTI file `scan` and saves the label map as `labels`."""
    import nibabel as nib
    import numpy as np
    from totalsegmentator.python_api import totalsegmentator

    load: Any = nib.load  # untyped
    label_map = totalsegmentator(load(scan), None, ml=True, quiet=True, nr_thr_saving=1, **arguments)
    np.savez(labels, labels=np.asarray(label_map.dataobj).astype(np.uint8), affine=label_map.affine)


if __name__ == "__main__":
    main()
