"""What a run on Dataflow cannot do without, asked before anything is sent there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence

from pipeline.config import Config
from pipeline.config_kinds import is_url
from pipeline.errors import UsageError

_ELSEWHERE = {
    "template_location": "a template",
    "dry_run": "a dry run",
    "update": "an update of a running job",
    "streaming": "a streaming job",
}
_PLACES = ("temp_location", "staging_location")
_STAGED = ("sdk_container_image", "extra_package", "extra_packages", "setup_file")


def is_dataflow(runner: str | None) -> bool:
    return runner is not None and runner.lower() in ("dataflow", "dataflowrunner")


def refuse_missing_library() -> None:
    try:
        found = importlib.util.find_spec("google.cloud.dataflow") is not None
    except ModuleNotFoundError:  # of a parent
        found = False
    if not found:
        raise UsageError(
            "runner_unavailable",
            "behind `--`: --runner=DataflowRunner needs packages that are not installed; pip install 'anchormix[gcp]'.",
            runner="DataflowRunner",
        )


def refuse_useless_flags(arguments: Sequence[str]) -> None:
    """A run is several jobs, between which this command reads what one left and decides about the next."""
    given = {argument.removeprefix("--").partition("=")[0] for argument in arguments if argument.startswith("--")}
    for flag, what in _ELSEWHERE.items():
        if flag in given:
            raise UsageError(
                "bad_beam_flag",
                f"behind `--`: --{flag} is refused. A run is several batch jobs with work of this command between "
                f"them, and none of them can be {what}; leave the flag out.",
                flag=f"--{flag}",
            )
    missing = [flag for flag in _PLACES if flag not in given]
    if missing:
        raise UsageError(
            "bad_beam_flag",
            f"behind `--`: --{missing[0]}=gs://BUCKET/FOLDER is missing; Beam would create a bucket of its own for it.",
            flag=f"--{missing[0]}",
        )
    if given.isdisjoint(_STAGED):
        raise UsageError(
            "nothing_staged",
            "behind `--`: workers of Dataflow would not have anchormix. Name an image that holds it "
            "(--sdk_container_image=...), or a package to install when they start (--extra_package=....tar.gz).",
            arguments=list(arguments),
        )


def refuse_local_paths(config: Config) -> None:
    """Workers have disks of their own; the output alone is published by this command, and may be local."""
    local = [(key, path) for key, path in _read_by_workers(config) if not is_url(path)]
    if local:
        key, path = local[0]
        more = f" The same is true of {', '.join(key for key, _ in local[1:])}." if local[1:] else ""
        raise UsageError(
            "local_path",
            f"{key}: {path!r} lies on this machine, and workers of Dataflow cannot see it; name a place in a store, "
            f"such as gs://bucket/folder.{more}",
            key=key,
            value=path,
        )


def _read_by_workers(config: Config) -> Iterator[tuple[str, str]]:
    yield "index", config.index
    for source in config.sources:
        yield from ((f"sources.{source.name}.files", pattern) for pattern in source.files)
    yield from (("evidence.known_synthetic", pattern) for pattern in config.evidence.known_synthetic)
    yield from (("diversity.reference", pattern) for pattern in config.diversity.reference)
