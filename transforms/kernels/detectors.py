"""What a detector is, and how one is loaded and run: a score for every document of a batch, or a diagnosis.

Four kinds stand behind one call: a column of the input that holds scores already; `module:callable`, whose code is the
owner's; the n-gram model that `anchormix detector train` writes; and the watermark test. What each says is bounded by
the kind of evidence it declares, so a classifier cannot claim proof.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.kernels.ngrams import NgramModel, score_ngrams
from transforms.kernels.schemas import SCORE_PREFIX, p_column, score_column
from transforms.kernels.watermark import Greens, WatermarkKey, count_green_ids, count_greens

__all__ = [
    "BUILT_IN",
    "STRONGEST",
    "DetectorFailed",
    "DetectorSpec",
    "Scores",
    "describe",
    "load",
    "run",
    "score_batch",
    "split_target",
]

NGRAMS, WATERMARK = "ngrams", "watermark"
BUILT_IN = (NGRAMS, WATERMARK)
"""Detectors that need a file of their owner's and no code."""

STRENGTHS = ("proof", "detected", "heuristic")
"""Strongest first."""
STRONGEST = {
    "watermark": "proof",
    "artefact": "proof",
    "classifier": "detected",
    "compression": "detected",
    "lexicon": "detected",
}
"""What evidence of each kind can say at most: likeness is no proof."""

_SHOWN = 200  # characters of what a plugin's exception says


class DetectorFailed(Exception):
    """Why a detector cannot be loaded, or gave no usable answer."""

    def __init__(self, name: str, says: str) -> None:
        super().__init__(name, says)
        self.name = name
        self.says = says

    def __str__(self) -> str:
        return self.says


class Scores(NamedTuple):
    """Per document: the score, and p where the detector knows it itself; NaN where there is none."""

    score: NDArray[np.float64]
    p: NDArray[np.float64]

    @classmethod
    def without_p(cls, score: NDArray[np.float64]) -> Scores:
        return cls(score, np.full(len(score), np.nan))


@dataclass(frozen=True)
class DetectorSpec:
    """Everything that a worker needs to run a detector."""

    name: str
    target: str
    """`ngrams`, `watermark`, `module:callable`, or the path of a column."""
    content: bytes = b""
    """The file of a built-in detector."""
    folder: str = ""
    """Where the file stood: what paths in it are relative to."""
    digest: str = ""
    """Of what decides scores."""
    version: str = ""
    kind: str = "classifier"
    strength: str = "detected"
    states_p: bool = False

    @property
    def key(self) -> tuple[str, str, bytes, str]:
        """What it is made of."""
        return self.name, self.target, self.content, self.folder

    @property
    def is_column(self) -> bool:
        return self.target not in BUILT_IN and split_target(self.target) is None


def split_target(target: str) -> tuple[str, str] | None:
    """Module and attribute of `module:callable`; None for anything else, which is the path of a column."""
    module, colon, attribute = target.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return (module, attribute) if colon and all(name.isidentifier() for name in names) else None


def describe(name: str, target: str, content: bytes = b"", folder: str = "") -> DetectorSpec:
    """The detector behind a name, loaded once to see that it can be, with what it declares of itself."""
    spec = DetectorSpec(name, target, content, folder)
    if spec.is_column:
        digest = hashlib.sha256(f"column\0{target}".encode()).hexdigest()
        return DetectorSpec(name, target, digest=digest, version="column")
    scorer = _loaded[spec.key] = _made(spec)  # anew: what it is made of may have changed since it was loaded
    return DetectorSpec(
        name, target, content, folder, scorer.digest, scorer.version, scorer.kind, scorer.strength, scorer.states_p
    )


class Scorer(NamedTuple):
    """A loaded detector: the call, and what it says of itself."""

    score: Callable[[pa.Array, Mapping[str, pa.Array]], Scores]
    digest: str
    version: str
    kind: str
    strength: str
    states_p: bool


_loaded: dict[tuple[str, str, bytes, str], Scorer] = {}
"""Once per process: a model is unpacked, a plugin made, for the first batch only."""


def load(spec: DetectorSpec) -> Scorer:
    """Raises DetectorFailed, saying what is wrong with the file or the plugin."""
    found = _loaded.get(spec.key)
    if found is None:
        found = _loaded[spec.key] = _made(spec)
    return found


def _made(spec: DetectorSpec) -> Scorer:
    return {NGRAMS: _ngrams, WATERMARK: _watermark}.get(spec.target, _plugin)(spec)


def run(spec: DetectorSpec, text: pa.Array, readable: NDArray[np.bool_], meta: Mapping[str, pa.Array]) -> Scores:
    """Scores of a batch, NaN where a document is not readable or has no finite score.

    Raises:
        DetectorFailed: it raised, or its answer is not one number per text.
    """
    rows = len(text)
    scores = Scores.without_p(np.full(rows, np.nan))
    places = np.flatnonzero(readable)
    if not len(places):
        return scores
    chosen = pa.array(places)
    scorer = load(spec)
    whole = len(places) == rows
    told = scorer.score(
        text if whole else text.take(chosen),
        {name: column if whole else column.take(chosen) for name, column in meta.items()},
    )
    scores.score[places] = np.where(np.isfinite(told.score), told.score, np.nan)
    scores.p[places] = told.p
    return scores


META = ("doc_id", "language", "url", "date")
"""Columns of PARSED rows that a plugin is shown beside the text, and the number of words."""


def score_batch(
    batch: pa.RecordBatch, specs: Sequence[DetectorSpec], readable: NDArray[np.bool_], n_words: NDArray[np.int64]
) -> dict[str, pa.Array]:
    """What detectors say of PARSED rows, as columns of facts; a document without a number has null."""
    columns: dict[str, pa.Array] = {}
    meta = {name: batch[name] for name in META} | {"n_words": pa.array(n_words)}
    for spec in specs:
        if spec.is_column:
            name = SCORE_PREFIX + spec.target
            scores = column_scores(batch[name] if name in batch.schema.names else None, batch.num_rows, readable)
        else:
            scores = run(spec, batch["text"], readable, meta)
        columns[score_column(spec.name)] = pa.array(scores.score, from_pandas=True)
        columns[p_column(spec.name)] = pa.array(scores.p, from_pandas=True)
    return columns


def column_scores(values: pa.Array | None, rows: int, readable: NDArray[np.bool_]) -> Scores:
    """Scores that the input holds, as text; NaN where there is none, or no number."""
    if values is None:
        return Scores.without_p(np.full(rows, np.nan))
    number = pc.match_substring_regex(values, r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$")
    texts = pc.if_else(number, pc.utf8_trim_whitespace(values), pa.scalar(None, values.type))
    texts = pc.replace_substring_regex(texts, r"^\+", "")
    score = pc.fill_null(texts.cast(pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
    return Scores.without_p(np.where(readable & np.isfinite(score), score, np.nan))


def _ngrams(spec: DetectorSpec) -> Scorer:
    try:
        model = NgramModel.from_bytes(spec.content)
    except ValueError as error:
        raise DetectorFailed(spec.name, f"the model {error}") from None
    return Scorer(
        lambda text, _: Scores.without_p(score_ngrams(text, model)),
        model.digest,
        model.digest[:12],
        "classifier",
        "detected",
        states_p=False,
    )


def _watermark(spec: DetectorSpec) -> Scorer:
    try:
        key = WatermarkKey.from_bytes(spec.content)
    except ValueError as error:
        raise DetectorFailed(spec.name, f"the key file {error}") from None
    digest = hashlib.sha256(b"watermark\0" + key.to_bytes())
    count: Callable[[pa.Array], Greens] = lambda text: count_greens(text, key)  # noqa: E731
    if key.tokenizer is not None:
        data, tokenizer = _tokenizer(spec, key.tokenizer)
        digest.update(data)
        count = lambda text: _token_greens(text, key, tokenizer)  # noqa: E731

    def score(text: pa.Array, _: Mapping[str, pa.Array]) -> Scores:
        greens = count(text)
        return Scores(greens.z(key.gamma), greens.p_values(key.gamma))

    # Of the key only a digest, cut short, is ever shown or stored.
    shown = f"{key.scheme}-{digest.hexdigest()[:8]}"
    return Scorer(score, digest.hexdigest(), shown, "watermark", "proof", states_p=True)


def _tokenizer(spec: DetectorSpec, path: str) -> tuple[bytes, Any]:
    whole = os.path.join(spec.folder, path)
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise DetectorFailed(
            spec.name,
            f"the key names the tokenizer {path!r}, and the library that reads it is not installed; "
            "`pip install tokenizers`, on workers too",
        ) from None
    try:
        data = Path(whole).read_bytes()
        return data, Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises a bare Exception for whatever it cannot read
        raise DetectorFailed(spec.name, f"the tokenizer {whole!r} cannot be read: {_told(error)}") from None


def _token_greens(text: pa.Array, key: WatermarkKey, tokenizer: Any) -> Greens:
    encoded = tokenizer.encode_batch_fast(text.to_pylist(), add_special_tokens=False)
    ids = [np.asarray(each.ids, np.uint32) for each in encoded]
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(each) for each in ids], out=offsets[1:])
    return count_green_ids(np.concatenate([*ids, np.empty(0, np.uint32)]), offsets, key)


def _plugin(spec: DetectorSpec) -> Scorer:
    """The owner's code; whatever it does wrong is told as such."""
    found = split_target(spec.target)
    assert found is not None  # columns are not loaded
    module_name, attribute = found
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing != module_name and not module_name.startswith(f"{missing}."):
            raise DetectorFailed(
                spec.name, f"importing {module_name} needs {missing}, which is not installed"
            ) from None
        raise DetectorFailed(
            spec.name,
            f"there is no module {missing!r} to import; install it, or name its folder: PYTHONPATH=FOLDER",
        ) from None
    except (Exception, SystemExit) as error:
        raise DetectorFailed(spec.name, f"importing {module_name} failed: {_told(error)}") from None
    target: Any = module
    for name in attribute.split("."):
        if not hasattr(target, name):
            raise DetectorFailed(spec.name, f"the module {module_name} has no {attribute!r}")
        target = getattr(target, name)
    if inspect.isclass(target):
        try:
            target = target()
        except (Exception, SystemExit) as error:
            raise DetectorFailed(spec.name, f"{spec.target}() failed: {_told(error)}") from None
    call = getattr(target, "score", target)
    if not callable(call):
        says = f"{spec.target} is a {type(target).__name__}; valid is a function, or a class with a method score"
        raise DetectorFailed(spec.name, f"{says}, called as score(texts, meta)")
    kind, strength = _declared(spec, target)
    version = str(getattr(target, "version", getattr(module, "__version__", "unversioned")))
    digest = hashlib.sha256(f"{spec.target}\0{version}\0{_source_digest(module)}".encode()).hexdigest()

    def score(text: pa.Array, meta: Mapping[str, pa.Array]) -> Scores:
        plain = {name: column.to_pylist() for name, column in meta.items()}
        try:
            answer = call(text.to_pylist(), plain)
        except (Exception, SystemExit) as error:
            raise DetectorFailed(spec.name, f"{spec.target} failed on a batch: {_told(error)}") from None
        return Scores.without_p(_one_number_each(spec, answer, len(text)))

    return Scorer(score, digest, version, kind, strength, states_p=False)


def _declared(spec: DetectorSpec, target: Any) -> tuple[str, str]:
    kind = getattr(target, "evidence_kind", "classifier")
    if kind not in STRONGEST:
        says = f"{spec.target} declares evidence_kind {kind!r}; valid are {', '.join(STRONGEST)}"
        raise DetectorFailed(spec.name, says)
    most = STRONGEST[kind]
    strength = getattr(target, "max_strength", "detected")
    if strength not in STRENGTHS:
        says = f"{spec.target} declares max_strength {strength!r}; valid are {', '.join(STRENGTHS)}"
        raise DetectorFailed(spec.name, says)
    if STRENGTHS.index(strength) < STRENGTHS.index(most):
        says = f"{spec.target} declares max_strength {strength!r}, and evidence of the kind {kind} is at most {most!r}"
        raise DetectorFailed(spec.name, says)
    return kind, strength


def _source_digest(module: Any) -> str:
    """Of the module's own file, so that changed code is another detector even where its version stayed."""
    file = getattr(module, "__file__", None)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except OSError:
        return ""


def _one_number_each(spec: DetectorSpec, answer: Any, count: int) -> NDArray[np.float64]:
    valid = f"valid is one number per text, {count} here, higher for what looks more synthetic"
    try:
        numbers = np.asarray(answer, np.float64)
    except (TypeError, ValueError):
        says = f"{spec.target} returned a {type(answer).__name__} that is not of numbers; {valid}"
        raise DetectorFailed(spec.name, says) from None
    if numbers.shape != (count,):
        shape = " x ".join(map(str, numbers.shape)) or "a single number"
        raise DetectorFailed(spec.name, f"{spec.target} returned {shape}; {valid}")
    return numbers


def _told(error: BaseException) -> str:
    says = " ".join(f"{type(error).__name__}: {error}".split())
    return says if len(says) <= _SHOWN else says[: _SHOWN - 3] + "..."
