"""What the mix is made of and how it is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated, Any

from pipeline.config_blocks import Block, Key, MapOf, Or
from pipeline.config_kinds import Choice, PathTo
from pipeline.config_numbers import Amount, Share, Weight, Whole
from pipeline.config_rules import PROVENANCES, Rule, Rules
from pipeline.config_yaml import At, Raw

__all__ = ["Mix", "MixBlock", "Portion"]


@dataclass(frozen=True, kw_only=True)
class Portion:
    """How one source takes part in the mix."""

    weight: Annotated[Fraction, Key(Weight(), "multiplies what is available")] = Fraction(1)
    max_share: Annotated[Fraction | None, Key(Share(above_zero=True), "greatest part of the mix")] = None


class Epochs(MapOf):
    """Complete once parsed: a provenance that is not named may stand in the mix once."""

    def __init__(self) -> None:
        super().__init__(Whole(1, 1_000_000), "provenances", PROVENANCES)

    def parse(self, raw: Raw, at: At) -> dict[str, int]:
        return {**dict.fromkeys(PROVENANCES, 1), **super().parse(raw, at)}


@dataclass(frozen=True, kw_only=True)
class Mix:
    measure: Annotated[str, Key(Choice("tokens", "bytes", "documents"), "the unit of rules and size")] = "tokens"
    size: Annotated[int | str, Key(Or("max", Amount()), "max, or an amount that is never exceeded")] = "max"
    floors: Annotated[tuple[Rule, ...], Key(Rules(), "least shares or amounts; {human_verified: 0} asks for none")]
    caps: Annotated[tuple[Rule, ...], Key(Rules(), "greatest shares or amounts")] = ()
    sources: Annotated[
        Mapping[str, Portion], Key(MapOf(Block(Portion), "names of sources"), "weights and limits of single sources")
    ] = field(default_factory=dict)
    epochs: Annotated[Mapping[str, int], Key(Epochs(), "how often a document of each provenance may repeat")] = field(
        default_factory=lambda: dict.fromkeys(PROVENANCES, 1)
    )
    if_short: Annotated[
        str, Key(Choice("fail", "shrink"), "when size cannot be reached: fail, or a smaller mix; floors stay")
    ] = "fail"
    layout: Annotated[str, Key(Choice("grow", "strict"), "how rows are spread over row groups and shards")] = "grow"
    temperature: Annotated[Fraction, Key(Weight(), "flattens the sizes of sources above 1, sharpens them below")] = (
        Fraction(1)
    )
    weights: Annotated[str | None, Key(PathTo("a file of learned weights"), "weights learned elsewhere")] = None
    parent: Annotated[str | None, Key(PathTo("a published mix"), "the mix this one succeeds")] = None
    max_human_loss: Annotated[
        Fraction, Key(Share(), "share of the parent's verified text that may be lost before the run stops")
    ] = Fraction(1)
    shards: Annotated[int | str, Key(Or("auto", Whole(1, 1_000_000)), "number of output shards, or auto")] = "auto"
    shard_bytes: Annotated[int, Key(Amount(always_bytes=True), "raw text of a shard, with shards: auto")] = 256 << 20
    row_group: Annotated[int, Key(Whole(1, 2**31 - 1), "rows of a row group")] = 8192

    @property
    def human_floor(self) -> Fraction:
        """The least share of verified human text in the whole mix; 0 where no rule asks for one."""
        for rule in self.floors:
            if rule.of == "human_verified" and rule.by is None and rule.share is not None:
                return rule.share
        return Fraction(0)

    def check(self, at: At) -> None:
        if not self.floors:
            says = "a mix states its floor; for a mix that promises no human text write {human_verified: 0}"
            (at / "floors").fail("missing_key", says)
        if self.max_human_loss < 1 and self.parent is None:
            says = "there is no parent whose text could be lost; name the mix that this one succeeds as mix.parent"
            (at / "max_human_loss").fail("bad_value", says, str(self.max_human_loss))


class MixBlock(Block):
    """Amounts inside count in `measure`, so that is looked at before anything else is parsed."""

    def __init__(self) -> None:
        super().__init__(Mix)

    def parse(self, raw: Raw, at: At) -> Any:
        in_bytes = isinstance(raw, dict) and raw.get("measure") == "bytes"
        return super().parse(raw, replace(at, byte_amounts=in_bytes))
