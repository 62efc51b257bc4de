"""Beam made to ask less often for what it knows, to pack lighter, and to wait less at the end of bundles.

None changes an answer. What is asked less often takes a quarter off the time of a small run, which is spent in Beam's
own bookkeeping for five pipelines.
"""

from __future__ import annotations

import bz2
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from apache_beam.internal import cloudpickle_pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.transforms import core, userstate


def save_time() -> None:
    """Before a pipeline is defined; harmless to call again."""
    remember_signatures()
    trust_functions()
    pack_lightly()
    end_bundles_at_once()


class ParsedOnce(PipelineOptions):
    """Beam asks for a view of its options at every transform and builds a command-line parser for each.

    Views share one dictionary of values, so a view that was made once can be handed out again.
    """

    def view_as(self, cls: Any) -> Any:
        views: dict[Any, Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_views", None)
        return state


Arguments = tuple[list[str], list[Any]]


def remember_signatures() -> None:
    """Have each DoFn looked through for state once, and each of its methods inspected once.

    Beam does the one six times per transform and pipeline, the other eight times.
    """
    _remember_methods()
    _remember_state()


def _remember_methods() -> None:
    inspect: Callable[[Any], Arguments] = core.get_function_args_defaults
    if hasattr(inspect, "known"):
        return
    known: dict[Any, Arguments] = {}

    def remembered(function: Any) -> Arguments:
        plain = getattr(function, "__func__", None)  # of a bound method, whose own first argument is never told
        if plain is None:
            return inspect(function)
        if plain not in known:
            known[plain] = inspect(function)
        names, defaults = known[plain]
        return list(names), list(defaults)

    remembered.known = known  # type: ignore[attr-defined]
    core.get_function_args_defaults = remembered


Specs = tuple[set[Any], set[Any]]


def _remember_state() -> None:
    """Specs of state and timers are defaults of a class's methods; an instance can only hide some of these."""
    look: Callable[[Any], Specs] = userstate.get_dofn_specs
    if hasattr(look, "known"):
        return
    known: dict[Any, Specs] = {}

    def remembered(dofn: Any) -> Specs:
        kind = type(dofn)
        seen = kind, tuple(name for name in vars(dofn) if hasattr(kind, name))
        if seen not in known:
            known[seen] = look(dofn)
        states, timers = known[seen]
        return set(states), set(timers)

    remembered.known = known  # type: ignore[attr-defined]
    userstate.get_dofn_specs = remembered


def trust_functions() -> None:
    """Have Beam not read the source of each DoFn for a `return` beside a `yield`: here the type checker does."""
    core._check_fn_use_yield_and_return = lambda function: False


def pack_lightly() -> None:
    """Have Beam pack DoFns, some kilobytes each, with bzip2's smallest blocks: the largest take megabytes of memory.

    Whoever unpacks them sees no difference.
    """
    cloudpickle_pickler.bz2 = SimpleNamespace(
        compress=lambda data, compresslevel=9: bz2.compress(data, 1), decompress=bz2.decompress
    )


_SAMPLING_MILLISECONDS = 1


def end_bundles_at_once() -> None:
    """Have Beam look at what a bundle is doing every few milliseconds, and not every fifth of a second.

    At the end of a bundle it waits until it has looked once more: a tenth of a second on average, in which nothing
    happens. A look costs a microsecond, without the interpreter's lock.
    """
    StateSampler.__init__.__defaults__ = (_SAMPLING_MILLISECONDS,)
