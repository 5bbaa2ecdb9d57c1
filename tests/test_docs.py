"""The documentation: its code runs, what it names exists, its links lead somewhere."""

from __future__ import annotations

import argparse
import contextlib
import doctest
import io
import pydoc
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

import xatmorep
from tests.data import replicas
from xatmorep import cli
from xatmorep.data.names import FIELDS
from xatmorep.model.card import ModelCard
from xatmorep.objectives.losses import LOSSES
from xatmorep.testing import write_atmorep

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Commands of a card may take long and write into the model.
RUN = [page for page in PAGES if page.parent.name != "model-cards"]
NAMES = [str(page.relative_to(DOCS)) for page in PAGES]

FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OUTPUT = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

TOOLS = {"python", ".", "pip", "mkdocs", "ruff", "mypy", "lint-imports"}
"""Commands in `sh` blocks besides our own; they are not run."""
LONG = {"demo"}
"""Commands of ours that take too long; only their words are checked."""
SIMULATED = {"train.zarr", "test.zarr"}
"""Data that take minutes to make; likewise of commands that read them."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    text: str
    line: int
    follows: bool
    """Whether only blank lines stand between it and the block before."""


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    blocks, end = [], 0
    for match in FENCE.finditer(text):
        language, title, body = match.groups()
        line = text.count("\n", 0, match.start(3)) + 1
        follows = end > 0 and not text[end : match.start()].strip()
        blocks.append(Block(language, title or "", body, line, follows))
        end = match.end()
    return blocks


def commands_of(block: Block) -> list[list[str]]:
    lines = block.text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def table_under(page: Path, heading: str) -> list[list[str]]:
    """Cells of the first table after a heading, without its two head lines."""
    section = page.read_text().split(f"\n{heading}\n", 1)[1]
    lines = section[section.index("\n|") + 1 :].splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows[2:]


def in_code(text: str) -> list[str]:
    """Words in `code` of a line, blocks left out."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def same(documented: str, generated: str) -> None:
    """Compare a part of a page with what the package says, and show how it has to be."""
    if documented.strip() != generated.strip():
        pytest.fail(f"the page has to say:\n\n{generated}", pytrace=False)


# ---- code


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Replicas of the cloud stores that the pages open, behind an object-store emulator."""
    from xatmorep.data.gcs import PublicBuckets

    binary = replicas.emulator_binary()
    if binary is None:
        pytest.skip("no object-store emulator for this platform")
    root = tmp_path_factory.mktemp("buckets")
    arco = root / "gcp-public-data-arco-era5/ar"
    replicas.arco_pressure(arco / "full_37-1h-0p25deg-chunk-1.zarr-v3")
    replicas.arco_model_piece(arco / "model-level-1h-0p25deg.zarr-v1")
    replicas.weatherbench_coarse(
        root / "weatherbench2/datasets/era5/1959-2023_01_10-6h-64x32_equiangular_conservative.zarr",
        latitude=np.linspace(-87.1875, 87.1875, 32),
        longitude=np.arange(64) * 5.625,
        times=100,
    )
    replicas.cmip6(root)
    with replicas.emulator(binary, root) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        yield
    # Instances are reused, and keep the address that they were made with.
    PublicBuckets.clear_instance_cache()


@pytest.fixture
def no_figures() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(DOCS)))
def test_code_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page.name in ("open-datasets.md", "published-atmorep.md"):
        request.getfixturevalue("cloud")
    monkeypatch.chdir(tmp_path)
    if page.name == "published-atmorep.md":
        # Random weights in the place of those that a user fetches.
        write_atmorep("id4nvwbetz", model_id="4nvwbetz", per_head=True)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = None
    for block in blocks_of(page):
        if block.language == "text" and block.follows and printed is not None:
            if not doctest.OutputChecker().check_output(block.text, printed, OUTPUT):
                pytest.fail(f"{page}:{block.line}: printed was\n\n{printed}", pytrace=False)
            printed = None
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if block.language == "python":
                source = "\n" * (block.line - 1) + block.text  # for the lines of a traceback
                exec(compile(source, str(page), "exec"), namespace)
            elif block.language == "yaml" and block.title:
                (tmp_path / block.title).write_text(block.text)
            elif block.language == "sh":
                for words in commands_of(block):
                    run(words)
        printed = out.getvalue()


def run(words: list[str]) -> None:
    """Run a command if it is ours, short, and its data are there; otherwise only parse it."""
    if words[0] != "xatmorep":
        assert words[0] in TOOLS, words
    elif words[1] in LONG or not SIMULATED.isdisjoint(words):
        cli._parser().parse_args(words[1:])
    else:
        assert cli.main(words[1:]) == 0, words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_is_code_that_is_checked(page: Path) -> None:
    blocks = blocks_of(page)
    assert page.read_text().count("```") == 2 * len(blocks), "a block isn't at the margin, or open"
    for block in blocks:
        assert block.language in {"python", "sh", "text", "yaml"}, block
        assert block.language != "yaml" or block.title, block
        assert block.language != "text" or block.follows, block
        for words in commands_of(block) if block.language == "sh" else ():
            assert words[0] == "xatmorep" or words[0] in TOOLS, words


def test_commands_of_the_checks_are_those_that_ci_runs() -> None:
    (block,) = (b for b in blocks_of(DOCS / "contributing.md") if b.text.startswith("ruff"))
    script = (ROOT / ".ci/run").read_text().replace('"$bin/', "").replace('"', "")
    for line in block.text.splitlines():
        assert f"\n{line}\n" in script, line


# ---- names


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_in_code_exist(page: Path) -> None:
    for words in in_code(page.read_text()):
        for name in re.findall(r"\bxatmorep(?:\.[A-Za-z_]\w*)+", words):
            assert pydoc.locate(name) is not None, name
        if re.fullmatch(r"[A-Z]\w+Error", words):
            assert hasattr(xatmorep, words), words
        if re.fullmatch(r"(examples|tests|docs|catalogs|\.ci)/\S*", words):
            assert (ROOT / words).exists(), words


def directives() -> list[str]:
    return re.findall(r"^::: (\S+)$", (DOCS / "reference/api.md").read_text(), re.MULTILINE)


def test_api_reference_has_every_public_name() -> None:
    there = set(directives()) | {"xatmorep.__version__"}
    assert {f"xatmorep.{name}" for name in xatmorep.__all__} <= there


def test_api_reference_has_every_class_of_a_configuration_or_card() -> None:
    there = {pydoc.locate(name) for name in directives()}
    for schema in {*schemas(xatmorep.PretrainConfig), *schemas(ModelCard)}:
        assert schema in there, schema


def test_api_reference_names_what_can_be_imported() -> None:
    for name in directives():
        assert getattr(pydoc.locate(name), "__doc__", None), name


def schemas(annotation: Any) -> set[type[BaseModel]]:
    """All pydantic models in an annotation, and in those, and so on."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return {found for argument in get_args(annotation) for found in schemas(argument)}
    inner = (schemas(field.annotation) for field in annotation.model_fields.values())
    return {annotation}.union(*inner)


def test_every_key_of_a_configuration_is_explained() -> None:
    explained = set(in_code((DOCS / "how-to/pretrain.md").read_text()))
    keys = {key for schema in schemas(xatmorep.PretrainConfig) for key in schema.model_fields}
    assert keys - {"inputs"} <= explained


def defaults(
    schema: type[BaseModel], place: str = "", values: BaseModel | None = None
) -> Iterator[tuple[str, str]]:
    """Keys of a configuration that have a default, and the default as YAML writes it.

    `values` are those of the configuration, if they aren't the defaults of its class.
    """
    for key, field in schema.model_fields.items():
        inner = schemas(field.annotation)
        several = get_origin(field.annotation) in (dict, tuple)  # as networks and fields are
        default = field.default if values is None else getattr(values, key)
        if not field.is_required() and not (inner and isinstance(default, BaseModel)):
            plain = TypeAdapter(Any).dump_python(default, mode="json")
            value = yaml.safe_dump(plain, default_flow_style=True, width=1000)
            yield f"{place}{key}", value.removesuffix("\n").removesuffix("\n...")
        if inner and key != "data":
            (direct,) = (found for found in inner if len(schemas(found)) == len(inner))
            own = default if isinstance(default, BaseModel) else None
            yield from defaults(direct, f"{place}{key}{'.*' if several else ''}.", own)


def test_table_of_defaults() -> None:
    page = (DOCS / "how-to/pretrain.md").read_text()
    lines = ["| key | default |", "|---|---|"]
    lines += [f"| `{key}` | `{value}` |" for key, value in defaults(xatmorep.PretrainConfig)]
    table = page[page.index("| key | default |") :].split("\n\n", 1)[0]
    same(table, "\n".join(lines))


def test_table_of_losses() -> None:
    rows = table_under(DOCS / "how-to/pretrain.md", "### `loss`")
    assert {row[0].strip("`") for row in rows} == set(LOSSES)


def test_table_of_catalog_entries() -> None:
    catalog = xatmorep.open_catalog()
    rows = table_under(DOCS / "how-to/open-datasets.md", "## The entries")
    assert {row[0].strip("`") for row in rows} == set(catalog)
    for name, _, parameters in rows:
        declared = set(catalog.entries[name.strip("`")].user_parameters)
        assert set(in_code(parameters)) == declared, name


def test_table_of_field_names() -> None:
    page = (DOCS / "reference/fields.md").read_text()
    lines = [
        "| field | units | other names | CF standard name |",
        "|---|---|---|---|",
    ]
    for field in FIELDS.values():
        words = [f"`{name}`" for name in field.aliases]
        standard = [f"`{name}`" for name in field.standard_names]
        height = f" at {field.height:g} m" if field.height else ""
        levels = " on levels" if field.levels and standard else ""
        lines.append(
            f"| `{field.name}` | {field.units} | {' '.join(words)} "
            f"| {' '.join(standard)}{height}{levels} |".replace("  ", " ")
        )
    same(page[page.index("| field") :], "\n".join(lines))


# ---- the command line


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("name", subcommands())
def test_command_line_page_agrees_with_the_parser(name: str) -> None:
    page = (DOCS / "reference/command-line.md").read_text()
    heading = f"## xatmorep {name}\n"
    assert heading in page, heading
    section = page.split(heading, 1)[1].split("\n## ", 1)[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    same(table, command_table(subcommands()[name]))


def test_command_line_page_has_no_other_commands() -> None:
    page = (DOCS / "reference/command-line.md").read_text()
    assert re.findall(r"^## xatmorep (\S+)$", page, re.MULTILINE) == list(subcommands())


def command_table(parser: argparse.ArgumentParser) -> str:
    rows = [option_row(a) for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows]) if rows else ""


def option_row(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    value = "|".join(action.choices) if action.choices else action.dest.upper()
    if action.nargs == 0:
        words = names
    elif not names:
        words = action.dest
    else:
        words = f"{names} {action.metavar or value}" + (" ..." if action.nargs == "+" else "")
    words = f"`{words}`".replace("|", "\\|")
    if action.required:
        default = "required"
    else:
        unset = action.default is None or action.default is False
        default = "" if unset else f"`{action.default}`"
    return f"| {words} | {action.help or ''} | {default} |".replace("  ", " ")


# ---- the house


def test_table_of_rooms() -> None:
    rows = table_under(DOCS / "design.md", "## Rooms and floors")
    floors = {room.strip("`"): int(floor) for floor, room, _ in rows}
    package = ROOT / "xatmorep"
    rooms = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert set(floors) == rooms - {"__init__", "__main__"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    beside = [[floors[room] for room in re.split(r"[ |:]+", layer)] for layer in layers]
    assert all(len(set(floor)) == 1 for floor in beside), "rooms of one floor"
    order = [floor[0] for floor in beside]
    assert order == sorted(set(order), reverse=True), "floors from top to bottom"


# ---- links


def anchors_of(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text())
    slugs = {
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    return slugs | set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"https://", link):
            continue
        target, _, anchor = link.partition("#")
        place = page if not target else (page.parent / target).resolve()
        assert place.exists(), link
        assert not anchor or anchor in anchors_of(place), link


def test_every_page_is_in_the_navigation() -> None:
    def leaves(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for part in entry.values() if isinstance(entry, dict) else ():
            yield from leaves(part)
        for part in entry if isinstance(entry, list) else ():
            yield from leaves(part)

    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(leaves(settings["nav"])) == NAMES
