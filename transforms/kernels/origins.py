"""What the columns, folders and speakers of a shard say of each document's origin, as one packed value a document.

Rules are asked once for each combination of values that occurs in a batch; documents share a few of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.kernels.columns import Keys, Located
from transforms.kernels.recognisers import Claim, Voice, pack_claims, unpack_claims
from transforms.kernels.strata import distinct_rows

__all__ = ["origin_column", "said_to_be_human"]


def origin_column(located: Located, values: Mapping[Keys, pa.Array], voices: NDArray[np.uint8]) -> pa.Array:
    """The packed claims of each document, null where nothing is claimed.

    Args:
        values: of the columns that `located.told()` names, as text, one a document.
        voices: who speaks in each document.
    """
    if not (located.rule or located.disclosed or located.path_claims):
        return pa.nulls(len(voices), pa.string())
    read = sorted(values)
    codes, combinations = distinct_rows([pa.array(voices), *(values[keys] for keys in read)])
    packed = [
        pack_claims(_claims(located, dict(zip(read, told, strict=True)), Voice(voice))) for voice, *told in combinations
    ]
    return pa.array(packed, pa.string()).take(pa.array(codes))


def _claims(located: Located, values: Mapping[Keys, Any], voice: Voice) -> list[Claim]:
    claims = list(located.path_claims)
    if located.data_set is not None and located.rule is not None:
        said = {name: values[keys] for name, keys in located.said.items()}
        claims.extend(located.rule.claims(located.data_set.name, said, voice))
    for keys, disclosed in located.disclosed.items():
        claims.extend(disclosed.claims(values[keys]))
    return claims


def said_to_be_human(origin: pa.Array | pa.ChunkedArray, generator: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """Documents whose own rows declare that people wrote them, and nothing else."""
    codes, combinations = distinct_rows([origin, generator])
    told = [
        {claim.provenance for claim in unpack_claims(packed) if claim.provenance}
        | ({str(author).strip().lower()} if author else set())
        for packed, author in combinations
    ]
    return np.array([said == {"human"} for said in told], np.bool_)[codes]
