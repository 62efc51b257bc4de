"""Cards beside the data: what the README of a data set, or a summary of its provenance, says of all its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from transforms import files
from transforms.kernels.recognisers import Claim, card_claims, collection_claims, pack_claims

if TYPE_CHECKING:
    from pipeline.config import Config, Source

__all__ = ["CARDS", "card_of", "cards_key", "load_cards"]

CARDS: dict[str, Callable[[str], tuple[Claim, ...]]] = {
    "README.md": card_claims,
    "data_provenance.json": collection_claims,
}
"""Names of cards, and what reads them."""

_MOST_BYTES = 4 << 20


def load_cards(config: Config) -> dict[str, tuple[Claim, ...]]:
    """By source what its cards claim; nothing for most."""
    return {source.name: card_of(source) for source in config.sources}


def cards_key(cards: dict[str, tuple[Claim, ...]]) -> str:
    """Changes with whatever a card claims, and with nothing else in it."""
    return "\0".join(f"{name}\0{pack_claims(claims) or ''}" for name, claims in sorted(cards.items()))


def card_of(source: Source) -> tuple[Claim, ...]:
    """A card lies beside the files, or, as on the Hugging Face Hub, beside the folder `data` that holds them."""
    claims: list[Claim] = []
    for folder in sorted(_folders(source.files)):
        for name, read in CARDS.items():
            claims.extend(read(_text(folder + name)))
    return tuple(dict.fromkeys(claims))


def _folders(patterns: Iterable[str]) -> set[str]:
    folders = set()
    for pattern in patterns:
        folder = files.fixed_prefix(pattern)
        folders.add(folder)
        if PurePosixPath(folder).name == "data":
            folders.add(folder.rstrip("/").removesuffix("data"))
    return folders


def _text(path: str) -> str:
    """The content of a card; empty where there is none, or none that can be read."""
    try:
        if not files.exists(path):
            return ""
        data = files.read_bytes(path)
    except OSError:
        return ""
    return data.decode(errors="replace") if len(data) <= _MOST_BYTES else ""
