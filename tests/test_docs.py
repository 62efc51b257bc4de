"""What the documents say is so: commands, options, paths, links, configs, codes and modules exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from click import Command, Group, Option
from click.testing import CliRunner

import pipeline.errors
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.errors import AnchormixError
from transforms.kernels.columns import CANDIDATES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(text) if kind == language]


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    assert found, f"no heading {title!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """Rows of the Markdown tables in a text, without heads and rules."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    rules = [place for place, row in enumerate(rows) if set("".join(row)) <= set("-| ")]
    return [row for place, row in enumerate(rows) if place not in rules and place + 1 not in rules]


def calls(text: str) -> Iterator[list[str]]:
    """Words of every command line in code, from `anchormix` up to what goes to Beam."""
    joined = re.sub(r"\\\n\s*", "", text)
    code = [line for _, body in FENCE.findall(joined) for line in body.splitlines()]
    code += re.findall(r"`([^`\n]+)`", FENCE.sub("", joined))
    for line in code:
        if line.startswith("anchormix "):
            words = shlex.split(re.sub(r"[\[\]]", " ", line), comments=True)
            yield words[1 : words.index("--") if "--" in words else None]


def options(command: Command) -> set[str]:
    return {name for option in command.params if isinstance(option, Option) for name in option.opts} | {"--help"}


def wrong_call(words: list[str]) -> str | None:
    """Why the command line would refuse a call, from its names alone."""
    if words[0] == "--help":
        return None
    command = main.commands.get(words[0])
    if command is None:
        return f"there is no command {words[0]}"
    if isinstance(command, Group):
        below = command.commands.get(words[1]) if words[1:] else None
        if below is None:
            return f"{words[0]} has no command {' '.join(words[1:2])}"
        command = below
    unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in options(command)]
    return f"{words[0]} has no option {', '.join(unknown)}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_and_options_exist(page: Path) -> None:
    wrong = {" ".join(words): wrong_call(words) for words in calls(page.read_text(encoding="utf-8"))}
    assert not {call: why for call, why in wrong.items() if why}


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    found = list(
        calls("```\nanchormix mix A \\\n  --sett B -- --runner=C\n```\nand `anchormix unmix`, `anchormix init X`")
    )
    assert found == [["mix", "A", "--sett", "B"], ["unmix"], ["init", "X"]]
    assert [wrong_call(words) is None for words in found] == [False, False, True]


def test_the_table_of_commands_is_complete_and_in_order() -> None:
    told = [re.match(r"`anchormix (\w+)", row[0]) for row in table(section(README, "Commands"))]
    assert [found[1] for found in told if found] == list(main.commands)


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    kinds: list[type[AnchormixError]] = [AnchormixError, *AnchormixError.__subclasses__()]
    meanings = dict(re.findall(r"\((\d)\) {2,}(.+)", pipeline.errors.__doc__ or ""))
    told = {row[0]: row[1] for row in table(section(README, "Commands")) if row[0].isdigit()}
    assert list(told) == ["0", *sorted(str(kind.exit_code) for kind in kinds)]
    assert len(meanings) == len(kinds) - 1
    assert {code: told[code] for code in meanings} == meanings


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    for words in (["init", "demo"], ["run", "demo/quickstart.yaml", "--quiet", "--", "--direct_num_workers=1"]):
        result = CliRunner().invoke(main, [word.replace("demo", str(tmp_path / "demo")) for word in words])
        assert result.exit_code == 0, result.output
    (shown,) = (block for block in blocks(section(README, "Try it"), "") if block.startswith("PASS"))
    told = result.stdout.splitlines()
    assert [line for line in shown.splitlines() if line not in told] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_relative_links_resolve(page: Path) -> None:
    links = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if link and not (page.parent / link).exists()] == []


def test_every_path_of_the_tree_exists() -> None:
    (tree,) = blocks(section(README, "The repository"), "")
    folders: list[str] = []
    named: list[str] = []
    for line in tree.splitlines():
        name, caption = re.split(r" {2,}", line.strip(), maxsplit=1)
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        named.append("".join(folders))
        assert caption
    assert [path for path in named if not (ROOT / path).exists()] == []
    packages = {path.parent.name + "/" for path in ROOT.glob("*/*.py")} - {"."}
    assert packages <= set(named)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (page_name(page), text)
        for page in PAGES
        for text in blocks(page.read_text(encoding="utf-8"), "yaml")
        if page.name == "README.md" or "version" in yaml.safe_load(text)  # other pages also show parts of configs
    ],
)
def test_configs_load(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "config.yaml", environ={})
    assert config.sources


def test_the_recognised_columns_are_those_of_the_reader() -> None:
    text = section((ROOT / "docs/config.md").read_text(encoding="utf-8"), "Which columns are read")
    told = {row[0].strip("`"): tuple(re.findall(r"`([^`]+)`", row[1])) for row in table(text)}
    assert told == {{"doc_id": "id"}.get(name, name): names for name, names in CANDIDATES.items()}


@pytest.mark.parametrize("folder", ["transforms/kernels", "transforms/kernels/diversity", "transforms", "pipeline"])
def test_the_architecture_names_every_module(folder: str) -> None:
    modules = {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("__")}
    (heading,) = re.findall(rf"^\| `{folder}/` \|.*?\n(.*?)\n\n", ARCHITECTURE, re.M | re.S)
    told = {name for row in table(heading) for name in re.findall(r"`([^`]+)`", row[0])}
    assert {module for module in modules if not any(fnmatch(module, name) for name in told)} == set()
    files = {name for name in told if not any(fnmatch(module, name) for module in modules)}
    assert {name for name in files if not (ROOT / folder / name).exists()} == set()


def test_the_index_of_the_documentation_names_every_page() -> None:
    named = set(LINK.findall("\n".join(row[0] for row in table((ROOT / "docs/README.md").read_text()))))
    assert named == {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}


def test_files_and_folders_named_in_contributing_exist() -> None:
    named = re.findall(r"`((?:tests|pipeline|transforms|benchmarks|docs|\.ci)/[\w/.]+)`", CONTRIBUTING)
    named += [f"tests/{name}" for name in re.findall(r"`([a-z]\w+\.py)`", CONTRIBUTING) if name != "setup.py"]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_attack_of_the_threat_model_names_tests_that_exist() -> None:
    rows = table((ROOT / "docs/threat-model.md").read_text(encoding="utf-8"))
    assert len(rows) > 20
    for attack, defence, tests, *_ in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert named, f"no test plays: {attack}"
        assert defence
        for file, name in named:
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), f"{file}::{name}"


def test_switches_exist() -> None:
    named = set(re.findall(r"ANCHORMIX_\w+", README + CONTRIBUTING))
    source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("pipeline/*.py"))
    assert named == set(re.findall(r"ANCHORMIX_\w+", source))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = [*re.findall(r"^make .*", text, re.M), *re.findall(r"`(make [^`\n]+)`", text)]
    targets = {
        word for line in code for word in re.split('[#"]', line)[0].split()[1:] if re.fullmatch(r"[a-z][a-z-]*", word)
    }
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {target for target in targets if not re.search(rf"^{target}:", makefile, re.M)} == set()
