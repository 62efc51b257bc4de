"""Planned buckets to output shards: seeded order, every shard above the floor, none empty."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.layout import arrange
from transforms.kernels.mixture_rules import VERIFIED, Bools, InfeasibleMixture, MixtureParams

I64 = npt.NDArray[np.int64]

STREAMING_FACTOR = 4
"""A writer holds its shard in memory up to this multiple of `shard_bytes`, and streams row groups beyond."""


class Assignment(NamedTuple):
    """The output shard of every planned (stratum, bucket, copy): parallel arrays, sorted by these three."""

    stratum: npt.NDArray[np.int32]
    bucket: npt.NDArray[np.int32]
    copy: npt.NDArray[np.int32]
    shard: npt.NDArray[np.int32]


class ShardTotals(NamedTuple):
    """Per shard: totals, and how much of the mix's measure is verified human text."""

    documents: I64
    tokens: I64
    bytes: I64
    measure: I64
    verified: I64


def fill_shards(
    params: MixtureParams,
    identities: Sequence[str],
    stratum: I64,
    bucket: I64,
    copy: I64,
    human: Bools,
    totals: ShardTotals,
) -> tuple[I64, ShardTotals, tuple[str, ...]]:
    """Place planned cells, given with the totals of each: (shard of each cell, totals per shard, notes)."""
    order = np.argsort(_placement_keys(params.seed, identities, stratum, bucket, copy), kind="stable")
    floor = params.human_floor
    size = totals.bytes
    layout = arrange(totals.measure[order], human[order], floor, params.shard_bytes, size[order], groups=params.shards)
    if layout is None:
        raise AssertionError(f"the planned mix is below its own floor of {floor}")
    made = len(layout.ends)
    shard = np.empty(len(order), np.int64)
    shard[order[layout.order]] = np.repeat(np.arange(made), np.diff(layout.ends, prepend=0))
    in_order, starts = order[layout.order], np.concatenate([np.zeros(1, np.int64), layout.ends[:-1]])
    documents, tokens, size, measure = (np.add.reduceat(column[in_order], starts) for column in totals[:4])
    verified = np.add.reduceat(np.where(human, totals.measure, 0)[in_order], starts)
    shards = ShardTotals(documents, tokens, size, measure, verified)
    wanted = params.shards or -(-int(size.sum()) // params.shard_bytes)
    return shard, shards, _notes(params, shards, max(1, wanted))


def _placement_keys(
    seed: int, identities: Sequence[str], stratum: I64, bucket: I64, copy: I64
) -> npt.NDArray[np.uint64]:
    """A draw for every cell from what it is, not from when it came: splitmix64's finaliser over a digest."""
    digests = (hashlib.sha256(f"{seed}\n{identity}".encode()).digest() for identity in identities)
    keys = np.array([int.from_bytes(digest[:8], "little") for digest in digests], np.uint64)
    place = (copy.astype(np.uint64) << np.uint64(12)) + bucket.astype(np.uint64) + np.uint64(1)
    x = keys[stratum] + place * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _notes(params: MixtureParams, shards: ShardTotals, wanted: int) -> tuple[str, ...]:
    """What the layout could not do, or InfeasibleMixture where it had to."""
    made, floor = len(shards.documents), params.human_floor
    notes = []
    if made < wanted:
        reason = "whole buckets are placed"
        if floor > 0:
            reason += f", and every shard holds the floor of {floor} {VERIFIED}"
        message = f"{made} shards instead of {wanted}: {reason}"
        if params.layout == "strict":
            raise InfeasibleMixture(
                f"layout: strict asks for {wanted} shards, and {made} can be filled: {reason}",
                binding=("layout strict",),
                available={"shards": made},
                missing=wanted - made,
                feasible_size=int(shards.measure.sum()),
                advice=f"Ask for at most {made} shards, lower the floor a little, or say layout: grow",
            )
        notes.append(message)
    largest = int(shards.bytes.max())
    if params.shards is None and largest > STREAMING_FACTOR * params.shard_bytes:
        notes.append(f"the largest shard holds {largest} bytes, more than {STREAMING_FACTOR} x shard_bytes")
    return tuple(notes)


def digest_of(
    params: MixtureParams,
    identities: Sequence[str],
    stratum: I64,
    bucket: I64,
    copy: I64,
    shard: I64,
    shards: ShardTotals,
) -> str:
    """sha256 over the settings, the strata, the assignment and the totals of its shards."""
    digest = hashlib.sha256(params.canonical().encode())
    digest.update("\n".join(("", *identities)).encode())
    for column in (stratum, bucket, copy, shard, *shards):
        digest.update(b"\n" + str(len(column)).encode() + b"\n")
        digest.update(np.ascontiguousarray(column, "<i8").tobytes())
    return digest.hexdigest()
