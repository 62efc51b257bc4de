"""The detectors of a config, loaded: what FACTS runs, what FATES judges by, and what is to be said about them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.config import Config, DetectorEntry
from pipeline.errors import UsageError
from transforms import files
from transforms.kernels.detection import Calibration, DetectorRule
from transforms.kernels.detectors import DetectorFailed, DetectorSpec, describe
from transforms.kernels.hashing import fingerprint
from transforms.sidecars import Summary

__all__ = ["NO_DETECTORS", "Detectors", "detector_warnings", "judge_scores", "load_detectors", "load_spec"]

_LARGEST_FILE = 64 << 20
"""A model or a calibration travels to every worker; whatever is larger is something else."""


@dataclass(frozen=True)
class Detectors:
    """All detectors of a config, in the order of their names."""

    specs: tuple[DetectorSpec, ...] = ()
    rules: tuple[DetectorRule, ...] = ()

    @property
    def facts_key(self) -> str:
        """Changes with whatever decides a score; empty without detectors."""
        return fingerprint(*(f"{spec.name}\0{spec.digest}" for spec in self.specs)) if self.specs else ""

    @property
    def fates_key(self) -> str:
        """Changes with the content of calibrations, and with what detectors declare of themselves."""
        told = (
            f"{rule.name}\0{rule.version}\0{rule.kind}\0{rule.strength}\0"
            f"{rule.calibration.digest if rule.calibration else ''}"
            for rule in self.rules
        )
        return fingerprint(*told) if self.rules else ""


NO_DETECTORS = Detectors()


def load_detectors(config: Config) -> Detectors:
    """Exit 2 where a file cannot be read, a plugin not be imported, or a calibration belongs to another detector."""
    entries = sorted(config.evidence.detectors, key=lambda entry: entry.label)
    specs = tuple(_spec(entry) for entry in entries)
    rules = tuple(_rule(entry, spec) for entry, spec in zip(entries, specs, strict=True))
    return Detectors(specs, rules)


def load_spec(name: str, target: str, model: str | None, key: str) -> DetectorSpec:
    """One detector; `key` is what messages call it."""
    content = _content(model, f"{key}.model") if model else b""
    folder = os.path.dirname(os.path.abspath(model)) if model else ""
    try:
        return describe(name, target, content, folder)
    except DetectorFailed as error:
        where = f" ({model})" if model else ""
        raise UsageError("bad_detector", f"{key}: {error}{where}", key=key, detector=name) from None


def _key(entry: DetectorEntry) -> str:
    return f"evidence.detectors.{entry.label}"


def _spec(entry: DetectorEntry) -> DetectorSpec:
    return load_spec(entry.label, entry.detector, entry.model, _key(entry))


def _rule(entry: DetectorEntry, spec: DetectorSpec) -> DetectorRule:
    calibration = None
    if entry.calibration is not None:
        key = f"{_key(entry)}.calibration"
        try:
            calibration = Calibration.from_bytes(_content(entry.calibration, key))
        except ValueError as error:
            raise UsageError("bad_calibration", f"{key}: {entry.calibration} {error}", key=key) from None
        if calibration.detector != spec.digest:
            says = (
                f"{key}: {entry.calibration} holds scores of another detector, or of another version of it; "
                "`anchormix detector calibrate` makes one for this detector"
            )
            raise UsageError("bad_calibration", says, key=key, expected=spec.digest, found=calibration.detector)
    return DetectorRule(
        spec.name, spec.version, spec.kind, spec.strength, entry.alpha, entry.min_words, calibration, spec.states_p
    )


def _content(path: str, key: str) -> bytes:
    try:
        with files.open_input(path) as source:
            data: bytes = source.read(_LARGEST_FILE + 1)
    except OSError as error:
        says = f"{key}: {path} cannot be read: {error.strerror or error}"
        raise UsageError("bad_detector_file", says, key=key, value=path) from None
    if len(data) > _LARGEST_FILE:
        raise UsageError("bad_detector_file", f"{key}: {path} is larger than 64 MiB, so it is no such file", key=key)
    return data


def judge_scores(config: Config, summaries: Sequence[Summary]) -> None:
    """Exit 2 where a score column is in no file at all: its name is wrong."""
    readable = sum(summary.readable for summary in summaries)
    missing = _unscored(summaries)
    for entry in config.evidence.detectors:
        if ":" not in entry.detector and entry.model is None and readable and missing[entry.label] == readable:
            raise UsageError(
                "missing_column",
                f"{_key(entry)}: no document of any source has a number in the column {entry.detector!r}. Name the "
                "column that holds the scores, or leave the detector out.",
                key=_key(entry),
                value=entry.detector,
            )


def _unscored(summaries: Sequence[Summary]) -> Counter[str]:
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary.unscored)
    return total


def detector_warnings(config: Config, detectors: Detectors, accounts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What detectors could not judge, and where chance alone would trip the guard on contested text."""
    for rule in detectors.rules:
        told: Counter[str] = Counter()
        for account in accounts:
            told.update(account.get("detectors", {}).get(rule.name, {}))
        key, judged = f"evidence.detectors.{rule.name}", told["judged"]
        seen = judged + told["no_score"] + told["short"] + told["not_calibrated"]
        if rule.calibration is None and not rule.states_p:
            yield (
                f"{key}: has no calibration, so its scores are stored and say nothing: `anchormix detector calibrate` "
                "makes one from human text"
            )
            continue
        reasons = (
            ("no_score", "have no score"),
            ("short", f"have fewer than {rule.min_words:,} words"),
            ("not_calibrated", _too_few(rule, len(detectors.rules))),
        )
        abstained = [f"{told[what]:,} {why}" for what, why in reasons if told[what]]
        if abstained:
            yield f"{key}: abstains on {seen - judged:,} of {seen:,} documents: {'; '.join(abstained)}"
    chance = sum((rule.alpha for rule in detectors.rules), Fraction(0)) / max(1, len(detectors.rules))
    if detectors.rules and chance >= config.evidence.max_contested:
        yield (
            f"evidence.detectors: by chance alone they speak against up to {float(chance):g} of all human documents, "
            f"and evidence.max_contested stops at {float(config.evidence.max_contested):g} of verified text: lower "
            "alpha, or raise the limit"
        )


def _too_few(rule: DetectorRule, rules: int) -> str:
    needed = -(-rule.threshold(rules).denominator // rule.threshold(rules).numerator) - 1
    return f"are of a language and length with fewer than {needed:,} human documents in the calibration"
