"""Finds the files that ship with swiftdiff, in a checkout and in an installed wheel alike."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from swiftdiff.errors import StorageError

_PACKAGE = Path(__file__).resolve().parent
_COPIED = {".csv", ".gz", ".jsonl", ".md", ".png", ".toml", ".txt"}


def workloads_root() -> Path:
    """Return the folder that holds the shipped traces, control images and system configs.

    Raises:
        StorageError: It is not there, so the installation is damaged.
    """
    # A wheel carries the folder inside the package; an editable install leaves it at the checkout's root.
    for folder in (_PACKAGE / "workloads", _PACKAGE.parent.parent / "workloads"):
        if (folder / "configs").is_dir():
            return folder
    raise StorageError(f"swiftdiff's workloads folder is missing beside {_PACKAGE}; install swiftdiff again")


def path(name: str) -> Path:
    """Return where a shipped file lies, such as ``quickstart.jsonl`` or ``configs/diffusers.toml``.

    Raises:
        StorageError: No such file ships.
    """
    parts = PurePosixPath(name).parts
    found = workloads_root().joinpath(*parts)
    if ".." in parts or PurePosixPath(name).is_absolute() or not found.exists():
        raise StorageError(f"no file {name!r} ships with swiftdiff; see {workloads_root()}")
    return found


def copy_workloads(target: Path, *, overwrite: bool = False) -> list[Path]:
    """Copy all shipped traces, control images and configs below ``target`` and return the files written.

    Raises:
        StorageError: A file is there already and ``overwrite`` is false (then nothing is written), or
            ``target`` cannot be written.
    """
    root = workloads_root()
    sources = sorted(file for file in root.rglob("*") if file.is_file() and file.suffix in _COPIED)
    targets = [target / file.relative_to(root) for file in sources]
    existing = [file for file in targets if file.exists()]
    if existing and not overwrite:
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise StorageError(
            f"{existing[0]}{others} would be overwritten; choose another folder or use --force"
        )
    try:
        for source, copy in zip(sources, targets, strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    except OSError as error:
        raise StorageError(f"cannot write to {target}: {error.strerror or error}") from error
    return targets
