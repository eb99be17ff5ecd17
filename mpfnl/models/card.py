"""The model card: the README.md of a weights folder, as the Hugging Face Hub reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mpfnl.models.record import TrainingRecord
from mpfnl.window import ABDOMEN

UNSAID = "*not said*"
"""What stands where nobody filled in a field."""

PAPER = "https://arxiv.org/abs/2501.14013"
PHANTOMS = "**Trained on phantoms, not on patients.** What it does to a patient's scan is not known."


def render_card(
    model: str, arguments: Mapping[str, Any], training: TrainingRecord | None, parameters: int
) -> str:
    """A complete model card in Markdown with YAML metadata.

    Args:
        model: The model's class name.
        arguments: The constructor arguments that define the network.
        training: What it was trained on; None where nobody said.
        parameters: How many the network has.
    """
    record = TrainingRecord() if training is None else training
    target = _words(arguments["target"])
    parts = [
        _metadata(model, record),
        f"# {model}: the {target} phase of an abdominal CT, enhanced\n",
        f"> {PHANTOMS}\n" if record.saw_phantoms else "",
        _what(model, arguments, parameters),
        _data(record),
        _recipe(record),
        _scores(record),
        _use(arguments, record),
        _load(model, arguments),
        _cite(),
    ]
    return "\n".join(part for part in parts if part)


def _metadata(model: str, record: TrainingRecord) -> str:
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
        lines.append(f"model-index: {json.dumps([{'name': model, 'results': results}])}")
    return "\n".join(["---", *lines, "---"])


def _what(model: str, arguments: Mapping[str, Any], parameters: int) -> str:
    phases = [_words(phase) for phase in arguments["phases"]]
    target = _words(arguments["target"])
    taken = f"the {phases[0]} phase" if len(phases) == 1 else f"the phases {', '.join(phases)}"
    return f"""## What it is

`{model}` of [mpfnl](https://pypi.org/project/mpfnl/), {parameters:,} parameters: takes {taken} of
an abdominal CT study, on one grid, and returns the {target} phase with less noise and blur, in HU.
It works on the window [{ABDOMEN.lower:g}, {ABDOMEN.upper:g}] HU; what truly lies outside of it is
returned as it came.

{_table(("argument", "value"), [(name, _value(value)) for name, value in arguments.items()])}
"""


def _data(record: TrainingRecord) -> str:
    rows = [
        ("scans", _said(record.data)),
        ("training studies", _said(record.studies)),
        ("phantoms among them", "yes" if record.phantoms else "none that are known"),
        ("degraded with", _said(record.degradation)),
    ]
    before = record.started_from
    text = f"## Training data\n\n{_table(('', ''), rows)}\n"
    if before is None:
        return text
    phantoms = " (phantoms)" if before.saw_phantoms else ""
    return text + (
        f"\nFine-tuned: before, the weights were trained for {_said(before.steps)} steps on "
        f"{_said(before.studies)} studies{phantoms} ({_said(before.data)}), degraded with "
        f"{_said(before.degradation)}.\n"
    )


def _recipe(record: TrainingRecord) -> str:
    patch = UNSAID if record.patch_size is None else f"{record.patch_size}^3 voxels"
    rows = [
        ("patches", patch),
        ("window", f"[{record.window.lower:g}, {record.window.upper:g}] HU"),
        ("patches a step", _said(record.batch_size)),
        ("steps", _said(record.steps)),
        ("phase dropout", _said(record.phase_dropout)),
        ("seed", _said(record.seed)),
        *record.recipe.items(),
        ("versions", ", ".join(f"{name} {number}" for name, number in record.versions.items()) or UNSAID),
    ]
    return f"## Recipe\n\n{_table(('', ''), rows)}\n"


def _scores(record: TrainingRecord) -> str:
    rows = [(name, f"{s.value:.4g}", str(s.n), s.on) for name, s in record.metrics.items()]
    table = _table(("metric", "mean", "n", "on"), rows) if rows else "How it scores: " + UNSAID + "."
    return f"## Metrics\n\n{table}\n"


def _use(arguments: Mapping[str, Any], record: TrainingRecord) -> str:
    limits = [
        "Not a medical device. An enhanced scan must not be used for diagnosis.",
        "It may remove what is there and add what is not; compare with the scan that was measured.",
        f"It was trained on scans degraded with: {_said(record.degradation)}. Scans that are worse "
        "in another way are outside of what it learned.",
    ]
    if record.saw_phantoms:
        limits.insert(0, PHANTOMS)
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
        return (
            f"Phases were left out in training with probability {dropout:g}: it can do without some of them."
        )
    said = UNSAID if dropout is None else "never"
    return f"Phases left out in training: {said}. Give it all of them."


def _load(model: str, arguments: Mapping[str, Any]) -> str:
    phases = ", ".join(f'"{phase}": "{phase}.nii.gz"' for phase in arguments["phases"])
    return f"""## How to load it

```python
import mpfnl

model = mpfnl.{model}.from_pretrained("FOLDER")  # this folder, or its owner/name on the Hub
scan = model.enhance({{{phases}}}, "enhanced.nii.gz")
```
"""


def _cite() -> str:
    return f"""## How to cite

The method: *Leveraging Multiphase CT for Quality Enhancement of Portal Venous CT: Utility for Pancreas
Segmentation*, [arXiv 2501.14013]({PAPER}). This is an independent implementation; name mpfnl and its version,
too.
"""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _said(value: str | float | None) -> str:
    return UNSAID if value is None else str(value)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(phase: str) -> str:
    return phase.replace("noncontrast", "non-contrast").replace("_", " ")


def _identifier(name: str) -> str:
    return name.split("(")[0].strip().lower().replace(" ", "_")
