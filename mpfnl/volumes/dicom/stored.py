"""The numbers that a slice stores: which bits of a word hold them, and which of them are padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import FormatError
from mpfnl.volumes.dicom.headers import Header

WORDS = (16, 32)
"""Sizes of a word in bits. CT has 16 (PS3.3, C.8.2.1.1.4); programs that convert images write 32, too."""


@dataclass(frozen=True)
class StoredNumbers:
    """How the stored numbers of a slice lie in its words (PS3.5, 8.1.1).

    Args:
        allocated: BitsAllocated, the bits of a word.
        stored: BitsStored, the bits of a number.
        high: HighBit, the place of a number's highest bit.
        signed: Whether the numbers are signed (two's complement).
        sign_stated: Whether the header says so.
        padding: The first and the last number that stand for padding (PS3.3, C.7.5.1.1.2); None where the
            header names none. The first is the larger one where the range goes over the end of the scale.
    """

    allocated: int
    stored: int
    high: int
    signed: bool
    sign_stated: bool
    padding: tuple[int, int] | None

    @property
    def word(self) -> np.dtype[Any]:
        """Number type of a word."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")

    def numbers(self, words: NDArray[Any], name: str) -> NDArray[Any]:
        """The numbers in words, without what lies in the unused bits (formerly overlays).

        Args:
            words: Words of any shape, of the type `word` or its unsigned twin.
            name: Name of the slice in messages.

        Raises:
            FormatError: HighBit and BitsStored contradict each other, and the words do not show which is
                right.
        """
        below = self.high + 1 - self.stored
        if below > 0 and (words & ((1 << below) - 1)).any():
            raise FormatError(
                f"{name} has HighBit {self.high} with BitsStored {self.stored}, but numbers in the"
                f" {below} bits below; export the series again"
            )
        numbers = self._aligned(words, self.high + 1, self.stored)
        if not self.sign_stated and int(numbers.max()) >> self.stored - 1:
            raise FormatError(
                f"{name} does not say whether its pixels are signed (PixelRepresentation), and some are"
                " negative if they are; export the series again"
            )
        if below < 0:
            wide = self._aligned(words, self.stored, self.stored)
            if not np.array_equal(numbers, wide):
                raise FormatError(
                    f"{name} has HighBit {self.high} with BitsStored {self.stored}, which do not fit"
                    " together; export the series again"
                )
        return numbers

    def is_padding(
        self, words: NDArray[Any], numbers: NDArray[Any], beyond: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which of the words are padding for sure: beyond the usual scale, or by bits that no number has.

        A padding value that a number cannot have, as -2000 where 12 bits are unsigned, is looked for in the
        whole words.

        Args:
            words: Words.
            numbers: The numbers in them.
            beyond: Whether a number is beyond the scale, and so no pixel of the patient.
        """
        values = numbers
        if self.padding_is_apart:
            values = words.view(self.word)
            beyond = beyond | (values != numbers)
        return beyond & self.names_padding(values)

    def names_padding(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which numbers the header names as padding.

        Args:
            values: Numbers, or words where `padding_is_apart`.
        """
        if self.padding is None:
            return np.zeros(values.shape, bool)
        first, last = self.padding
        above, below = values >= first, values <= last
        return np.asarray(above & below if first <= last else above | below)

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest number that the bits hold."""
        lowest = -(1 << self.stored - 1) if self.signed else 0
        return lowest, lowest + (1 << self.stored) - 1

    @property
    def padding_is_apart(self) -> bool:
        """Whether padding is told by bits that no number has."""
        return self.padding is not None and not all(map(self._fits, self.padding))

    def _aligned(self, words: NDArray[Any], end: int, bits: int) -> NDArray[Any]:
        numbers = words.view(self.word)
        if bits == end == self.stored and self._fits(int(numbers.min())) and self._fits(int(numbers.max())):
            return numbers  # nothing else lies in the words
        return (numbers << self.allocated - end) >> self.allocated - min(bits, end)

    def _fits(self, number: int) -> bool:
        lowest, highest = self.ends
        return lowest <= number <= highest


def stored_numbers(header: Header, name: str) -> StoredNumbers:
    """How the stored numbers of a slice lie in its words, as its header says.

    Args:
        header: The slice's header.
        name: Name of the slice in messages.

    Raises:
        FormatError: The header does not say it, contradicts itself, or tells of words that cannot hold HU.
    """
    allocated = _whole(header, "BitsAllocated")
    if allocated not in WORDS:
        raise FormatError(
            f"{name} stores pixels in {allocated or 'unknown'} bits instead of 16; give CT slices in HU"
        )
    stored = _whole(header, "BitsStored") or allocated
    high = _whole(header, "HighBit")
    high = stored - 1 if high is None else high
    if not (0 < stored <= allocated and 0 <= high < allocated):
        raise FormatError(
            f"{name} has {stored} bits stored and the high bit {high} in words of {allocated} bits, which is"
            " impossible; export the series again"
        )
    sign = _whole(header, "PixelRepresentation")
    signed = sign == 1
    padding = _padding(header, allocated, signed)
    return StoredNumbers(allocated, stored, high, signed, sign in (0, 1), padding)


def _whole(header: Header, keyword: str) -> int | None:
    value = header.number(keyword)
    return None if value is None else int(value)


def _padding(header: Header, allocated: int, signed: bool) -> tuple[int, int] | None:
    """The first and the last padding number, in the sign of the pixels.

    Writers give the element the other sign, too: -2000 and 63536 are the same word.
    """
    first = _whole(header, "PixelPaddingValue")
    if first is None:
        return None
    limit = _whole(header, "PixelPaddingRangeLimit")
    ends = sorted((first, first if limit is None else limit))
    half = 1 << allocated - 1 if signed else 0
    first, last = ((end + half) % (1 << allocated) - half for end in ends)
    return first, last
