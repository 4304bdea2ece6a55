from __future__ import annotations

import re
from pathlib import Path

import pytest

from swiftdiff.request import validate_servable
from swiftdiff.trace import parse_request

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree_paths() -> set[str]:
    """The files and folders that the README's tree names, as paths from the root."""
    block = next(
        block
        for block in re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
        if "src/swiftdiff/" in block
    )
    parents: list[str] = []
    paths = set()
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name]
        paths.add("".join(parents))
    return paths


def test_it_begins_with_the_two_commands() -> None:
    assert re.match(r"# swiftdiff\n\n```\nmake demo .*\nmake test .*\n```\n", README)


def test_its_tree_has_a_phrase_for_every_file() -> None:
    files = {
        file.relative_to(ROOT).as_posix()
        for folder in ("src", "cli")
        for file in (ROOT / folder).rglob("*.py")
        if file.name != "__init__.py"
    }
    assert files - tree_paths() == set(), "files that the tree lacks"


def test_its_tree_names_nothing_that_is_not_there() -> None:
    missing = {path for path in tree_paths() if not (ROOT / path).exists()}
    assert missing == set()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_its_example_of_a_trace_line_is_servable() -> None:
    (example,) = re.findall(r"^```json\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    validate_servable(parse_request(example.replace("\n", ""), "README.md"))
