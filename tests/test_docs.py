"""The documentation is true: commands parse, links lead somewhere, Python names exist, tables equal the code.

``UPDATE_DOCS=1`` writes the tables of docs/settings.md again instead of comparing them.
"""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import docstring_parser
import pytest
import yaml

import lauter
from lauter.audit_config import SET_ABOVE, AuditConfig
from lauter.bench.way import METHODS
from lauter.commands import COMMANDS, flags
from lauter.config import FitConfig, from_plain, load_preset
from lauter.models import default_networks
from lauter.training.schedule import OptimizerConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SETTINGS = ROOT / "docs" / "settings.md"
TABLES = {
    "README.md": ["main"],
    "measurements.md": [
        "main",
        "noharm",
        "ablation",
        "labels",
        "clock",
        "speed",
        "speedratios",
        "speedrates",
        "speedshares",
        "speedpeaks",
        "speedlatency",
        "growth",
        "ncifar",
        "rivals",
        "rivalshard",
        "rivalsharm",
        "friendschart",
        "friends",
        "audit",
        "auditf1",
        "auditdetection",
        "auditcalibration",
        "auditrates",
        "auditintervals",
        "auditdigits",
        "auditcosts",
        "auditpictures",
        "auditscale",
        "distill",
        "bank",
        "headless",
        "crd",
        "distillspeed",
    ],
    "mimicking.md": ["bestnorm", "losserror", "gradienterror"],
    "scaling.md": ["scaling", "projection"],
}


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [content for language, content in found if language in languages]


def outside_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """The `inline code` of a page."""
    return re.findall(r"`([^`\n]+)`", outside_blocks(page))


def command_lines() -> Iterator[Any]:
    """Whole commands: lines of shell blocks, and inline code that has more than a verb."""
    for page in PAGES:
        lines = [line.strip() for block in blocks(page, "sh") for line in block.splitlines()]
        lines += [span for span in spans(page) if len(span.split()) > 2]
        for line in dict.fromkeys(lines):
            if line.startswith("lauter "):
                yield pytest.param(line, id=f"{page.stem}: {line}")


class _ParsedError(Exception):
    """The command's words were understood; carries its parser."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Sequence[str]], Any]:
    """Run a verb up to where its words are parsed, settings included; gives its parser."""
    parse = flags.parse

    def stop_after(function: Callable[..., Any]) -> Callable[..., NoReturn]:
        def parse_and_stop(parser: Any, argv: Sequence[str]) -> NoReturn:
            with monkeypatch.context() as patch:
                patch.setattr(flags, "parse", parse)
                function(parser, argv)
            raise _ParsedError(parser)

        return parse_and_stop

    for name in ("parse", "parse_run"):
        monkeypatch.setattr(flags, name, stop_after(getattr(flags, name)))
    (tmp_path / "settings.yaml").write_text(blocks(SETTINGS, "yaml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(words: Sequence[str]) -> Any:
        assert words[0] in COMMANDS, f"there is no verb {words[0]!r}"
        with pytest.raises(_ParsedError) as parsed:
            importlib.import_module(f"lauter.commands.{words[0]}").main(words[1:])
        return parsed.value.args[0]

    return run


@pytest.mark.parametrize("line", list(command_lines()))
def test_commands_parse(line: str, parse_only: Callable[[Sequence[str]], Any]) -> None:
    parse_only(shlex.split(line)[1:])


@pytest.mark.parametrize("words", ["fit photos --no-such-flag 1", "fit photos --holdout 0.9", "clean photos"])
def test_wrong_commands_would_be_noticed(words: str, parse_only: Callable[[Sequence[str]], Any]) -> None:
    with pytest.raises((ValueError, AssertionError), match=r"no-such-flag|holdout|no verb"):
        parse_only(words.split())


def test_flags_and_verbs_in_the_text_exist(parse_only: Callable[[Sequence[str]], Any]) -> None:
    verbs = (["distill", "photos", "--teacher", "t.safetensors"], ["audit", "photos"], ["bench", "speed"])
    actions = [action for words in verbs for action in parse_only(words)._actions]
    known = {option.replace("-", "_") for action in actions for option in action.option_strings}
    for page in PAGES:
        for span in spans(page):
            verb = re.match(r"lauter (\w+)$", span)
            assert verb is None or verb[1] in COMMANDS, f"{page.name}: `{span}`"
            flag = re.match(r"--(?:no-)?([a-z][\w.-]*\w)", span)
            name = flag[1].replace("-", "_") if flag else "help"
            assert name in ("help", "no") or f"__{name}" in known, f"{page.name}: `{span}`"


def test_python_names_and_arguments_exist() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "lauter":
                    assert node.attr in lauter.__all__, f"{page.name}: lauter.{node.attr}"
                if isinstance(node, ast.Call) and re.fullmatch(r"lauter\.\w+", ast.unparse(node.func)):
                    function = getattr(lauter, ast.unparse(node.func).removeprefix("lauter."))
                    named = {str(keyword.arg): None for keyword in node.keywords}
                    inspect.signature(function).bind(*node.args, **named)


def headings(page: Path) -> set[str]:
    lines = re.findall(r"^#+ (.*)$", outside_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in headings(place), f"{page.name} links to {target}"
        if page.parent != ROOT:
            assert place.is_relative_to(ROOT / "docs"), f"{page.name}: the site does not hold {target}"


def test_markers_of_the_measured_tables_stand_once() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<!-- results:(\w+) -->", text) == TABLES.get(page.name, [])
        assert re.findall(r"<!-- /results:(\w+) -->", text) == TABLES.get(page.name, [])


def test_every_measured_method_is_explained() -> None:
    rows = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    assert [method for method in METHODS if f"| `{method}` |" not in rows] == []


def test_the_columns_of_the_label_table_are_explained() -> None:
    tree = ast.parse((ROOT / "src/lauter/auditing/verdicts.py").read_text(encoding="utf-8"))
    (maker,) = [node for node in tree.body if getattr(node, "name", "") == "make_label_table"]
    (call,) = [
        node
        for node in ast.walk(maker)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pd.DataFrame"
    ]
    columns = list(ast.literal_eval(ast.unparse(ast.List(elts=call.args[0].keys))))  # type: ignore[attr-defined]
    section = outside_blocks(ROOT / "docs" / "quickstart.md").partition("### labels.parquet")[2]
    assert re.findall(r"^\| `(\w+)` \|", section.partition("###")[0], re.MULTILINE) == columns


def test_the_settings_page_equals_the_code() -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    before, start, rest = text.partition("<!-- settings -->\n")
    _, end, after = rest.partition("<!-- /settings -->")
    wanted = f"{before}{start}\n{render_settings()}\n{end}{after}"
    if os.environ.get("UPDATE_DOCS"):
        SETTINGS.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        pytest.fail(
            "docs/settings.md differs from the code; UPDATE_DOCS=1 pytest tests/test_docs.py mends it"
        )


def test_the_yaml_on_the_settings_page_is_read() -> None:
    for block in blocks(SETTINGS, "yaml"):
        from_plain(FitConfig, yaml.safe_load(block))


def render_settings() -> str:
    """Presets, default networks, and every field of every config with default and meaning."""
    config = FitConfig()
    names = ["quick", "standard", "thorough"]
    parts = ["## Presets", "Settings that differ between presets; all others have the defaults below.\n"]
    flat = [dict(_flatten(load_preset(name))) for name in names]
    differing = [name for name in flat[0] if len({str(preset[name]) for preset in flat}) > 1]
    rows = [[f"`{name}`", *(_show(preset[name]) for preset in flat)] for name in differing]
    parts.append(_table(["setting", *names], rows))

    sizes = range(8, 1025)
    changes = [size for size in sizes if size == 8 or default_networks(size) != default_networks(size - 1)]
    bounds = [f"from {low} on" for low in changes]
    if len(changes) > 1:
        bounds[0] = f"up to {changes[1] - 1}"
    networks = [
        [bound, *map(_show, default_networks(low))] for bound, low in zip(bounds, changes, strict=True)
    ]
    parts += ["## Networks", "Where no network is named, the size of the images decides.\n"]
    parts.append(_table(["image size, pixels", "teacher", "student"], networks))

    optimizers: dict[str, OptimizerConfig] = {}
    for place, part in _configs(config):
        if isinstance(part, OptimizerConfig):
            optimizers[place] = part
            continue
        documented = docstring_parser.parse(inspect.getdoc(type(part)) or "")
        parts += [f"## {place or 'The whole way'}", f"{documented.short_description}\n"]
        parts.append(_table(["setting", "default", "meaning"], list(_fields(place, part))))
    parts += ["## Optimisers", "Each stage has its own.\n"]
    stages = [place.removesuffix(".optimizer") for place in optimizers]
    fields = [
        [f"`*.optimizer.{name}`", *(_show(getattr(one, name)) for one in optimizers.values()), meaning]
        for name, meaning in _meanings(OptimizerConfig).items()
    ]
    parts.append(_table(["setting", *stages, "meaning"], fields))

    parts += ["## Audit", "Of `lauter audit`; groups that stand above already mean the same there.\n"]
    shared = {type(part) for _, part in _configs(config)}
    for place, part in _configs(AuditConfig()):
        if type(part) not in shared:
            documented = docstring_parser.parse(inspect.getdoc(type(part)) or "")
            parts += [f"### audit: {place}" if place else "", f"{documented.short_description}\n"]
            fields = [row for row in _fields(place, part) if row[0].strip("`") not in SET_ABOVE]
            parts.append(_table(["setting", "default", "meaning"], fields))
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts)) + "\n"


def _configs(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    yield place, config
    for entry in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, entry.name)):
            yield from _configs(value, f"{place}.{entry.name}".lstrip("."))


def _flatten(config: Any) -> Iterator[tuple[str, Any]]:
    for place, part in _configs(config):
        for entry in dataclasses.fields(part):
            if not dataclasses.is_dataclass(value := getattr(part, entry.name)):
                yield f"{place}.{entry.name}".lstrip("."), value


def _meanings(kind: type) -> dict[str, str]:
    params = docstring_parser.parse(inspect.getdoc(kind) or "").params
    meanings = {param.arg_name: " ".join((param.description or "").split()) for param in params}
    assert set(meanings) == {entry.name for entry in dataclasses.fields(kind)}, kind.__name__
    return meanings


def _fields(place: str, config: Any) -> Iterator[list[str]]:
    for name, meaning in _meanings(type(config)).items():
        if not dataclasses.is_dataclass(value := getattr(config, name)):
            yield [f"`{f'{place}.{name}'.lstrip('.')}`", _show(value), meaning]


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_show, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if isinstance(value, str) and value else str(value)


def _table(heading: list[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
