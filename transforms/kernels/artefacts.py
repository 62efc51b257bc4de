"""Marks in text that tell of its origin: one compiled pass over the raw bytes, one bit per recogniser that fired.

Most are left by chat tools: such a mark says that text went through one, never who wrote it. Others disclose an origin
in words made for that. What a set of marks means is decided with all other evidence. Text that *shows* a mark need not
*bear* it: marks seen only in a code fence, an indented block, an inline code span, a block quote or quotation marks
are kept apart, in the upper half of the bits.

The pass looks up every second pair of neighbouring bytes in a table. A pattern is entered there under the two pairs
of its rarest three bytes only, so on ordinary text almost all lookups miss; the few that hit are matched in full.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.hashing import byte_spans
from transforms.kernels.schemas import Provenance

__all__ = [
    "CREDENTIAL",
    "HINT",
    "RECOGNISERS",
    "RECOGNISERS_VERSION",
    "Recogniser",
    "artefact_bits",
    "recognisers_in",
    "shown_in",
]

RECOGNISERS_VERSION = "2"
"""Changes whenever a document's bits, or what its data set says of it, could: facts of another version are stale."""

HINT = "hint"
"""The kind of marks that people leave too: a copied link, a friendly phrase. They support nothing, however many."""

CREDENTIAL = "content_credential"
"""The kind of marks that promise a statement about origin without saying which: cameras and newsrooms sign, too."""


@dataclass(frozen=True)
class Recogniser:
    r"""One mark. ASCII letters match in either case.

    In a pattern `\d` is one or more digits, a space any run of white space, `\b` the edge of a word; all else is
    itself. Marks of one kind come from one cause, so only different kinds support each other. One that `says` an
    origin is a disclosure: its own syntax is full of quotation marks, so they hide it from nobody.
    """

    bit: int
    name: str
    kind: str
    patterns: tuple[str, ...]
    says: Provenance | None = None

    @property
    def is_trace(self) -> bool:
        """Whether it was left by a chat tool and hardly ever by a person."""
        return self.says is None and self.kind not in (HINT, CREDENTIAL)


def _in_variation_selectors(payload: bytes) -> str:
    """Bytes as C2PA hides them in text: U+FE00.. for the first sixteen values, U+E0100.. for the others."""
    return "".join(chr(0xFE00 + byte if byte < 16 else 0xE0100 + byte - 16) for byte in payload)


def _in_base64(payload: bytes) -> tuple[str, ...]:
    """The characters that bytes become inside a longer base64 text, for each of the three places they can begin at."""
    return tuple(
        base64.b64encode(bytes(lead) + payload)[-(-8 * lead // 6) : 4 * ((lead + len(payload)) // 3)].decode()
        for lead in range(3)
    )


def _in_a_credential(source_type: str) -> tuple[str, ...]:
    """A digital source type as the two text forms of a C2PA manifest hold it."""
    payload = source_type.encode()
    return (_in_variation_selectors(payload), *_in_base64(payload))


def _disclosing(mode: str) -> tuple[str, ...]:
    """An AI-Disclosure field, as a header in either syntax and as an HTML meta tag."""
    return (f"ai-disclosure: mode={mode}", f'ai-disclosure: mode="{mode}', f'ai-disclosure" content="mode={mode}')


# Bits are stored in facts: a recogniser keeps its number for ever, a new one takes the next.
RECOGNISERS: tuple[Recogniser, ...] = (
    Recogniser(0, "oaicite", "chatgpt_reference", ("contentReference[", ":oaicite:", "[oaicite:")),
    Recogniser(1, "oai_citation", "chatgpt_reference", ("oai_citation",)),
    Recogniser(
        2,
        "turn_search",
        "chatgpt_search",
        (r"turn\dsearch\d", r"turn\dnews\d", r"turn\dimage\d", r"turn\dfile\d", r"turn\dview\d", "\ue200cite\ue202"),
    ),
    Recogniser(3, "attributable_index", "chatgpt_attribution", ('"attributableIndex"', "attributableIndex")),
    Recogniser(4, "sandbox_link", "chatgpt_file", ("sandbox:/mnt/data/",)),
    Recogniser(
        5,
        "tagged_link",
        HINT,
        (
            "utm_source=chatgpt.com",
            "utm_source=openai",
            "utm_source=copilot.com",
            "referrer=grok.com",
        ),
    ),
    Recogniser(6, "line_citation", "chatgpt_lines", (r"【\d†", r"【\d:\d†")),
    Recogniser(7, "writing_block", "chatgpt_writing", (":::writing{",)),
    Recogniser(8, "cite_mark", "gemini_citation", (r"[cite: \d", "[cite_start]", "[cite_end]")),
    Recogniser(9, "span_mark", "gemini_citation", (r"[span_\d](start_span)", r"[span_\d](end_span)")),
    Recogniser(
        10,
        "perplexity_mark",
        "perplexity_citation",
        ("ppl-ai-file-upload", r"[attached_file:\d", r"[web:\d]", '<div align="center">⁂</div>'),
    ),
    Recogniser(11, "grok_card", "grok_markup", ("grok_card", "<grok-card", "grok_render_")),
    Recogniser(
        12,
        "self_reference",
        "assistant_voice",
        (
            r"\bas an ai language model",
            r"\bas a large language model",
            r"\bas an ai assistant",
            r"\bas an ai, i\b",
            r"\bi'm an ai language model",
            r"\bi am an ai language model",
        ),
    ),
    Recogniser(
        13,
        "knowledge_cutoff",
        "assistant_voice",
        (
            r"\bmy knowledge cutoff",
            r"\bmy knowledge cut-off",
            r"\bmy last knowledge update",
            r"\bmy training data only goes",
        ),
    ),
    Recogniser(
        14,
        "courtesy",
        HINT,
        (r"\bi hope this helps", r"\bwould you like me to\b", r"\blet me know if you'd like me to\b"),
    ),
    Recogniser(15, "c2pa_text", CREDENTIAL, (_in_variation_selectors(b"C2PATXT\0"),)),
    Recogniser(16, "c2pa_block", CREDENTIAL, ("-----BEGIN C2PA MANIFEST-----",)),
    Recogniser(17, "disclosure_modified", "disclosure", _disclosing("ai-modified"), Provenance.AI_ASSISTED),
    Recogniser(
        18,
        "composite_source_type",
        "disclosure",
        (
            "digitalsourcetype/compositeWithTrainedAlgorithmicMedia",
            "schema.org/CompositeWithTrainedAlgorithmicMediaDigitalSource",
        ),
        Provenance.AI_ASSISTED,
    ),
    Recogniser(
        19,
        "aigc_label",
        "disclosure",
        ('"AIGC": {"Label":', '"AIGC":{"Label":', 'AIGC={"Label":', 'AIGC: {"Label":', 'AIGC:{"Label":'),
        Provenance.SYNTHETIC,
    ),
    Recogniser(
        20,
        "disclosure_originated",
        "disclosure",
        (*_disclosing("ai-originated"), *_disclosing("machine-generated")),
        Provenance.SYNTHETIC,
    ),
    Recogniser(
        21,
        "generated_source_type",
        "disclosure",
        ("digitalsourcetype/trainedAlgorithmicMedia", "schema.org/TrainedAlgorithmicMediaDigitalSource"),
        Provenance.SYNTHETIC,
    ),
    Recogniser(22, "c2pa_generated", "disclosure", _in_a_credential("/trainedAlgorithmicMedia"), Provenance.SYNTHETIC),
    Recogniser(
        23,
        "c2pa_composite",
        "disclosure",
        _in_a_credential("/compositeWithTrainedAlgorithmicMedia"),
        Provenance.AI_ASSISTED,
    ),
)
_SHOWN_SHIFT = 32
"""Bit of a mark that is only shown, above the bit of one that counts."""


def recognisers_in(bits: int) -> tuple[Recogniser, ...]:
    """The recognisers of the marks that one document bears, in the order of their numbers."""
    return tuple(recogniser for recogniser in RECOGNISERS if bits >> recogniser.bit & 1)


def shown_in(bits: int) -> tuple[Recogniser, ...]:
    """The recognisers of the marks that one document only shows, in code or quoted."""
    return recognisers_in(bits >> _SHOWN_SHIFT)


def artefact_bits(text: pa.Array) -> NDArray[np.uint64]:
    """For each document the set of recognisers that fired, bit by bit; 0 for a null."""
    found = np.zeros(len(text), np.uint64)
    data, starts, stops = byte_spans(text)
    if len(data):
        words = data[: len(data) // 2 * 2].view(np.uint16)
        _scan(data, words, starts, stops, *_TABLES, found)
    return found


_DIGITS, _SPACES, _EDGE = 256, 257, 258
"""Elements of a pattern that are not one literal byte."""

_LONGEST_RUN = 16
"""Digits or white space that one element may take: bounds the work behind one hit."""


class _Tables(NamedTuple):
    pairs: NDArray[np.uint8]  # two bytes, as a native uint16 -> whether a trigram begins (1) or ends (2) with them
    multiplier: np.uint32  # sends each trigram to its own slot
    trigrams: NDArray[np.int32]  # slot -> trigram in lower case, or _NO_TRIGRAM
    slot_starts: NDArray[np.int64]  # slot -> its first pattern; patterns stand in the order of their slots
    starts: NDArray[np.int64]  # pattern -> its first element
    anchors: NDArray[np.int64]  # pattern -> the element that the first byte of its trigram matches
    bits: NDArray[np.uint64]
    quotable: NDArray[np.bool_]  # pattern -> whether quotation marks around it make it one that is only shown
    elements: NDArray[np.int16]


def _elements(pattern: str) -> list[int]:
    special = {r"\d": _DIGITS, r"\b": _EDGE}
    out: list[int] = []
    at = 0
    while at < len(pattern):
        if pattern[at : at + 2] in special:
            out.append(special[pattern[at : at + 2]])
            at += 2
            continue
        out.extend([_SPACES] if pattern[at] == " " else pattern[at].lower().encode())
        at += 1
    return out


_COMMON_PAIRS = (
    "inerthonatreenorestetianhestdenttaitngraiondselitoarcoedallenegeismedirourriouceasicelvepenschutmaag"
    "fisiiltretemmopromlaunusfocahaeaieofssecimacllcubeexpactdalosoadidrtrstsncnamphinoamplodhopowiaiviot"
    "igipniclabmiquowaultosocpiirpudodusuoliaifkeovulopuefrwesclytywobarmrdshfeeiudxttusawaeeciefblbuyoep"
)
_COMMON_BYTES = b" etaoinsrhldcumfpgwybvk.,-:/'\"=_\n<>[](){}0123456789jxqz\x80\xe2\xe3\xef\x99\x88\x9c\x9d\xa0\x84\x85"
"""Pairs of letters, and bytes, of everyday text, most frequent first. They decide how fast a pattern is, never
whether it matches."""

_BEGINS, _ENDS = 1, 2
_SLOTS = 1024
_SLOT_SHIFT = 22  # a 32-bit product to one of the slots
_NO_TRIGRAM = -1


def _frequency(first: int, second: int) -> float:
    """How often the pair stands in everyday text, roughly: enough to choose between pairs."""
    at = _COMMON_PAIRS.find(chr(first) + chr(second))
    while at >= 0 and at % 2:  # halves of two neighbouring entries
        at = _COMMON_PAIRS.find(chr(first) + chr(second), at + 1)
    if at >= 0:
        return 0.011 / (1 + at / 28)
    ranks = [_COMMON_BYTES.find(byte) % (2 * len(_COMMON_BYTES)) for byte in (first, second)]
    return min(0.0009, 0.5 / ((2 + ranks[0]) * (2 + ranks[1])))


def _rarest_trigram(elements: list[int]) -> int:
    """Where the three neighbouring literal bytes begin whose two pairs are least likely in everyday text."""

    def frequency(at: int) -> float:
        return _frequency(*elements[at : at + 2]) + _frequency(*elements[at + 1 : at + 3])

    literal = [at for at in range(len(elements) - 2) if max(elements[at : at + 3]) < 256]
    return min(literal, key=frequency)


def _both_cases(byte: int) -> set[int]:
    return {byte, ord(chr(byte).upper())} if byte < 128 else {byte}


def _native_pairs(first: int, second: int) -> list[int]:
    spellings = (bytes((a, b)) for a in _both_cases(first) for b in _both_cases(second))
    return [int(np.frombuffer(pair, np.uint16)[0]) for pair in spellings]


def _collision_free(trigrams: set[int]) -> np.uint32:
    """A multiplier that sends every trigram to a slot of its own, so that one comparison decides."""
    for multiplier in range(0x9E3779B1, 1 << 32, 2):
        if len({(trigram * multiplier & 0xFFFFFFFF) >> _SLOT_SHIFT for trigram in trigrams}) == len(trigrams):
            return np.uint32(multiplier)
    raise AssertionError(f"{len(trigrams)} trigrams do not fit {_SLOTS} slots; double _SLOTS")


def _build_tables(recognisers: tuple[Recogniser, ...]) -> _Tables:
    anchored = []
    for recogniser in recognisers:
        for pattern in recogniser.patterns:
            elements = _elements(pattern)
            anchor = _rarest_trigram(elements)
            first, middle, last = elements[anchor : anchor + 3]
            anchored.append((first << 16 | middle << 8 | last, recogniser, anchor, elements))
    multiplier = _collision_free({trigram for trigram, *_ in anchored})
    pairs = np.zeros(1 << 16, np.uint8)
    trigrams = np.full(_SLOTS, _NO_TRIGRAM, np.int32)
    slots = []
    for trigram, *_ in anchored:
        first, middle, last = trigram >> 16, trigram >> 8 & 0xFF, trigram & 0xFF
        pairs[_native_pairs(first, middle)] |= _BEGINS
        pairs[_native_pairs(middle, last)] |= _ENDS
        slots.append((trigram * int(multiplier) & 0xFFFFFFFF) >> _SLOT_SHIFT)
        trigrams[slots[-1]] = trigram
    order = sorted(range(len(slots)), key=slots.__getitem__)
    lengths = [len(anchored[place][3]) for place in order]
    return _Tables(
        pairs,
        multiplier,
        trigrams,
        np.searchsorted(sorted(slots), np.arange(_SLOTS + 1)).astype(np.int64),
        np.cumsum([0, *lengths], dtype=np.int64),
        np.array([anchored[place][2] for place in order], np.int64),
        np.array([anchored[place][1].bit for place in order], np.uint64),
        np.array([anchored[place][1].is_trace or anchored[place][1].kind == HINT for place in order], np.bool_),
        np.array([element for place in order for element in anchored[place][3]], np.int16),
    )


_TABLES = _build_tables(RECOGNISERS)


@njit(nogil=True, cache=True, inline="always")
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return 48 <= byte <= 57


@njit(nogil=True, cache=True, inline="always")
def _is_space(byte):  # type: ignore[no-untyped-def]
    return byte == 32 or 9 <= byte <= 13


@njit(nogil=True, cache=True, inline="always")
def _is_word(byte):  # type: ignore[no-untyped-def]
    return _is_digit(byte) or 97 <= (byte | 32) <= 122 or byte == 95 or byte >= 128


@njit(nogil=True, cache=True, inline="always")
def _folded(byte):  # type: ignore[no-untyped-def]
    value = np.int64(byte)
    return value + 32 if 65 <= value <= 90 else value


@njit(nogil=True, cache=True)
def _matches(data, start, end, at, elements, first, anchor, last):  # type: ignore[no-untyped-def]
    """Where the match of elements first..last around byte `at` begins, which element `anchor` must match; or -1."""
    p = at
    for k in range(anchor, last):
        element = elements[k]
        if element == _EDGE:
            if p > start and p < end and _is_word(data[p - 1]) and _is_word(data[p]):
                return -1
            continue
        if p >= end:
            return -1
        if element < 256:
            if _folded(data[p]) != element:
                return -1
            p += 1
            continue
        stop = min(end, p + _LONGEST_RUN)
        begun = p
        while p < stop and (_is_digit(data[p]) if element == _DIGITS else _is_space(data[p])):
            p += 1
        if p == begun:
            return -1
    p = at
    for k in range(anchor - 1, first - 1, -1):
        element = elements[k]
        if element == _EDGE:
            if p > start and p < end and _is_word(data[p - 1]) and _is_word(data[p]):
                return -1
            continue
        if p <= start:
            return -1
        if element < 256:
            if _folded(data[p - 1]) != element:
                return -1
            p -= 1
            continue
        stop = max(start, p - _LONGEST_RUN)
        begun = p
        while p > stop and (_is_digit(data[p - 1]) if element == _DIGITS else _is_space(data[p - 1])):
            p -= 1
        if p == begun:
            return -1
    return p


# What is known about quoting up to the last hit of a document. It only moves forward, so however many hits a
# document has, its lines are read once for fences and at most once per run length for inline code.
_LINE, _LINE_END, _FENCE_BYTE, _FENCE_LENGTH, _SPAN, _SPAN_END, _QUOTED_TO, _IN_QUOTES, _UNCLOSED = range(9)
_LONGEST_TICKS = 3
"""Backticks that may open inline code; a longer run within a line is taken as text."""
_QUOTING_SIZE = _UNCLOSED + _LONGEST_TICKS + 1


@njit(nogil=True, cache=True)
def _line_end(data, at, end):  # type: ignore[no-untyped-def]
    while at < end and data[at] != 10:
        at += 1
    return at


@njit(nogil=True, cache=True)
def _run_end(data, at, end):  # type: ignore[no-untyped-def]
    byte = data[at]
    while at < end and data[at] == byte:
        at += 1
    return at


@njit(nogil=True, cache=True)
def _begin_line(data, at, end, quoting):  # type: ignore[no-untyped-def]
    quoting[_LINE] = at
    quoting[_LINE_END] = _line_end(data, at, end)
    quoting[_SPAN] = at
    quoting[_SPAN_END] = at
    quoting[_QUOTED_TO] = at
    quoting[_IN_QUOTES] = 0
    quoting[_UNCLOSED:] = 0


@njit(nogil=True, cache=True)
def _begin_document(data, start, end, quoting):  # type: ignore[no-untyped-def]
    quoting[_FENCE_LENGTH] = 0
    _begin_line(data, start, end, quoting)


@njit(nogil=True, cache=True)
def _pass_line(data, quoting):  # type: ignore[no-untyped-def]
    """Leave the current line: open or close a fence if that is what the line does."""
    end = quoting[_LINE_END]
    at = quoting[_LINE]
    indent_limit = min(end, at + 3)
    while at < indent_limit and data[at] == 32:
        at += 1
    if at >= end or (data[at] != 96 and data[at] != 126):
        return
    fence = data[at]
    after = _run_end(data, at, end)
    length = after - at
    if length < 3:
        return
    if quoting[_FENCE_LENGTH] == 0:
        # Backticks after backticks are inline code, not the name of a language.
        if fence == 96:
            for p in range(after, end):
                if data[p] == 96:
                    return
        quoting[_FENCE_BYTE] = fence
        quoting[_FENCE_LENGTH] = length
    elif fence == quoting[_FENCE_BYTE] and length >= quoting[_FENCE_LENGTH]:
        for p in range(after, end):
            if not _is_space(data[p]):
                return
        quoting[_FENCE_LENGTH] = 0


@njit(nogil=True, cache=True)
def _in_inline_code(data, at, quoting):  # type: ignore[no-untyped-def]
    """Whether byte `at` of the current line stands between a run of backticks and the next run of that length."""
    end = quoting[_LINE_END]
    while quoting[_SPAN_END] <= at:
        p = quoting[_SPAN_END]
        while p < end and data[p] != 96:
            p += 1
            if p > at:
                quoting[_SPAN] = p
                quoting[_SPAN_END] = p
                return False
        if p >= end:
            return False
        after = _run_end(data, p, end)
        ticks = after - p
        quoting[_SPAN] = after
        quoting[_SPAN_END] = after
        if ticks > _LONGEST_TICKS or quoting[_UNCLOSED + ticks] == 1:
            continue
        close = after
        closed = False
        while close < end and not closed:
            if data[close] != 96:
                close += 1
                continue
            next_close = _run_end(data, close, end)
            closed = next_close - close == ticks
            close = next_close
        if closed:
            quoting[_SPAN] = p
            quoting[_SPAN_END] = close
        else:
            quoting[_UNCLOSED + ticks] = 1
    return quoting[_SPAN] <= at


@njit(nogil=True, cache=True)
def _in_quotation_marks(data, at, quoting):  # type: ignore[no-untyped-def]
    """Whether byte `at` of the current line stands behind a quotation mark that was not closed before it."""
    p = quoting[_QUOTED_TO]
    while p < at:
        byte = data[p]
        if byte == 34:
            quoting[_IN_QUOTES] ^= 1
        elif byte >= 0xC2 and p + 1 < at:
            if byte == 0xC2 and data[p + 1] == 0xAB:  # guillemets
                quoting[_IN_QUOTES] = 1
            elif byte == 0xC2 and data[p + 1] == 0xBB:
                quoting[_IN_QUOTES] = 0
            elif p + 2 < at:
                third = data[p + 2]
                if byte == 0xE2 and data[p + 1] == 0x80 and 0x9C <= third <= 0x9E:  # curly, and low ones
                    quoting[_IN_QUOTES] = third != 0x9D
                elif byte == 0xE3 and data[p + 1] == 0x80 and 0x8C <= third <= 0x8F:  # corner brackets
                    quoting[_IN_QUOTES] = third & 1 == 0
        p += 1
    quoting[_QUOTED_TO] = p
    if quoting[_IN_QUOTES]:
        return True
    # A single mark is an apostrophe as often as not: only right before, and behind no word, it opens a quotation.
    line = quoting[_LINE]
    if at > line and data[at - 1] == 39:
        return at - 1 == line or not _is_word(data[at - 2])
    return at - 3 >= line and data[at - 3] == 0xE2 and data[at - 2] == 0x80 and data[at - 1] == 0x98


@njit(nogil=True, cache=True)
def _is_quoted(data, end, at, quoting):  # type: ignore[no-untyped-def]
    """Whether byte `at` stands in code or in a block quote. Calls for one document come with rising `at`."""
    while quoting[_LINE_END] < at:
        _pass_line(data, quoting)
        _begin_line(data, quoting[_LINE_END] + 1, end, quoting)
    if quoting[_FENCE_LENGTH] > 0:
        return True
    p = quoting[_LINE]
    indent_limit = min(quoting[_LINE_END], p + 4)
    while p < indent_limit and data[p] == 32:
        p += 1
    if p == quoting[_LINE] + 4 or data[p] == 9 or data[p] == 62:
        return True
    return _in_inline_code(data, at, quoting)


@njit(nogil=True, cache=True)
def _scan(  # type: ignore[no-untyped-def]
    data,
    words,
    doc_starts,
    doc_stops,
    pairs,
    multiplier,
    trigrams,
    slot_starts,
    starts,
    anchors,
    bits,
    quotable,
    elements,
    found,
):
    """Scan all documents in one go, two bytes a step: of a trigram's two pairs one begins at an even byte."""
    first_byte, last_byte = doc_starts[0], doc_stops[-1]
    quoting = np.zeros(_QUOTING_SIZE, np.int64)
    document = 0
    quoted_document = -1
    word = first_byte // 2
    stop = min(len(words), (last_byte + 1) // 2)
    while word < stop:
        # Four lookups to one branch; what hits, and the last few, is taken one by one.
        group_end = min(stop, word + 4)
        if group_end == word + 4 and not (
            pairs[words[word]] | pairs[words[word + 1]] | pairs[words[word + 2]] | pairs[words[word + 3]]
        ):
            word += 4
            continue
        while word < group_end:
            role = pairs[words[word]]
            at = 2 * word
            word += 1
            if role == 0:
                continue
            # The trigram that ends with this pair comes first, so that positions only rise.
            for shift in range(1, -1, -1):
                begin = at - shift
                if role & (_ENDS if shift else _BEGINS) == 0 or begin < first_byte or begin + 3 > last_byte:
                    continue
                trigram = _folded(data[begin]) << 16 | _folded(data[begin + 1]) << 8 | _folded(data[begin + 2])
                slot = np.int64((np.uint32(trigram) * multiplier & np.uint64(0xFFFFFFFF)) >> _SLOT_SHIFT)
                if trigrams[slot] != trigram:
                    continue
                while doc_stops[document] <= begin:
                    document += 1
                start, end = doc_starts[document], doc_stops[document]
                if begin < start:
                    continue
                for pattern in range(slot_starts[slot], slot_starts[slot + 1]):
                    mark = np.uint64(1) << bits[pattern]
                    first, last = starts[pattern], starts[pattern + 1]
                    if found[document] & mark:
                        continue
                    at_match = _matches(data, start, end, begin, elements, first, first + anchors[pattern], last)
                    if at_match < 0:
                        continue
                    if document != quoted_document:
                        quoted_document = document
                        _begin_document(data, start, end, quoting)
                    shown = _is_quoted(data, end, begin, quoting)
                    if not shown and quotable[pattern]:
                        shown = _in_quotation_marks(data, at_match, quoting)
                    if shown:
                        found[document] |= mark << np.uint64(_SHOWN_SHIFT)
                    else:
                        found[document] |= mark
                        found[document] &= ~(mark << np.uint64(_SHOWN_SHIFT))
