"""What a document that states no language is written in, so that it is measured among its like."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.hashing import byte_spans

__all__ = ["SCRIPT", "languages_or_scripts"]

SCRIPT = "script:"
"""Before the name of a script where that of a language would stand; no code of a language has a colon."""

_READ_BYTES = 4096  # of a document, from its beginning

# Blocks of the letters of a script. Digits, punctuation, and the ideographs beyond the basic plane belong to none.
_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": (
        *((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x2AF), (0x1D00, 0x1DBF)),
        *((0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF)),
    ),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "Armenian": ((0x530, 0x58F),),
    "Hebrew": ((0x590, 0x5FF), (0xFB1D, 0xFB4F)),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x870, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "Syriac": ((0x700, 0x74F),),
    "Thaana": ((0x780, 0x7BF),),
    "Devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Oriya": ((0xB00, 0xB7F),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Sinhala": ((0xD80, 0xDFF),),
    "Thai": ((0xE00, 0xE7F),),
    "Lao": ((0xE80, 0xEFF),),
    "Tibetan": ((0xF00, 0xFFF),),
    "Myanmar": ((0x1000, 0x109F),),
    "Georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2F)),
    "Ethiopic": ((0x1200, 0x139F), (0x2D80, 0x2DDF)),
    "Cherokee": ((0x13A0, 0x13FF), (0xAB70, 0xABBF)),
    "Khmer": ((0x1780, 0x17FF),),
    "Mongolian": ((0x1800, 0x18AF),),
    "Hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7FF)),
    "Han": ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
    "Japanese": ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
}
_NAMES = ["", *(SCRIPT + name for name in _BLOCKS)]
_HAN, _JAPANESE = (1 + list(_BLOCKS).index(name) for name in ("Han", "Japanese"))
_KANA_AMONG_HAN = 10  # one kana in so many characters makes a text Japanese, and not Chinese that quotes some


def _by_character() -> NDArray[np.uint8]:
    table = np.zeros(1 << 16, np.uint8)
    for code, blocks in enumerate(_BLOCKS.values(), start=1):
        for first, last in blocks:
            table[first : last + 1] = code
    table[[0xD7, 0xF7]] = 0  # signs of arithmetic among the letters
    table.flags.writeable = False
    return table


_SCRIPT_OF = _by_character()


def languages_or_scripts(stated: pa.Array, texts: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
    """Names, and which one each document counts under: the language that it states, else `script:` and the script that
    most letters at its beginning are of, else, without a letter, the empty name. Texts must be valid UTF-8 or null."""
    languages = stated.dictionary_encode()
    names = languages.dictionary.to_pylist()
    codes: NDArray[np.int32] = languages.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    if "" in names:
        codes[codes == names.index("")] = -1
    unstated = np.flatnonzero(codes < 0)
    if len(unstated):
        spans = byte_spans(texts)
        found = np.zeros(len(unstated), np.int32)
        counts = np.zeros(len(_NAMES), np.int64)
        _find_scripts(spans.data, spans.starts[unstated], spans.stops[unstated], _SCRIPT_OF, counts, found)
        met, numbers = np.unique(found, return_inverse=True)
        codes[unstated] = len(names) + numbers.reshape(-1)
        names += [_NAMES[script] for script in met]
    return names, codes


@njit(nogil=True, cache=True, _nrt=False)
def _find_scripts(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    script_of: NDArray[np.uint8],
    counts: NDArray[np.int64],
    found: NDArray[np.int32],
) -> None:
    for document in range(starts.shape[0]):
        counts[:] = 0
        at, stop = starts[document], stops[document]
        end = min(stop, at + _READ_BYTES)
        while at < end:
            lead = np.int64(data[at])
            if lead < 0x80:
                counts[script_of[lead]] += 1
                at += 1
            elif lead < 0xE0 and at + 1 < stop:
                counts[script_of[(lead & 0x1F) << 6 | data[at + 1] & 0x3F]] += 1
                at += 2
            elif lead < 0xF0 and at + 2 < stop:
                counts[script_of[(lead & 0x0F) << 12 | (data[at + 1] & 0x3F) << 6 | data[at + 2] & 0x3F]] += 1
                at += 3
            else:
                at += 4
        counts[0] = 0  # what is no letter
        if counts[_JAPANESE] * _KANA_AMONG_HAN >= counts[_HAN] + counts[_JAPANESE]:
            counts[_JAPANESE] += counts[_HAN]
            counts[_HAN] = 0
        best = 0
        for script in range(1, counts.shape[0]):
            if counts[script] > counts[best]:
                best = script
        found[document] = best
