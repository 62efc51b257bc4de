"""How the text of a source is read, judged: what a data set cannot be used for, and what its owner must answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipeline.config_blocks import Auto
from pipeline.errors import UsageError
from transforms.kernels.recognisers import DATA_SETS

if TYPE_CHECKING:
    from pipeline.config import Config, Source

__all__ = ["judge_reading_of", "label_warnings", "told_reading"]

_MADE = {"parts": "every row makes several documents", "messages": "text is made of the messages of a conversation"}


def judge_reading_of(config: Config, source: Source, form: str, data_set: str | None, shard: str) -> None:
    """Exit 2 where text is made in a way that custody or token counts cannot speak of, or a label is open.

    Args:
        form: plain, join, messages or parts, as the reader settled it for this shard.
        data_set: the name of the one that was recognised.
    """
    known = f"{shard!r} is recognised as {data_set}, so {_MADE[form]}" if form in _MADE else ""
    if source.custody and known:
        raise UsageError(
            "custody_form",
            f"sources.{source.name}.custody: {known}, and custody signs the bytes of one plain text column. Name such "
            f"a column under sources.{source.name}.columns.text, or leave custody out.",
            source=source.name,
            shard=shard,
            data_set=data_set,
        )
    if config.tokens.column and form == "parts":
        raise UsageError(
            "tokens_of_rows",
            f"tokens.column: {known}, while {config.tokens.column!r} counts the tokens of whole rows. Count with "
            f"tokens: {{counter: words}}, or name one text under sources.{source.name}.columns.text.",
            source=source.name,
            shard=shard,
            data_set=data_set,
        )
    asked = next((kind.question for kind in DATA_SETS if kind.name == data_set), None)
    if asked and isinstance(source.columns.label, Auto):
        column, question = asked
        raise UsageError(
            "unmapped_label",
            f"sources.{source.name}.columns.label: {shard!r} is recognised as {data_set}, where only the column "
            f"{column!r} says who wrote what, and copies of it differ: {question} Answer with columns: {{label: "
            f'{column}}} and labels: {{"1": synthetic, "0": human}}, or the other way round; or with columns: {{label: '
            "null} to leave the documents without a label.",
            source=source.name,
            shard=shard,
            data_set=data_set,
            question=question,
        )


def label_warnings(source: Source, columns: Iterable[str]) -> Iterator[str]:
    """A label column that nobody named asserts nothing; say so, because its owner may think otherwise."""
    if isinstance(source.columns.label, Auto):
        for name in columns:
            yield (
                f'sources.{source.name}: column "{name}" looks like a label of origin and is not used: name it under '
                "columns.label and say under labels what its values mean (does 1 mean human or machine?), or set "
                "columns.label: null"
            )


def told_reading(form: str, data_set: str | None) -> str | None:
    """What a data set was taken for, in a line; None where nothing was recognised."""
    if data_set is None:
        return None
    return f"recognised as {data_set}" + (f": {_MADE[form]}" if form in _MADE else "")
