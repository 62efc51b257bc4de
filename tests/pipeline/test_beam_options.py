"""What Beam is made to do less often must stay what Beam would have said."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.internal import cloudpickle_pickler
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.transforms import core, userstate
from apache_beam.utils.counters import CounterFactory

from pipeline.beam_options import (
    ParsedOnce,
    end_bundles_at_once,
    pack_lightly,
    remember_signatures,
    save_time,
)


class Scale(beam.DoFn):
    def process(self, element: int, factor: int = 3, *rest: int) -> None: ...


class Elsewhere(beam.DoFn):
    def process(self, element: str, key: str = "a") -> None: ...


def test_signatures_and_state_are_those_that_beam_finds() -> None:
    found = [core.get_function_args_defaults(dofn.process) for dofn in (Scale(), Elsewhere())]
    remember_signatures()
    for _ in range(2):  # looked at, and remembered
        assert [core.get_function_args_defaults(dofn.process) for dofn in (Scale(), Elsewhere())] == found
        assert userstate.get_dofn_specs(Scale()) == (set(), set())


def test_options_seen_through_a_view_are_those_of_the_whole() -> None:
    options = ParsedOnce(["--direct_num_workers=3"])
    options.view_as(StandardOptions).streaming = True
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.view_as(StandardOptions).streaming
    assert options.view_as(StandardOptions) is options.view_as(StandardOptions)


def test_what_is_packed_lightly_is_unpacked_by_any_beam() -> None:
    before = cloudpickle_pickler.bz2
    packed = [cloudpickle_pickler.dumps(Scale())]
    pack_lightly()
    packed.append(cloudpickle_pickler.dumps(Scale()))
    for bz2_module in (before, cloudpickle_pickler.bz2):
        cloudpickle_pickler.bz2 = bz2_module
        assert all(type(cloudpickle_pickler.loads(one)) is Scale for one in packed)


def test_a_dofn_is_taken_as_it_is_written() -> None:
    save_time()
    save_time()
    assert not core._check_fn_use_yield_and_return(Scale().process)


def test_a_bundle_does_not_wait_to_be_looked_at() -> None:
    end_bundles_at_once()
    assert StateSampler("any", CounterFactory()).sampling_period_ms < 10
