"""`evidence.detectors`: whose scores are read, against which human text they are calibrated, and how sure is sure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pipeline.config_blocks import Block, Key
from pipeline.config_kinds import PathTo, Text
from pipeline.config_numbers import Share, Whole
from pipeline.config_yaml import At, Raw

__all__ = ["BUILT_IN", "DetectorEntry", "DetectorKind"]

BUILT_IN = ("ngrams", "watermark")
"""Detectors that need a file of their owner's; any other word is a column, or module:callable."""

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

ALPHA = Fraction(1, 1000)
"""One in a thousand human documents is spoken against by chance; far below the default of max_contested."""


@dataclass(frozen=True, kw_only=True)
class DetectorEntry:
    """One detector. Only `detector` is required; a string stands for an entry that says nothing else."""

    detector: Annotated[
        str,
        Key(
            Text("ngrams, watermark, module:callable, or a column that holds scores"),
            "ngrams, watermark, module:callable, or a score column",
        ),
    ]
    name: Annotated[
        str | None,
        Key(
            Text("a name of letters, digits, - _ and . that begins with a letter or digit", r"[A-Za-z0-9][\w.-]*"),
            "what evidence calls it; default: what stands under detector",
        ),
    ] = None
    model: Annotated[
        str | None,
        Key(PathTo("a model, or a watermark key"), "the file that ngrams and watermark need"),
    ] = None
    calibration: Annotated[
        str | None,
        Key(PathTo("a calibration, as detector train and detector calibrate write it"), "scores of human text"),
    ] = None
    alpha: Annotated[
        Fraction, Key(Share(above_zero=True), "share of human documents that may be spoken against by chance")
    ] = ALPHA
    min_words: Annotated[int, Key(Whole(1), "words below which a document is not judged")] = 128

    @property
    def label(self) -> str:
        return self.name or self.detector

    def check(self, at: At) -> None:
        if ":" in self.detector and not _TARGET.fullmatch(self.detector):
            says = "module:callable is the name of a Python module that can be imported, and of what is called in it"
            (at / "detector").fail("bad_value", says, self.detector)
        if self.detector in BUILT_IN and self.model is None:
            made = "detector train" if self.detector == "ngrams" else "detector key"
            says = f"{self.detector} needs the file that `anchormix {made}` writes, as model: PATH"
            (at / "model").fail("missing_key", says)
        if self.detector not in BUILT_IN and self.model is not None:
            says = f"only {' and '.join(BUILT_IN)} take a model; your own code opens its files itself"
            (at / "model").fail("bad_value", says, self.model)
        if self.alpha == 1:
            (at / "alpha").fail("bad_value", "an alpha of 1 speaks against every document; valid is below 1", 1)


class DetectorKind(Block):
    """A mapping, or a string that names the detector alone."""

    def __init__(self) -> None:
        super().__init__(DetectorEntry)
        self.valid = f"a score column, module:callable, or {self.valid}"

    def parse(self, raw: Raw, at: At) -> Any:
        return super().parse({"detector": raw} if isinstance(raw, str) else raw, at)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, super().schema()]}
