"""A detector of character n-grams: one table of weights, looked up for every two to five bytes of a text.

A document's score is the mean weight of its n-grams: the logit of a logistic regression over their shares, which is
how likely the trainer's labelled texts make it that a model wrote the document. Digits count as one character. Weights
are whole numbers, so that the same text has exactly the same score on every processor.

The score separates what the model was trained on; what it says of other models, subjects and languages is for
calibration and measurement to find out (docs/detectors.md).
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.hashing import byte_spans

__all__ = ["FEATURES", "NgramModel", "ngram_counts", "score_ngrams"]

FORMAT = "anchormix-ngram-detector"
FORMAT_VERSION = 1
"""Changes with anything that decides which weight an n-gram has."""

# On 1,200 labelled English texts two to five bytes in 2^18 places have an area under the curve of .897 on unseen texts,
# .839 on unseen subjects; two to four in 2^16 have .887 and .832, three to five in 2^16 .883 and .833.
SHORTEST, LONGEST = 2, 5
FEATURE_BITS = 18
FEATURES = 1 << FEATURE_BITS
LARGEST_WEIGHT = (1 << 15) - 1

_FOLDED = np.arange(256, dtype=np.uint8)
_FOLDED[ord("0") : ord("9") + 1] = ord("0")
_FOLDED.flags.writeable = False

_LAST_BYTE = np.uint64(56)
_BYTE = np.uint64(8)
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_TO_FEATURE = np.uint64(64 - FEATURE_BITS)


@dataclass(frozen=True)
class NgramModel:
    """Weights, and where they come from."""

    weights: NDArray[np.int16]
    step: float
    """What one unit of a weight adds to the logit."""
    intercept: float
    training: dict[str, Any] = field(default_factory=dict)
    """What it was trained on, and how well it did: digests, counts, metrics. JSON-ready."""

    def __post_init__(self) -> None:
        if self.weights.dtype != np.int16 or self.weights.shape != (FEATURES,):
            raise ValueError(
                f"weights must be int16 of shape ({FEATURES},), got {self.weights.dtype} of {self.weights.shape}"
            )
        if not (np.isfinite(self.step) and np.isfinite(self.intercept)):
            raise ValueError(f"step and intercept must be finite, got {self.step} and {self.intercept}")

    @classmethod
    def from_logit(cls, weights: NDArray[np.float64], intercept: float, training: dict[str, Any]) -> NgramModel:
        """The nearest model whose weights are whole numbers."""
        step = float(np.abs(weights).max(initial=0.0)) / LARGEST_WEIGHT or 1.0
        return cls(np.rint(weights / step).astype(np.int16), step, float(intercept), training)

    def to_bytes(self) -> bytes:
        packed = base64.b64encode(zlib.compress(self.weights.astype("<i2").tobytes(), 9)).decode()
        fields = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "training": self.training,
            "intercept": self.intercept,
            "step": self.step,
            "weights": packed,
        }
        return (json.dumps(fields, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> NgramModel:
        """Raises ValueError, saying what is wrong."""
        try:
            fields = json.loads(data)
        except ValueError:
            raise ValueError("is not JSON; `anchormix detector train` writes such a file") from None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ValueError(f'is no model of n-grams: its "format" is not {FORMAT!r}')
        if fields.get("version") != FORMAT_VERSION:
            raise ValueError(
                f"has version {fields.get('version')!r}, and this release reads {FORMAT_VERSION}; train it anew"
            )
        try:
            inflater = zlib.decompressobj()
            raw = inflater.decompress(base64.b64decode(fields["weights"], validate=True), 2 * FEATURES + 1)
            weights = np.frombuffer(raw, "<i2").astype(np.int16)
            return cls(weights, float(fields["step"]), float(fields["intercept"]), dict(fields["training"]))
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(f"is damaged ({error}); train it anew, or restore it") from None

    @property
    def digest(self) -> str:
        """Of what decides scores."""
        numbers = json.dumps([FORMAT_VERSION, self.step, self.intercept]).encode()
        return hashlib.sha256(numbers + self.weights.astype("<i2").tobytes()).hexdigest()


def score_ngrams(text: pa.Array, model: NgramModel) -> NDArray[np.float64]:
    """The logit of each document; NaN for one too short to hold an n-gram, nulls among them."""
    data, starts, stops = byte_spans(text)
    total = np.zeros(len(starts), np.int64)
    count = np.zeros(len(starts), np.int64)
    weights = model.weights.view()
    weights.flags.writeable = False
    _sum_weights(data, starts, stops, _FOLDED, weights, total, count)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / count, np.nan)
    return mean * model.step + model.intercept


def ngram_counts(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which features the n-grams of one text are, and how many are of each: what training looks at."""
    features = np.empty(len(data) * (LONGEST - SHORTEST + 1), np.int64)
    used = _list_features(np.frombuffer(data, np.uint8), _FOLDED, features)
    found, counts = np.unique(features[:used], return_counts=True)
    return found, counts


@njit(inline="always")
def _feature(lane: np.uint64, size: int) -> np.uint64:
    """The feature of the last `size` bytes of a lane that holds the last eight. Their number is in the hash."""
    gram = (lane >> np.uint64(64 - 8 * size)) + (np.uint64(size) << np.uint64(8 * LONGEST))
    gram *= _MULTIPLY
    return ((gram ^ (gram >> np.uint64(32))) * _MULTIPLY) >> _TO_FEATURE


@njit(nogil=True, cache=True, _nrt=False)
def _sum_weights(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    folded: NDArray[np.uint8],
    weights: NDArray[np.int16],
    total: NDArray[np.int64],
    count: NDArray[np.int64],
) -> None:
    for document in range(starts.size):
        start, stop = starts[document], stops[document]
        lane = np.uint64(0)
        sum_of_weights = np.int64(0)
        # Near its start a document has fewer n-grams a byte.
        head = min(start + LONGEST - 1, stop)
        for at in range(start, head):
            lane = (lane >> _BYTE) | (np.uint64(folded[data[at]]) << _LAST_BYTE)
            for size in range(SHORTEST, at - start + 2):
                sum_of_weights += weights[_feature(lane, size)]
                count[document] += 1
        for at in range(head, stop):
            lane = (lane >> _BYTE) | (np.uint64(folded[data[at]]) << _LAST_BYTE)
            for size in range(SHORTEST, LONGEST + 1):
                sum_of_weights += weights[_feature(lane, size)]
        count[document] += (stop - head) * (LONGEST - SHORTEST + 1)
        total[document] = sum_of_weights


@njit(nogil=True, cache=True, _nrt=False)
def _list_features(data: NDArray[np.uint8], folded: NDArray[np.uint8], features: NDArray[np.int64]) -> int:
    lane = np.uint64(0)
    used = 0
    for at in range(data.size):
        lane = (lane >> _BYTE) | (np.uint64(folded[data[at]]) << _LAST_BYTE)
        for size in range(SHORTEST, min(LONGEST, at + 1) + 1):
            features[used] = np.int64(_feature(lane, size))
            used += 1
    return used
