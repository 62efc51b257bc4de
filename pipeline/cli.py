"""Words for people: commands, options, and how an error is told. Everything else is imported when it is needed."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pipeline import __version__
from pipeline.errors import AnchormixError, UsageError
from pipeline.memory import keep_memory
from pipeline.outcome import Outcome


class _Group(click.Group):
    """Lists commands in the order of a user's day, and tells usage errors as `--json` asks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        as_json = "--json" in given[: given.index("--") if "--" in given else None]
        try:
            sys.exit(super().main(given, prog_name, complete_var, standalone_mode=False, **extra) or 0)
        except click.ClickException as error:
            error.show()
            context = getattr(error, "ctx", None)
            command = context.command.name if context and context.command is not self else None
            if as_json:
                _print_error(command, UsageError("bad_call", error.format_message()))
            sys.exit(UsageError.exit_code)
        except click.Abort:
            _tell_error(None, _INTERRUPTED, as_json)
            sys.exit(_INTERRUPTED.exit_code)


_INTERRUPTED = AnchormixError("interrupted", "interrupted; the same command resumes")


class _NotAboutThisRun(logging.Filter):
    """Drops what Beam says on import about cloud clients that nothing here needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("apitools not found")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anchormix")
def main() -> None:
    """Training mixes that provably hold a minimum share of verified human text.

    Start with `anchormix init DIR`, then `anchormix run DIR/quickstart.yaml`.
    """
    logging.getLogger().addFilter(_NotAboutThisRun())


def command(
    name: str | None = None, of: click.Group = main, **settings: Any
) -> Callable[[Callable[..., Outcome]], click.Command]:
    """A command that returns an `Outcome`; adds `--json`, and turns errors into diagnoses and exit codes."""

    def decorate(body: Callable[..., Outcome]) -> click.Command:
        own = name or body.__name__
        label = own if of is main else f"{of.name} {own}"

        @click.option("--json", "as_json", is_flag=True, help="Print exactly one line of JSON on stdout.")
        @wraps(body)
        def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
            copies = click.get_current_context().with_resource(contextlib.ExitStack())
            try:
                outcome = body(*args, **{name: _here(value, copies) for name, value in kwargs.items()})
            except AnchormixError as error:
                _tell_error(label, error, as_json)
                sys.exit(error.exit_code)
            except KeyboardInterrupt:
                _tell_error(label, _INTERRUPTED, as_json)
                sys.exit(_INTERRUPTED.exit_code)
            except Exception as error:
                told = _of_system(error)
                if told is None:  # a defect: programs get their line, people the traceback
                    traceback.print_exc()
                    told = AnchormixError("internal_error", f"{type(error).__name__}: {error}. Please report this.")
                _tell_error(label, told, as_json)
                sys.exit(told.exit_code)
            if as_json:
                _print_json(
                    command=label,
                    status=outcome.status,
                    exit=outcome.exit,
                    error=None,
                    output=outcome.output,
                    totals=outcome.totals,
                    **outcome.details,
                )
            elif outcome.text:
                click.echo(_in_words(outcome.text))
            sys.exit(outcome.exit)

        return of.command(own, **settings)(run)

    return decorate


class _MixPath(click.Path):
    """A published mix: a folder, or a URL, of which commands get a copy for as long as they look at it."""

    def __init__(self, leave_out: tuple[str, ...] = ()) -> None:
        super().__init__(path_type=Path)
        self.leave_out = leave_out

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            return _Elsewhere(str(value), self.leave_out)
        return super().convert(value, param, ctx)


@dataclass(frozen=True)
class _Elsewhere:
    url: str
    leave_out: tuple[str, ...]


def _here(value: Any, copies: contextlib.ExitStack) -> Any:
    if not isinstance(value, _Elsewhere):
        return value
    from pipeline.object_stores import copied_here

    return Path(copies.enter_context(copied_here(value.url, value.leave_out)))


def _in_words(text: str) -> str:
    """What is said of a copy is said of what it is a copy of."""
    module = sys.modules.get("pipeline.object_stores")
    return text if module is None else str(module.in_words(text))


def _of_system(error: Exception) -> AnchormixError | None:
    """What the operating system, or an object store, refused, and nobody had better words for."""
    from pipeline.object_stores import store_failed
    from transforms.files import StoreError

    if isinstance(error, StoreError):
        return store_failed(error)
    if not isinstance(error, OSError):
        return None
    where = f": {error.filename}" if error.filename else ""
    return AnchormixError("os_error", f"{error.strerror or error}{where}", errno=error.errno)


def _tell_error(command: str | None, error: AnchormixError, as_json: bool) -> None:
    if as_json:
        _print_error(command, error)
    elif error.report:
        click.echo(_in_words(error.report))
    click.echo(_in_words(f"{' '.join(filter(None, ('anchormix', command)))}: {error.message}"), err=True)


def _print_error(command: str | None, error: AnchormixError) -> None:
    told = {"code": error.code, "message": error.message, "details": dict(error.details)}
    _print_json(command=command, status="error", exit=error.exit_code, error=told, output=None, totals={})


def _print_json(**fields: Any) -> None:
    click.echo(_in_words(json.dumps(fields, default=str, sort_keys=False)))


CONFIG = click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key, such as mix.seed=3; repeatable."
)
BEAM = click.argument("beam", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM...]")
QUIET = click.option("--quiet", is_flag=True, help="No progress on stderr.")


@command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def init(directory: Path) -> Outcome:
    """Write a commented config and tiny sample shards to DIRECTORY."""
    from pipeline.samples import init as write_project

    summary = write_project(directory)
    documents = sum(summary["documents"].values())
    text = f"{directory}: {documents:,} sample documents, a signing key, a custody manifest and {summary['config']}.\n"
    text += f"Next: anchormix run {summary['config']}"
    return Outcome(text, output=str(directory), totals=summary)


@command()
@CONFIG
@SET
def check(config: Path, overrides: tuple[str, ...]) -> Outcome:
    """Say in seconds what CONFIG would read: shards, columns, sample tags, keys, an upper bound on the floor."""
    from pipeline.check import check_config

    return check_config(_load(config, overrides))


@command()
@CONFIG
@SET
@QUIET
@BEAM
def run(config: Path, overrides: tuple[str, ...], quiet: bool, beam: tuple[str, ...]) -> Outcome:
    """Index, plan, mix and verify: the main job."""
    from pipeline.driver import run as run_all

    return run_all(_load(config, overrides), beam, quiet, _command_line())


@command()
@CONFIG
@SET
@QUIET
@BEAM
def index(config: Path, overrides: tuple[str, ...], quiet: bool, beam: tuple[str, ...]) -> Outcome:
    """Read what is new, find duplicates, settle provenance: bring the index up to date."""
    from pipeline.driver import bring_up_to_date

    return bring_up_to_date(_load(config, overrides), beam, quiet)


@command()
@CONFIG
@SET
@click.option(
    "--sweep",
    "swept",
    multiple=True,
    metavar="[RULE=]SHARES",
    help="Plan many shares at once, such as 0.1:0.9:0.1 for the floor, or caps.synthetic=0.1,0.3; repeatable.",
)
@QUIET
@BEAM
def plan(
    config: Path, overrides: tuple[str, ...], swept: tuple[str, ...], quiet: bool, beam: tuple[str, ...]
) -> Outcome:
    """Say what the mix would hold, from the index alone; writes nothing."""
    from pipeline.driver import plan as plan_only

    return plan_only(_load(config, overrides), beam, quiet, swept)


@command()
@CONFIG
@SET
@QUIET
@BEAM
def mix(config: Path, overrides: tuple[str, ...], quiet: bool, beam: tuple[str, ...]) -> Outcome:
    """Plan, write, verify and publish a mix from an up-to-date index."""
    from pipeline.driver import mix as mix_only

    return mix_only(_load(config, overrides), beam, quiet, _command_line())


@command()
@click.argument("out", type=_MixPath())
@click.option(
    "--floor", "floors", multiple=True, metavar="OF=SHARE", help="A floor to hold, such as human_verified=1/2."
)
@click.option("--key", type=click.Path(path_type=Path), help="Public key that must have signed the manifest.")
@click.option("--trust", type=click.Path(path_type=Path), help="YAML with the custody keys you trust.")
@click.option("--expect", metavar="DIGEST", help="The logical digest the mix must have.")
@click.option("--inputs", type=click.Path(path_type=Path), help="Config whose inputs are read again and compared.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The tokenizer.json that counted the tokens.")
def verify(
    out: Path,
    floors: tuple[str, ...],
    key: Path | None,
    trust: Path | None,
    expect: str | None,
    inputs: Path | None,
    tokenizer: Path | None,
) -> Outcome:
    """Recount a mix from its Parquet files alone and say which level of proof it reaches."""
    from pipeline.verify_command import verify_folder

    return verify_folder(out, floors, key, trust, expect, inputs, tokenizer)


@command()
@click.argument("out", type=_MixPath(leave_out=("data/", "fates/", "custody/")))
@click.option("--eu-summary", is_flag=True, help="Print the training-data summary (EU AI Act) as Markdown instead.")
def report(out: Path, eu_summary: bool) -> Outcome:
    """Write OUT/report.html again."""
    from pipeline.object_stores import bring_back
    from pipeline.report import summary_for_the_eu, write_report

    if eu_summary:
        summary = summary_for_the_eu(out)
        return Outcome(summary.rstrip(), output=str(out), details={"eu_summary": summary})
    path = write_report(out)
    bring_back(path)
    return Outcome(f"wrote {path}", output=str(path))


@command()
@click.argument("out", type=_MixPath())
@click.option("--id", "document", metavar="ID", help="Id of a document: 32 hex digits of its sha256.")
@click.option("--doc-id", metavar="ID", help="The id that its source gave it.")
def explain(out: Path, document: str | None, doc_id: str | None) -> Outcome:
    """Say why a document is, or is not, in the mix: evidence, witness, rule, shard."""
    from pipeline.explain import explain as explain_document

    if (document is None) == (doc_id is None):
        raise UsageError("bad_call", "explain needs exactly one of --id ID and --doc-id ID")
    return explain_document(out, document, doc_id)


@command()
@click.argument("index")
@click.option("--sample", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many pairs.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another seed, another sample.")
@click.option("--source", metavar="NAME", help="Only documents removed from this source.")
@click.option("--kind", type=click.Choice(["exact", "near", "seen_before"]), help="Only duplicates of this kind.")
def duplicates(index: str, sample: int, seed: int, source: str | None, kind: str | None) -> Outcome:
    """Show what dedup removed, a sample of pairs side by side; INDEX is the folder of the index."""
    from pipeline.duplicates import duplicates as show_duplicates

    return show_duplicates(index, sample, seed, source, kind)


@command()
@click.argument("old", type=_MixPath())
@click.argument("new", type=_MixPath())
@click.option(
    "--allow-human-loss",
    default="0",
    show_default=True,
    metavar="SHARE|all",
    help="The share of OLD's verified human text that may be gone, such as 0.01, or all.",
)
def diff(old: Path, new: Path, allow_human_loss: str) -> Outcome:
    """Compare two published mixes; exit 4 where verified human text of OLD is not in NEW any more."""
    from pipeline.diff import diff as compare_mixes

    return compare_mixes(old, new, allow_human_loss)


@command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "form", required=True, type=click.Choice(["mds", "webdataset"]), help="What loaders shall read.")
@click.argument("dest")
def export(out: Path, form: str, dest: str) -> Outcome:
    """Write the rows of the mix OUT, as they are and in order, to the new folder DEST for streaming loaders."""
    from pipeline.export import export as export_mix

    return export_mix(out, form, dest)


@command()
@click.argument("name", type=click.Path(path_type=Path))
def keygen(name: Path) -> Outcome:
    """Write an Ed25519 key pair: NAME.key, for its owner only, and NAME.pub."""
    from pipeline.attest import write_keypair

    private, public = write_keypair(name)
    text = f"{private}: keep it secret, it signs.\n{public}: give it to those who shall trust it, under trust.keys."
    return Outcome(text, output=str(public))


@command()
@click.argument("files", nargs=-1, required=True)
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key, NAME.key.")
@click.option("--method", required=True, help="How the text came into custody, such as licensed_source.")
@click.option("--output", required=True, help="The manifest to write.")
@click.option("--source", help="Bind the manifest to one source.")
@click.option("--column", default="text", show_default=True, help="The column that holds the text.")
@click.option("--valid-until", metavar="DAY", help="Last day of validity, such as 2027-01-01.")
@click.option("--issuer", help="Who vouches.")
@click.option("--signed-at", metavar="DAY", help="The day of signing, to be held against the key's validity.")
def attest(
    files: tuple[str, ...],
    key: Path,
    method: str,
    output: str,
    source: str | None,
    column: str,
    valid_until: str | None,
    issuer: str | None,
    signed_at: str | None,
) -> Outcome:
    """Sign what FILES hold, document by document, so that their text can count as verified human."""
    from pipeline.attest import attest as sign

    summary = sign(
        list(files),
        key,
        method,
        output,
        source=source,
        column=column,
        valid_until=valid_until,
        issuer=issuer,
        signed_at=signed_at,
    )
    text = f"{output}: {summary['documents']:,} documents in {summary['subjects']:,} files, signed as {method}."
    return Outcome(text, output=output, totals=summary)


@command()
@CONFIG
@SET
@click.option("--generations", default=10, show_default=True, type=click.IntRange(1, 100), help="How many.")
@click.option("--human", metavar="SHARES", help="Human shares; default: 0,0.1,0.3,0.5,0.7 and the floor of the config.")
@click.option(
    "--order", default=3, show_default=True, type=click.IntRange(1, 5), help="Words of a sequence; 1: chance."
)
@click.option(
    "--words",
    default=500_000,
    show_default=True,
    type=click.IntRange(1_000, 20_000_000),
    help="Most human words taken.",
)
@click.option("--source", metavar="NAME", help="Only text of this source.")
@click.option("--language", metavar="NAME", help="Only text that says it is in this language.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another seed, another sample.")
@click.option("--output", type=click.Path(path_type=Path), help="A page to write: NAME.html, or NAME.svg.")
def simulate(
    config: Path,
    overrides: tuple[str, ...],
    generations: int,
    human: str | None,
    order: int,
    words: int,
    source: str | None,
    language: str | None,
    seed: int,
    output: Path | None,
) -> Outcome:
    """Simulate models that learn from their own text and a share of your verified human text; needs an index."""
    from pipeline.simulate import Taken, simulate_config
    from transforms.kernels.simulation import SimulationParams

    params = SimulationParams(generations, order)
    return simulate_config(_load(config, overrides), human, params, Taken(words, source, language), seed, output)


@main.group(cls=_Group)
def detector() -> None:
    """Detectors of synthetic text: train one, calibrate one, make a watermark key. They can only demote."""


_TEXTS = click.argument("inputs", nargs=-1, required=True, metavar="CONFIG | FILES...")
_COLUMN = click.option("--column", help="The column that holds the text; default: recognised.")
_LABEL_COLUMN = click.option("--label-column", help="The column that says who wrote it.")
_LABEL = click.option(
    "--label", "labels", multiple=True, metavar="VALUE=MEANING", help="What a label means: 1=human; repeatable."
)
_LANGUAGE_COLUMN = click.option("--language-column", help="The column that holds the language; default: recognised.")


@command(of=detector)
@_TEXTS
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The model to write.")
@_COLUMN
@_LABEL_COLUMN
@_LABEL
@_LANGUAGE_COLUMN
@click.option("--group-column", help="Rows of one value stay together: versions of a text, answers to a question.")
def train(
    inputs: tuple[str, ...],
    output: Path,
    column: str | None,
    label_column: str | None,
    labels: tuple[str, ...],
    language_column: str | None,
    group_column: str | None,
) -> Outcome:
    """Train a detector of character n-grams on labelled text of your own; writes its calibration beside it."""
    from pipeline.detector_command import reading
    from pipeline.detector_command import train as train_detector

    return train_detector(inputs, reading(column, label_column, labels, language_column, group_column), output)


@command(of=detector)
@_TEXTS
@click.option("--detector", "target", required=True, help="ngrams, watermark, module:callable, or a score column.")
@click.option("--model", type=click.Path(path_type=Path), help="The file that ngrams and watermark need.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The calibration to write.")
@_COLUMN
@_LABEL_COLUMN
@_LABEL
@_LANGUAGE_COLUMN
def calibrate(
    inputs: tuple[str, ...],
    target: str,
    model: Path | None,
    output: Path,
    column: str | None,
    label_column: str | None,
    labels: tuple[str, ...],
    language_column: str | None,
) -> Outcome:
    """Score human text with a detector, so that its scores on other text mean something."""
    from dataclasses import replace

    from pipeline.detector_command import calibrate as calibrate_detector
    from pipeline.detector_command import reading

    how = reading(column, label_column, labels, language_column, None)
    return calibrate_detector(inputs, how if labels else replace(how, declare="human"), target, model, output)


@command(of=detector)
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--scheme", type=click.Choice(["unigram", "kgw"]), default="unigram", show_default=True)
@click.option("--gamma", default="1/2", show_default=True, help="The share of units that are green.")
@click.option("--context", type=int, help="Units before one that decide with it; kgw: 1 to 16, default 1.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="A tokenizer.json; default: words.")
def key(output: Path, scheme: str, gamma: str, context: int | None, tokenizer: Path | None) -> Outcome:
    """Write a fresh secret key for the watermark test to OUTPUT; the generator marks its text with the same."""
    from pipeline.detector_command import make_key

    return make_key(output, scheme, gamma, context, tokenizer)


@command()
def schema() -> Outcome:
    """Print the JSON Schema of a config, for editors."""
    from pipeline.config import config_schema

    return Outcome(json.dumps(config_schema(), indent=2), details={"schema": config_schema()})


def _load(config: Path, overrides: tuple[str, ...]) -> Any:
    from pipeline.config import load_config

    return load_config(config, overrides)


def _command_line() -> list[str]:
    return ["anchormix", *sys.argv[1:]]


_LAST_SECONDS = 10.0


def _end_what_was_started() -> None:
    """Do what is registered for the interpreter's end, which does not come: there Beam stops servers that it started.

    It is given some seconds, because a runner's threads may still hold what it needs.
    """
    logging.disable()  # the last lines are the command's own
    ending = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    ending.start()
    ending.join(_LAST_SECONDS)


def console() -> None:
    """The installed command: `main`, and a quick end.

    It neither waits for threads that a runner left behind, nor lets them complain that the interpreter is going, nor
    frees memory that goes with the process.
    """
    code: Any = 0
    keep_memory()
    try:
        main(prog_name="anchormix")
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        _end_what_was_started()
    else:
        atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else int(code is not None))
