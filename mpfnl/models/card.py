"""The model card: the README.md of a weights folder, as the Hugging Face Hub reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mpfnl.models.provenance import TrainingRecord
from mpfnl.phases import Phase
from mpfnl.window import Window

NOT_STATED = "*not stated*"
"""Text of an empty field."""

PAPER = "https://arxiv.org/abs/2501.14013"
EFFECT = "Its effect on a patient's scan is not known."


def render_card(
    network: str,
    arguments: Mapping[str, Any],
    window: Window,
    training: TrainingRecord | None,
    parameters: int,
    *,
    registered: bool = True,
) -> str:
    """A complete model card in Markdown with YAML metadata.

    Args:
        network: Name of the network.
        arguments: Phases, target and options of the network.
        window: HU window of the network's input.
        training: Record of the training; None where it is not known.
        parameters: Number of the network's parameters.
        registered: Whether the network can be built by its name.
    """
    record = TrainingRecord() if training is None else training
    target = Phase(arguments["target"]).label
    parts = [
        _metadata(network, record),
        f"# {network}: the {target} phase of an abdominal CT, enhanced\n",
        f"> {_origin(record)}\n" if record.origin else "",
        _what(network, arguments, window, parameters),
        _data(record),
        _recipe(record, window),
        _scores(record),
        _use(arguments, record),
        _load(network, arguments, registered),
        _cite(),
    ]
    return "\n".join(part for part in parts if part)


def _origin(record: TrainingRecord) -> str:
    return f"**{record.origin[:1].upper()}{record.origin[1:]}.** {EFFECT}"


def _metadata(network: str, record: TrainingRecord) -> str:
    tags = [
        "ct",
        "medical",
        "image-enhancement",
        "multiphase",
        *(["phantoms"] if record.saw_phantoms else []),
    ]
    lines = ["library_name: mpfnl", "pipeline_tag: image-to-image", f"tags: {json.dumps(tags)}"]
    if record.metrics:
        results = [
            {
                "task": {"type": "image-to-image", "name": "CT enhancement"},
                "dataset": {"type": "private", "name": score.on},
                "metrics": [{"type": _identifier(name), "name": name, "value": score.value}],
            }
            for name, score in record.metrics.items()
        ]
        lines.append(f"model-index: {json.dumps([{'name': network, 'results': results}])}")
    return "\n".join(["---", *lines, "---"])


def _what(network: str, arguments: Mapping[str, Any], window: Window, parameters: int) -> str:
    phases = [Phase(phase).label for phase in arguments["phases"]]
    target = Phase(arguments["target"]).label
    taken = f"the {phases[0]} phase" if len(phases) == 1 else f"the phases {', '.join(phases)}"
    return f"""## What it is

`{network}` of [mpfnl](https://pypi.org/project/mpfnl/), {parameters:,} parameters: takes {taken} of
an abdominal CT study, on one grid, and returns the {target} phase with less noise and blur, in HU.
It works in the window [{window.lower:g}, {window.upper:g}] HU; the scan outside of it is returned
unchanged.

{_table(("argument", "value"), [(name, _value(value)) for name, value in arguments.items()])}
"""


def _data(record: TrainingRecord) -> str:
    rows = [
        ("scans", _stated(record.data)),
        ("training studies", _stated(record.studies)),
        ("phantoms among them", "yes" if record.phantoms else "none known"),
        *([("patients among them", str(record.patients))] if record.patients else []),
        ("degraded with", _stated(record.degradation)),
    ]
    before = record.started_from
    text = f"## Training data\n\n{_table(('', ''), rows)}\n"
    if before is None:
        return text
    phantoms = " (phantoms)" if before.saw_phantoms else ""
    return text + (
        f"\nFine-tuned from weights that were trained for {_stated(before.steps)} steps on "
        f"{_stated(before.studies)} studies{phantoms} ({_stated(before.data)}), degraded with "
        f"{_stated(before.degradation)}.\n"
    )


def _recipe(record: TrainingRecord, window: Window) -> str:
    trained = record.window or window
    patch = NOT_STATED if record.patch_size is None else f"{record.patch_size}^3 voxels"
    rows = [
        ("patches", patch),
        ("window", f"[{trained.lower:g}, {trained.upper:g}] HU"),
        ("patches a step", _stated(record.batch_size)),
        ("steps", _stated(record.steps)),
        ("phase dropout", _stated(record.phase_dropout)),
        ("seed", _stated(record.seed)),
        *record.recipe.items(),
        ("versions", ", ".join(f"{name} {number}" for name, number in record.versions.items()) or NOT_STATED),
    ]
    return f"## Recipe\n\n{_table(('', ''), rows)}\n"


def _scores(record: TrainingRecord) -> str:
    rows = [(name, f"{s.value:.4g}", str(s.n), s.on) for name, s in record.metrics.items()]
    table = _table(("metric", "mean", "n", "on"), rows) if rows else "Scores: " + NOT_STATED + "."
    return f"## Metrics\n\n{table}\n"


def _use(arguments: Mapping[str, Any], record: TrainingRecord) -> str:
    limits = [
        "Not a medical device. An enhanced scan must not be used for diagnosis.",
        "It may remove structures and add structures; compare with the original scan.",
        f"It was trained on scans degraded with: {_stated(record.degradation)}. Other degradations lie "
        "outside its training.",
    ]
    if record.origin:
        limits.insert(0, _origin(record))
    if len(arguments["phases"]) > 1:
        limits.append(_missing_phases(record.phase_dropout))
    if record.notes:
        limits.append(" ".join(record.notes.split()))
    bullets = "\n".join(f"- {limit}" for limit in limits)
    return f"""## Intended use

Research on image enhancement, and as a start for fine-tuning on data of one's own.

## Limits

{bullets}
"""


def _missing_phases(dropout: float | None) -> str:
    if dropout:
        return f"Phases were left out in training with probability {dropout:g}; some may be missing."
    said = NOT_STATED if dropout is None else "never"
    return f"Phases left out in training: {said}. Give it all of them."


def _load(network: str, arguments: Mapping[str, Any], registered: bool) -> str:
    phases = ", ".join(f'"{phase}": "{phase}.nii.gz"' for phase in arguments["phases"])
    return f"""## How to load it

```python
{_loading(network, registered)}
scan = model.enhance({{{phases}}}, "enhanced.nii.gz")
```
"""


def _loading(network: str, registered: bool) -> str:
    if network in ("PFNL3D", "RCAN3D"):
        lines = ["import mpfnl", "", f'model = mpfnl.{network}.from_pretrained("FOLDER")']
        return "\n".join(lines) + "  # this folder, or its owner/name on the Hub"
    lines = ["from mpfnl.models import EnhancementModule", ""]
    if registered:
        lines += [f"# Import the module that registers the network {network} first."]
        lines += [
            'model = EnhancementModule.from_pretrained("FOLDER")  # this folder, or its owner/name on the Hub'
        ]
    else:
        lines += [f"# Give the network, a {network}, as network=.", "network = ..."]
        lines += ['model = EnhancementModule.from_pretrained("FOLDER", network=network)']
    return "\n".join(lines)


def _cite() -> str:
    return f"""## How to cite

The method: *Leveraging Multiphase CT for Quality Enhancement of Portal Venous CT: Utility for Pancreas
Segmentation*, [arXiv 2501.14013]({PAPER}). This is an independent implementation; cite mpfnl and its version
as well.
"""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _stated(value: str | float | None) -> str:
    return NOT_STATED if value is None else str(value)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _identifier(name: str) -> str:
    return name.split("(")[0].strip().lower().replace(" ", "_")
