"""Finds the files that ship with swiftdiff, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from swiftdiff.errors import StorageError

_PACKAGE = Path(__file__).resolve().parent


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
