"""Marks of chat tools: each recogniser fires on its mark, stays silent on showing it, and never depends on batching."""

import base64
import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.artefacts import (
    HINT,
    RECOGNISERS,
    RECOGNISERS_VERSION,
    artefact_bits,
    recognisers_in,
    shown_in,
)


def hidden(payload: bytes) -> str:
    """What a text manifest is, before anything cleans it away."""
    return "".join(chr(0xFE00 + b if b < 16 else 0xE0100 + b - 16) for b in payload)


def armoured(source_type: str, lead: int) -> str:
    return base64.b64encode(b"\x00" * lead + f"digitalsourcetype/{source_type}".encode() + b"\xff\xfe").decode()


SELECTORS = hidden(b"C2PATXT\0\x01")

MARKS = {
    "oaicite": ["Rome fell :contentReference[oaicite:3]{index=3}.", "see :oaicite:4"],
    "oai_citation": ["as shown ([oai_citation:1‡example.org](https://example.org))"],
    "turn_search": ["It grew citeturn0search12.", "\ue200cite\ue202turn1news4\ue201", "turn10image2"],
    "attributable_index": ['({"attribution":{"attributableIndex":"1009-1"}})'],
    "sandbox_link": ["[Download](sandbox:/mnt/data/report.xlsx)"],
    "tagged_link": [
        "https://example.org/?utm_source=chatgpt.com",
        "https://example.org/?a=b&utm_source=openai",
        "?utm_source=copilot.com",
        "https://example.org/?referrer=grok.com",
    ],
    "line_citation": ["as reported【85†L1-L9】.", "as reported【12:3†source】"],
    "writing_block": [':::writing{variant="email"}'],
    "cite_mark": ["The law passed [cite: 1].", "[cite_start]The law", "[cite: 12, 14]", "[cite:\n7]"],
    "span_mark": ["[span_1](start_span)The law[span_1](end_span)", "x [span_22](end_span)"],
    "perplexity_mark": [
        "https://ppl-ai-file-upload.s3.amazonaws.com/x",
        "so it is [attached_file:1]",
        "so it is [web:3]",
        '<div align="center">⁂</div>',
    ],
    "grok_card": ['<grok-card data-id="e8">', "grok_card", "grok_render_citation"],
    "self_reference": [
        "As an AI language model, I cannot",
        "as an AI  language\nmodel",
        "As a large language model",
        "I'm an AI language model",
        "As an AI, I do",
        "as an AI assistant",
    ],
    "knowledge_cutoff": [
        "Until my knowledge cutoff in 2021",
        "as of my last knowledge update",
        "My knowledge cut-off is",
    ],
    "courtesy": [
        "I hope this helps",
        "I hope this helps!",
        "Would you like me to add more?",
        "Let me know if you'd like me to expand",
    ],
    "c2pa_text": [f"Plain text.\ufeff{SELECTORS}"],
    "c2pa_block": ["# -----BEGIN C2PA MANIFEST-----"],
    "disclosure_modified": ["AI-Disclosure: mode=ai-modified; model=x", 'AI-Disclosure: mode="ai-modified", model="x"'],
    "composite_source_type": [
        "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia",
        '"digitalSourceType": "https://schema.org/CompositeWithTrainedAlgorithmicMediaDigitalSource"',
    ],
    "disclosure_originated": [
        "AI-Disclosure: mode=ai-originated",
        "ai-disclosure: mode=machine-generated",
        '<meta name="AI-Disclosure" content="mode=ai-originated; provider=x">',
        'AI-Disclosure: mode="machine-generated"',
    ],
    "generated_source_type": [
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        '"digitalSourceType": "https://schema.org/TrainedAlgorithmicMediaDigitalSource"',
    ],
    "c2pa_generated": [
        hidden(b"digitalsourcetype/trainedAlgorithmicMedia\xff"),
        *(armoured("trainedAlgorithmicMedia", lead) for lead in range(6)),
    ],
    "c2pa_composite": [
        hidden(b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia\xff"),
        *(armoured("compositeWithTrainedAlgorithmicMedia", lead) for lead in range(6)),
    ],
    "aigc_label": ['{"AIGC": {"Label": "1"}}', '{"AIGC":{"Label":"1"}}'],
}

INNOCENT = [
    "",
    "Let us turn 0 search results into 12 pages, and return0search is a name; turn0search without a number.",
    "It has an AI language modelled on birds; she was an AI assistant professor's heir. Basan AI assistant.",
    "I hope this helped. The knowledge cutoffs of others. Would you like me? Would you like me too?",
    "utm_source=newsletter sandbox:/home/data [cite: Smith] [span_a](start_span) 【注】 †",
    "日本語の文章【重要】です。👩🏽‍💻 flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿 e\ufe0f",
]


def bits_of(*texts: str | None, kind: pa.DataType | None = None) -> list[int]:
    return artefact_bits(pa.array(texts, kind or pa.large_string())).tolist()


def names(text: str) -> set[str]:
    return {recogniser.name for recogniser in recognisers_in(bits_of(text)[0])}


def shown_names(text: str) -> set[str]:
    return {recogniser.name for recogniser in shown_in(bits_of(text)[0])}


CASES = [(name, text) for name, texts in MARKS.items() for text in texts]


@pytest.mark.parametrize(("name", "text"), CASES)
def test_each_mark_is_recognised_alone(name: str, text: str) -> None:
    assert names(text) - {"turn_search"} <= {name}
    assert name in names(text)


@pytest.mark.parametrize(("name", "text"), CASES)
def test_ascii_case_and_byte_offset_do_not_matter(name: str, text: str) -> None:
    for shift in range(5):
        assert name in names("." * shift + " " + text), shift
    shouted = "".join(c.upper() if c.isascii() else c for c in text)
    assert name in names(shouted)


@pytest.mark.parametrize(("name", "text"), CASES)
@pytest.mark.parametrize(
    "shown",
    [
        "Look:\n```\n{}\n```\nthat is all",
        "Look:\n~~~~ text\n```\n{}\n~~~\n~~~~\n",
        "Look:\n\n    {}\n",
        "Look:\n\t{}\n",
        "> {}\n",
        "  > {}\n",
        "the mark ``` {} ``` is gone",
        "never closed\n```\n{}",
    ],
)
def test_a_mark_that_is_shown_does_not_count(name: str, text: str, shown: str) -> None:
    one_line = text.replace("\n", " ")
    assert names(shown.format(one_line)) == set()
    assert name in shown_names(shown.format(one_line))
    # The same frame does not hide a mark that stands behind it on a line of its own.
    if "never closed" not in shown:
        assert name in names(shown.format(one_line) + f"\n{one_line}")
        assert name not in shown_names(shown.format(one_line) + f"\n{one_line}")


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("`turn0search1`", False),
        ("`a` turn0search1", True),
        ("`a` `turn0search1`", False),
        ("a lone ` tick, turn0search1", True),
        ("a lone ` tick, turn0search1, and ` another", False),
        ("``a ` turn0search1``", False),
        ("``a ` turn0search1 `` `b", False),
        ("`a\nturn0search1`", True),
        ("```a``` turn0search1", True),
        ("```a```\nturn0search1", True),
        ("````a```` turn0search1", True),
        ("   ```\nturn0search1\n   ```", False),
        ("    ```\nturn0search1", True),
        ("```\n```\nturn0search1", True),
        ("```\n``` not closed\nturn0search1", False),
        ("~~~\n```\n~~~\nturn0search1", True),
        ("   turn0search1", True),
        ("    turn0search1", False),
        ("x > turn0search1", True),
        ("> quoted\nturn0search1", True),
        ("```\r\ncode\r\n```\r\nturn0search1", True),
        ("turn0search1\n```\nturn0search1\n```", True),
    ],
)
def test_what_counts_as_shown(text: str, counts: bool) -> None:
    assert (names(text) == {"turn_search"}) is counts


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ('She writes "as an AI language model" in her essay', False),
        ('She writes "no" as an AI language model', True),
        ('"I cannot, as an AI language model, do that," it said', False),
        ('an open " mark, as an AI language model\nas an AI language model', True),
        ("die Worte \u201e as an AI language model\u201c", False),
        ("les mots \u00ab as an AI language model \u00bb", False),
        ("les \u00ab mots \u00bb as an AI language model", True),
        ("\u300c as an AI language model\u300d", False),
        ("\u201cwords\u201d and as an AI language model", True),
        ("the phrase 'as an AI language model'", False),
        ("it doesn't, as an AI language model, know", True),
        ("the dogs' as an AI language model", True),
        ("'as an AI language model", False),
    ],
)
def test_quotation_marks_make_a_phrase_one_that_is_only_shown(text: str, counts: bool) -> None:
    assert (names(text), shown_names(text)) == (({"self_reference"}, set()) if counts else (set(), {"self_reference"}))


def test_what_a_credential_says_is_told_from_what_it_only_promises() -> None:
    manifest = hidden(b"C2PATXT\0\x01 jumb c2pa digitalsourcetype/digitalCreation")
    assert names(f"Text.\ufeff{manifest}") == {"c2pa_text"}
    generated = hidden(b"C2PATXT\0\x01 jumb c2pa digitalsourcetype/trainedAlgorithmicMedia")
    assert names(f"Text.\ufeff{generated}") == {"c2pa_text", "c2pa_generated"}


@pytest.mark.parametrize("text", INNOCENT)
def test_ordinary_text_bears_no_mark(text: str) -> None:
    assert bits_of(text) == [0]


def test_each_document_is_read_on_its_own() -> None:
    halves = ["citeturn0sea", "rch0", "contentRef", "erence[x", None, "```", "turn0search0"]
    for kind in (pa.string(), pa.large_string()):
        assert [bits > 0 for bits in bits_of(*halves, kind=kind)] == [False] * 6 + [True]
    assert bits_of("```\nturn0search0", "turn0search0", "`turn0search0", "turn0search0`") == [4 << 32, 4, 4, 4]


def test_nulls_hide_the_bytes_they_own() -> None:
    for mark, bit in (("turn0search0", 2), (":::writing{", 7)):
        for shown in (mark, "x" * len(mark)):
            offsets = pa.py_buffer(np.array([0, len(mark), 2 * len(mark)], np.int64))
            buffers = [pa.py_buffer(b"\x02"), offsets, pa.py_buffer((mark + shown).encode())]
            text = pa.Array.from_buffers(pa.large_string(), 2, buffers)
            assert artefact_bits(text).tolist() == [0, (shown == mark) << bit]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([text for _, text in CASES] + INNOCENT + ["```\n", "`", "> "]), max_size=12), st.data())
def test_bits_do_not_depend_on_the_batch(texts: list[str], data: st.DataObject) -> None:
    whole = pa.array(texts, pa.string())
    start = data.draw(st.integers(0, len(texts)))
    stop = data.draw(st.integers(start, len(texts)))
    alone = [bits_of(text)[0] for text in texts]
    assert artefact_bits(whole).tolist() == alone
    assert artefact_bits(whole.slice(start, stop - start)).tolist() == alone[start:stop]


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("`~> \t\nab"), max_size=40), st.text(st.sampled_from("`~> \t\nab"), max_size=40))
def test_only_what_stands_around_a_mark_decides(before: str, after: str) -> None:
    """Against a slow reading of the same rules."""
    lines = before.split("\n")
    fence = ""
    for line in lines[:-1]:
        fence = _after_line(line, fence)
    mark = "turn0search0"
    own = lines[-1] + mark + after.split("\n")[0]
    shown = bool(fence) or own.startswith("    ") or own.lstrip(" ").startswith((">", "\t"))
    shown = shown or _in_span(own, len(lines[-1]))
    # A later copy of the mark would be seen too, so the text around it holds none.
    assert (names(before + mark + after) == set()) is shown


def _after_line(line: str, fence: str) -> str:
    bare = line.lstrip(" ")
    indent = len(line) - len(bare)
    for tick in "`~":
        run = len(bare) - len(bare.lstrip(tick))
        if indent > 3 or run < 3:
            continue
        rest = bare[run:]
        if not fence and not (tick == "`" and "`" in rest):
            return tick * run
        if fence and tick == fence[0] and run >= len(fence) and not rest.strip():
            return ""
    return fence


def _in_span(line: str, at: int) -> bool:
    place = 0
    while (place := line.find("`", place)) != -1:
        run = len(line[place:]) - len(line[place:].lstrip("`"))
        close = place + run
        while run <= 3 and (close := line.find("`", close)) != -1:
            closing = len(line[close:]) - len(line[close:].lstrip("`"))
            close += closing
            if closing == run:
                if place <= at < close:
                    return True
                break
        else:
            close = -1
        place = close if run <= 3 and close != -1 else place + run
    return False


def test_a_document_full_of_shown_marks_takes_linear_time() -> None:
    """Quadratic work would take minutes here."""
    line = "`turn0search0` " * 40_000 + "`` " + "` `` ``` " * 40_000
    fenced = "```\n" + "turn0search0\n" * 40_000
    quoted = "\"turn0search0 \u201c 'turn0search0" * 40_000
    assert bits_of(line, fenced, '"' + quoted) == [4 << 32, 4 << 32, 4]


def test_bits_are_pinned() -> None:
    """Stored facts hold these bits: whoever changes what they mean has to change the version, and this digest."""
    assert [recogniser.bit for recogniser in RECOGNISERS] == list(range(len(RECOGNISERS)))
    assert set(MARKS) == {recogniser.name for recogniser in RECOGNISERS}
    assert len(RECOGNISERS) <= 32  # marks that are only shown have the upper half
    assert not any(r.says is not None and r.kind == HINT for r in RECOGNISERS)
    table = repr([(r.bit, r.name, r.kind, r.patterns, r.says and r.says.label) for r in RECOGNISERS])
    assert (RECOGNISERS_VERSION, hashlib.sha256(table.encode()).hexdigest()[:16]) == ("2", "489bf3b60eae6caa")


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        artefact_bits(pa.array([1, 2]))
