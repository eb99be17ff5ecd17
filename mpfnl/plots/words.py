"""Words that fit: lines broken by their measured width."""

from __future__ import annotations

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

ROUNDING = 1.03
"""How much wider a line may be drawn than it is: its letters are moved to whole pixels."""

LEADING = 1.35
"""The height of a line over the size of its letters."""


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """How wide a line may be drawn, in inches.

    Args:
        text: One line.
        size: Of the letters, in points.
        weight: "normal" or "bold".
    """
    font = FontProperties(size=size, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return ROUNDING * float(width) / 72


def line_height(size: float) -> float:
    """The height of a line in inches, for letters of a size in points."""
    return LEADING * size / 72


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Breaks a text into lines.

    It is broken at spaces; a word that is wider than a line is broken after a hyphen, an underscore or a full
    stop in its second half, else anywhere.

    Args:
        text: The text.
        width: Of a line, in inches.
        size: Of the letters, in points.
        weight: "normal" or "bold".
    """
    lines: list[str] = []
    words = [word for word in text.split(" ") if word]  # not at a space that does not break
    while words:
        count = len(words)
        while count > 1 and text_width(" ".join(words[:count]), size, weight) > width:
            count -= 1
        line = " ".join(words[:count])
        words = words[count:]
        if text_width(line, size, weight) > width:  # one long word
            cut = _break(line, width, size, weight)
            words = [line[cut:], *words] if line[cut:] else words
            line = line[:cut]
        lines.append(line)
    return lines


def _break(word: str, width: float, size: float, weight: str) -> int:
    """How many letters of a word fit into a line; one at least."""
    fits = len(word)
    while fits > 1 and text_width(word[:fits], size, weight) > width:
        fits -= 1
    joints = [place for place in range(fits, fits // 2, -1) if word[place - 1] in "-_."]
    return joints[0] if joints else fits
