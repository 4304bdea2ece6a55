"""Checks that the project's map (setup.cfg) agrees with the folders, and that a wheel carries everything."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_LARGE = 1 << 20
MAP = configparser.ConfigParser()
MAP.read(ROOT / "setup.cfg", encoding="utf-8")


def lines(section: str, key: str) -> list[str]:
    return [line for line in MAP[section][key].splitlines() if line]


def test_the_package_list_is_what_the_folders_hold() -> None:
    source = ROOT / "src"
    folders = {path.parent.relative_to(source) for path in (source / "swiftdiff").rglob("*.py")}
    expected = {".".join(folder.parts) for folder in folders} | {"swiftdiff.cli", "swiftdiff.workloads"}
    assert lines("options", "packages") == sorted(expected)


def test_every_package_has_an_init_file_that_says_what_it_is_for() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        init = path.parent / "__init__.py"
        assert init.is_file(), path
        assert init.read_text(encoding="utf-8").startswith('"""'), init


def test_what_make_installs_is_within_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["dev"]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    assert pins["torch"] == "2.13.0"
    from packaging.requirements import Requirement

    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(pins[requirement.name]), requirement


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, so that the checkout stays as it is."""
    work = tmp_path_factory.mktemp("wheel")
    checkout = work / "checkout"
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("this is not a git checkout")
    for name in listing.stdout.splitlines():
        if (ROOT / name).is_file():
            target = checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).stat().st_size > _LARGE:
                target.touch()  # weights: their names matter here, their bytes only take time
            else:
                target.symlink_to(ROOT / name)
    build = "import setuptools.build_meta as backend, sys; print(backend.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(work)], cwd=checkout, capture_output=True, check=True)
    return next(work.glob("*.whl"))


def test_a_wheel_carries_code_command_line_workloads_and_typing_mark(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("cli/main.py", "py.typed", "workloads/quickstart.jsonl", "workloads/configs/diffusers.toml"):
        assert f"swiftdiff/{name}" in names
    for file in (ROOT / "src" / "swiftdiff").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert f"swiftdiff/{file.relative_to(ROOT / 'src' / 'swiftdiff').as_posix()}" in names
    assert not [name for name in names if name.startswith(("tests/", "cli/"))]


def test_an_installed_wheel_finds_its_files_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); sys.meta_path[:] = [f for f in sys.meta_path"
        " if 'editable' not in getattr(f, '__module__', '') + repr(f)]\n"
        "import swiftdiff, swiftdiff.cli.main; from swiftdiff.resources import path\n"
        "from swiftdiff.trace import scan_trace\n"
        "print(path('quickstart.jsonl')); scan_trace(path('quickstart.jsonl'))\n"
        "swiftdiff.cli.main.run(['init', 'copies'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(site / "swiftdiff" / "workloads" / "quickstart.jsonl"))
    assert (elsewhere / "copies" / "configs" / "diffusers.toml").is_file()
