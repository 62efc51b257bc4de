"""`anchormix detector`: train a detector on labelled text, calibrate one on human text, make a watermark key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.detectors import load_spec
from pipeline.errors import UsageError
from pipeline.labelled import Labelled, Reading, read_labelled
from pipeline.outcome import Outcome
from transforms.kernels.detection import DEFAULT_ALPHA, Calibration
from transforms.kernels.detectors import BUILT_IN, DetectorFailed, DetectorSpec, score_batch, split_target
from transforms.kernels.hashing import text_digests
from transforms.kernels.ngrams import score_ngrams
from transforms.kernels.ngrams_training import TrainingError
from transforms.kernels.ngrams_training import train as train_ngrams
from transforms.kernels.schemas import score_column
from transforms.kernels.watermark import SCHEMES, WatermarkKey

__all__ = ["calibrate", "make_key", "train"]

_MEANINGS = ("human", "ai_assisted", "synthetic", "unknown")


def reading(
    text: str | None, label: str | None, meanings: Sequence[str], language: str | None, group: str | None
) -> Reading:
    """The options of the command line, checked."""
    labels = tuple(_meaning(given) for given in meanings)
    if labels and label is None:
        raise UsageError("bad_call", "--label needs the column it speaks of: --label-column NAME")
    if label is not None and not labels:
        says = (
            f"--label-column {label} says nothing until its values are explained: --label 1=human --label 0=synthetic"
        )
        raise UsageError("bad_call", says)
    return Reading(text, label, labels, language, group)


def _meaning(given: str) -> tuple[str, str]:
    value, equals, meaning = given.rpartition("=")
    if not equals or meaning not in _MEANINGS:
        says = f"--label {given}: valid is VALUE=MEANING, where the meaning is one of {', '.join(_MEANINGS)}"
        raise UsageError("bad_call", says)
    return value, meaning


def train(inputs: Sequence[str], how: Reading, output: Path) -> Outcome:
    """Write a model of n-grams to `output`, and its calibration beside it."""
    beside = output.with_name(f"{output.name}.calibration.json")
    labelled = read_labelled(inputs, how)
    text = labelled.column("text")
    try:
        trained = train_ngrams([value.encode() for value in text.to_pylist()], labelled.synthetic, labelled.groups)
    except TrainingError as error:
        raise UsageError("too_few_documents", f"{_counts(labelled)}: {error}", **_totals(labelled)) from None
    content = trained.model.to_bytes()
    unseen = trained.order[trained.held_out]
    humans = unseen[~labelled.synthetic[unseen]]
    calibration = _calibration(
        labelled, humans, trained.model.digest, score_ngrams(text.take(humans), trained.model), "ngrams"
    )
    _write(output, content)
    _write(beside, calibration.to_bytes())
    told = trained.model.training
    validated, held_out = told["cross_validation"], told["held_out"]
    lines = [
        f"{output}: trained on {validated['human']:,} human and {validated['synthetic']:,} synthetic documents in "
        f"{told['groups']:,} groups ({_counts(labelled)}; each text once).",
        f"{beside}: {calibration.documents:,} human documents that it was not trained on.",
        f"AUROC {validated['auroc']:.3f} in {validated['folds']}-fold cross-validation"
        + (f", {held_out['auroc']:.3f} on the third held out" if "auroc" in held_out else "")
        + "; elsewhere it may be worse.",
    ]
    if told["contradictions"]:
        lines.append(f"Left out: {told['contradictions']:,} texts that are labelled human and synthetic.")
    lines += [_calibrated_for(calibration), "Name both in a config:", f"  {_entry('ngrams', str(output), str(beside))}"]
    totals = {**_totals(labelled), "calibration_documents": calibration.documents}
    details = {"calibration": str(beside), "training": dict(told)}
    return Outcome("\n".join(lines), output=str(output), totals=totals, details=details)


def calibrate(inputs: Sequence[str], how: Reading, target: str, model: Path | None, output: Path) -> Outcome:
    """Write the scores that a detector gives human text."""
    if (target in BUILT_IN) != (model is not None):
        says = "ngrams and watermark need --model FILE, and nothing else takes it"
        raise UsageError("bad_call", f"--detector {target}: {says}")
    spec = load_spec(target, target, str(model) if model else None, "--detector")
    if spec.is_column:
        how = Reading(how.text, how.label, how.labels, how.language, how.group, (target,), how.declare)
    labelled = read_labelled(inputs, how)
    humans = labelled.humans()
    scores = _score(labelled, spec)
    calibration = _calibration(labelled, humans, spec.digest, scores[humans], target)
    if not calibration.documents:
        says = "files without labels are taken for human; in a config, only what its labels, custody or beliefs say"
        raise UsageError("too_few_documents", f"no human document has a score ({_counts(labelled)}); {says}")
    _write(output, calibration.to_bytes())
    lines = [
        f"{output}: {calibration.documents:,} human documents ({_counts(labelled)}).",
        _calibrated_for(calibration),
        "Name it in a config:",
        f"  {_entry(target, str(model) if model else None, str(output))}",
    ]
    totals = {**_totals(labelled), "calibration_documents": calibration.documents}
    return Outcome("\n".join(lines), output=str(output), totals=totals, details={"detector": spec.digest})


def make_key(output: Path, scheme: str, gamma: str, context: int | None, tokenizer: Path | None) -> Outcome:
    """Write a fresh watermark key, for its owner's eyes only."""
    try:
        share = Fraction(gamma)
        folder = output.absolute().parent
        path = os.path.relpath(tokenizer.absolute(), folder) if tokenizer else None
        wide = (0 if scheme == "unigram" else 1) if context is None else context
        key = WatermarkKey.fresh(scheme, share, wide, path)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError("bad_call", f"detector key: {error}") from None
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        says = f"{output} exists, and a key that is overwritten is lost for all text it marked; choose another name"
        raise UsageError("file_exists", says) from None
    with os.fdopen(handle, "wb") as file:
        file.write(key.to_bytes())
    text = f"{output}: keep it secret; whoever has it can mark text, and forge or remove the mark.\n"
    text += f"Name it in a config:\n  {_entry('watermark', str(output), None)}"
    return Outcome(text, output=str(output), totals={}, details={"scheme": scheme, "schemes": list(SCHEMES)})


def _score(labelled: Labelled, spec: DetectorSpec) -> NDArray[np.float64]:
    """Batch by batch, as an index scores them; NaN where there is no number."""
    parts = [np.empty(0)]
    start = 0
    for batch in labelled.batches:
        words = labelled.n_words[start : start + batch.num_rows]
        start += batch.num_rows
        try:
            told = score_batch(batch, [spec], np.ones(batch.num_rows, bool), words)
        except DetectorFailed as error:
            raise UsageError("bad_detector", f"--detector {spec.target}: {error}") from None
        parts.append(told[score_column(spec.name)].fill_null(np.nan).to_numpy(zero_copy_only=False))
    return np.concatenate(parts)


def _calibration(labelled: Labelled, humans: Any, digest: str, scores: Any, name: str) -> Calibration:
    """Each text once, because a text that is there a hundred times is one piece of evidence."""
    text = labelled.column("text").take(pa.array(humans))
    digests = text_digests(text)
    order = np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)
    first = np.sort(np.unique(digests, axis=0, return_index=True)[1]) if len(digests) else np.empty(0, np.int64)
    language = labelled.column("language").take(pa.array(humans[first]))
    return Calibration.of(
        digest, language, labelled.n_words[humans[first]], scores[first], order[first], {"name": name}
    )


def _calibrated_for(calibration: Calibration) -> str:
    """Where the default alpha can be reached, and what can be reached at all."""
    least = int(1 / DEFAULT_ALPHA) - 1
    enough = sum(len(scores) >= least for scores in calibration.scores.values())
    largest = max(map(len, calibration.scores.values()), default=0)
    return (
        f"{enough:,} of {len(calibration.scores):,} languages and lengths have the {least:,} human documents that the "
        f"default alpha of {float(DEFAULT_ALPHA):g} needs; the largest has {largest:,}, enough for an alpha of "
        f"{1 / (largest + 1):.2g}. Elsewhere the detector abstains."
    )


def _counts(labelled: Labelled) -> str:
    told = _totals(labelled)
    more = f", {told['unlabelled']:,} neither" if told["unlabelled"] else ""
    more += f", {told['unreadable']:,} unreadable" if told["unreadable"] else ""
    return f"read: {told['human']:,} human, {told['synthetic']:,} synthetic{more}"


def _totals(labelled: Labelled) -> dict[str, int]:
    return {
        "human": int((~labelled.synthetic).sum()),
        "synthetic": int(labelled.synthetic.sum()),
        "unlabelled": labelled.unlabelled,
        "unreadable": labelled.unreadable,
    }


def _entry(target: str, model: str | None, calibration: str | None) -> str:
    fields = {"detector": f'"{target}"' if split_target(target) else target, "model": model, "calibration": calibration}
    told = ", ".join(f"{name}: {value}" for name, value in fields.items() if value)
    return f"evidence: {{detectors: [{{{told}}}]}}"


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(data)
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise UsageError("cannot_write", f"{path} cannot be written: {error.strerror or error}") from None
