"""Training the n-gram detector: a logistic regression over shares of n-grams, and how it does on what it has not seen.

    trained = train(texts, synthetic, groups)

Everything depends on the set of documents alone. They are put in the order of their digests, and whatever is held out
or cross-validated is chosen by digests of their groups, so that neither files, nor their order, nor a clock take part.
Documents of one group stay together: versions of one text, or answers to one question, would give each other away.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.kernels.ngrams import FEATURES, NgramModel, ngram_counts

__all__ = [
    "FOLDS",
    "HELD_OUT",
    "Trained",
    "TrainingError",
    "area_under_curve",
    "caught_at",
    "fit",
    "shares_of",
    "train",
]

FOLDS = 5
HELD_OUT = 3
"""One in so many groups is not trained on: its human documents calibrate, all of it is the last measurement."""
LEAST_DOCUMENTS = 40
"""Human, and synthetic ones, left to train on. Fewer give five folds that say nothing."""
MOST_DOCUMENTS = 20_000
"""Of each kind; beyond it more documents cost memory and add little to one linear model."""
LONGEST_TEXT = 16 << 10
"""Bytes of a document that training looks at. A share of n-grams is known long before."""

# Draws weights to zero. On 1,200 labelled English texts, folds by text and by subject, ten times as much cost .014 and
# .010 of area under the curve, a hundred times as much .040 and .037.
RIDGE = 1e-4
_MOST_STEPS = 200
FALSE_POSITIVES = 0.01
"""The share of human documents at which a metric counts what is caught."""


class TrainingError(ValueError):
    """Why no detector can be trained on these documents."""


@dataclass(frozen=True)
class Trained:
    """A model, and which documents it has not seen."""

    model: NgramModel
    order: NDArray[np.int64]
    """Which of the given documents were used, in the order of their digests; each text once."""
    held_out: NDArray[np.bool_]
    """Of those, which were kept from training."""


def train(texts: list[bytes], synthetic: NDArray[np.bool_], groups: list[str] | None = None) -> Trained:
    """Raises TrainingError where there are too few documents, or all are alike."""
    digests = [hashlib.sha256(text).digest() for text in texts]
    order, contradictions = _distinct(digests, synthetic)
    group: dict[bytes, str] = {}  # of a text that several groups hold, the first by name
    for digest, name in zip(digests, groups or [digest.hex() for digest in digests], strict=True):
        group[digest] = min(name, group.get(digest, name))
    names = [group[digests[place]] for place in order.tolist()]
    draw = np.array([_draw(name) for name in names], np.uint64)
    held_out = draw % np.uint64(HELD_OUT) == 0
    fold = (draw // np.uint64(HELD_OUT) % np.uint64(FOLDS)).astype(np.int64)
    labels = synthetic[order]
    shown = np.flatnonzero(~held_out)
    for kind, what in ((False, "human"), (True, "synthetic")):
        count = int((labels[shown] == kind).sum())
        if count < LEAST_DOCUMENTS:
            raise TrainingError(
                f"only {count:,} {what} documents are left to train on, after a third of the groups is held out; "
                f"at least {LEAST_DOCUMENTS} are needed, and hundreds are useful"
            )
    shares = shares_of([texts[place][:LONGEST_TEXT] for place in order.tolist()])
    validated = np.zeros(len(shown))
    for number in range(FOLDS):
        inside = fold[shown] == number
        if inside.all() or len(np.unique(labels[shown][~inside])) < 2:
            raise TrainingError(
                "the documents fall into too few groups to cross-validate; name a column whose values differ more"
            )
        weights, intercept = fit(shares[shown[~inside]], labels[shown[~inside]])
        validated[inside] = shares[shown[inside]] @ weights + intercept
    weights, intercept = fit(shares[shown], labels[shown])
    unseen = np.flatnonzero(held_out)
    of_unseen = shares[unseen] @ weights + intercept
    told: dict[str, Any] = {
        "human": int((~labels).sum()),
        "synthetic": int(labels.sum()),
        "groups": len(set(names)),
        "contradictions": contradictions,
        "documents_digest": _documents_digest(digests, synthetic, order),
        "cross_validation": {"folds": FOLDS, **_metrics(validated, labels[shown])},
        "held_out": _metrics(of_unseen, labels[unseen]),
    }
    return Trained(NgramModel.from_logit(weights, intercept, told), order, held_out)


def _distinct(digests: list[bytes], synthetic: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Each text once, by digest, at most MOST_DOCUMENTS of a kind; without texts that are said to be both."""
    kinds: dict[bytes, set[bool]] = {}
    first: dict[bytes, int] = {}
    for place, digest in enumerate(digests):
        kinds.setdefault(digest, set()).add(bool(synthetic[place]))
        first.setdefault(digest, place)
    chosen: list[int] = []
    taken = {False: 0, True: 0}
    for digest in sorted(first):
        said = kinds[digest]
        if len(said) == 1:
            kind = next(iter(said))
            if taken[kind] < MOST_DOCUMENTS:
                taken[kind] += 1
                chosen.append(first[digest])
    return np.array(chosen, np.int64), sum(len(said) > 1 for said in kinds.values())


def _draw(group: str) -> int:
    return int.from_bytes(hashlib.sha256(b"group\0" + group.encode()).digest()[:8], "little")


def _documents_digest(digests: list[bytes], synthetic: NDArray[np.bool_], order: NDArray[np.int64]) -> str:
    """Of the set of labelled texts: who has the same has the same digest."""
    total = hashlib.sha256()
    for place in order.tolist():
        total.update(digests[place] + (b"\1" if synthetic[place] else b"\0"))
    return total.hexdigest()


def shares_of(texts: list[bytes]) -> Any:
    """A sparse row per text: which part of its n-grams each feature is."""
    from scipy.sparse import csr_matrix

    counted = [ngram_counts(text) for text in texts]
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(features) for features, _ in counted], out=starts[1:])
    features = np.concatenate([features for features, _ in counted] or [np.empty(0, np.int64)]).astype(np.int32)
    values = np.concatenate([counts / counts.sum() for _, counts in counted] or [np.empty(0)]).astype(np.float32)
    return csr_matrix((values, features, starts), shape=(len(texts), FEATURES))


def fit(shares: Any, synthetic: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Weights and intercept; both kinds count the same, however many documents they have.

    A frequent n-gram varies more than a rare one, by about the square root of its mean share: dividing by that lets
    both have a say, and the scale of it makes the mean row one long, so that the ridge means the same everywhere.
    """
    from scipy.optimize import minimize

    mean = np.asarray(shares.mean(axis=0), np.float64).ravel()
    used = np.flatnonzero(mean)
    scale = 1 / np.sqrt(mean[used])
    rows = shares[:, used].astype(np.float64)
    rows.data *= scale[rows.indices]
    scale /= np.sqrt(rows.power(2).sum() / rows.shape[0])
    rows.data *= 1 / np.sqrt(rows.power(2).sum() / rows.shape[0])
    turned = rows.T.tocsr()
    sign = np.where(synthetic, 1.0, -1.0)
    weight = np.where(synthetic, 0.5 / synthetic.sum(), 0.5 / (~synthetic).sum())

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (rows @ point[:-1] + point[-1])
        pull = -sign * weight / (1 + np.exp(np.minimum(margin, 500)))
        value = float((weight * np.logaddexp(0, -margin)).sum() + 0.5 * RIDGE * (point[:-1] @ point[:-1]))
        return value, np.append(turned @ pull + RIDGE * point[:-1], pull.sum())

    found = minimize(loss, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS})
    weights = np.zeros(FEATURES)
    weights[used] = found.x[:-1] * scale
    return weights, float(found.x[-1])


def _metrics(scores: NDArray[np.float64], synthetic: NDArray[np.bool_]) -> dict[str, Any]:
    told: dict[str, Any] = {"human": int((~synthetic).sum()), "synthetic": int(synthetic.sum())}
    if told["human"] and told["synthetic"]:
        told["auroc"] = round(area_under_curve(scores, synthetic), 4)
        told["tpr_at_1_percent_fpr"] = round(caught_at(scores, synthetic, FALSE_POSITIVES), 4)
    return told


def area_under_curve(scores: NDArray[np.float64], synthetic: NDArray[np.bool_]) -> float:
    """The chance that a synthetic document has a higher score than a human one; ties are half."""
    from scipy.stats import rankdata

    positive = int(synthetic.sum())
    pairs = positive * (len(scores) - positive)
    return float((rankdata(scores)[synthetic].sum() - positive * (positive + 1) / 2) / pairs)


def caught_at(scores: NDArray[np.float64], synthetic: NDArray[np.bool_], false_positives: float) -> float:
    """The share of synthetic documents above the score that at most this share of human ones exceeds."""
    human = np.sort(scores[~synthetic])[::-1]
    threshold = human[int(false_positives * len(human))]
    return float((scores[synthetic] > threshold).mean())
