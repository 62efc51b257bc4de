"""How the tokens of a mix are counted: the tokenizer that is named, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.config import Config
from pipeline.errors import UsageError
from transforms import files
from transforms.kernels.text import count_words
from transforms.kernels.tokens import CountTokens, TokenizerFile, TokenizerUnusable, token_counter

__all__ = ["counter_of", "load_tokenizer", "read_tokenizer", "told_tokens"]

_LARGEST_FILE = 64 << 20
"""A tokenizer travels to every worker; whatever is larger is something else."""


def load_tokenizer(config: Config) -> TokenizerFile | None:
    """The tokenizer of a config; exit 2 where it cannot count. None where tokens are counted otherwise."""
    return None if config.tokens.file is None else read_tokenizer(config.tokens.file, "tokens.file")


def read_tokenizer(path: str, key: str) -> TokenizerFile:
    """A tokenizer that counts; `key` is what messages call it."""
    try:
        with files.open_input(path) as source:
            content: bytes = source.read(_LARGEST_FILE + 1)
    except OSError as error:
        says = f"{key}: {path} cannot be read: {error.strerror or error}; name a tokenizer.json"
        raise UsageError("bad_tokenizer", says, key=key, value=path) from None
    if len(content) > _LARGEST_FILE:
        says = f"{key}: {path} is larger than 64 MiB, so it is no tokenizer.json"
        raise UsageError("bad_tokenizer", says, key=key, value=path)
    file = TokenizerFile.of(PurePosixPath(path).name, content)
    try:
        token_counter(file)
    except TokenizerUnusable as error:
        raise UsageError(error.code, f"{key}: {error} ({path})", key=key, value=path) from None
    return file


def counter_of(config: Config, tokenizer: TokenizerFile | None) -> CountTokens | None:
    """What counts the tokens of a text again; None where only their column knows."""
    if config.tokens.column is not None:
        return None
    return count_words if tokenizer is None else token_counter(tokenizer)


def told_tokens(config: Config, tokenizer: TokenizerFile | None) -> Mapping[str, Any]:
    """How tokens were counted, as the manifest says it."""
    if tokenizer is not None:
        return {"file": tokenizer.name, "sha256": tokenizer.digest}
    return {"counter": "words"} if config.tokens.column is None else {"column": config.tokens.column}
