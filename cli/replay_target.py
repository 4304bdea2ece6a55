"""Owns ``swiftdiff replay --target``: a run against a server, and the key that it wants."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from swiftdiff.engine.options import ReplayOptions
    from swiftdiff.engine.session import Ended


def start(
    trace: Path, url: str, options: ReplayOptions, out: Path, *, model: str | None, key_file: Path | None
) -> Ended:
    """Replay a trace against a server into a new folder."""
    from swiftdiff.client.session import start_http_run
    from swiftdiff.client.target import read_api_key

    from .terminal import ProgressObserver

    api_key = None if key_file is None else read_api_key(key_file)
    with ProgressObserver() as observer:
        return start_http_run(
            trace, url, options, out, model=model, api_key=api_key, argv=sys.argv, observer=observer
        )


def resume(folder: Path, trace: Path | None, key_file: Path | None) -> Ended:
    """Send what is missing in a run's folder."""
    from swiftdiff.client.session import resume_http_run
    from swiftdiff.client.target import read_api_key

    from .terminal import ProgressObserver

    api_key = None if key_file is None else read_api_key(key_file)
    with ProgressObserver() as observer:
        return resume_http_run(folder, trace, api_key=api_key, observer=observer)


def is_http_run(folder: Path) -> bool:
    """Tell whether a run's folder is of a run against a server."""
    from swiftdiff.client.session import ENGINE
    from swiftdiff.engine.run_folder import RunFolder

    return RunFolder.open(folder).read_info().engine == ENGINE


def label(url: str) -> str:
    """Return how the default folder calls a server."""
    from swiftdiff.client.target import parse_url

    return urlsplit(parse_url(url)).netloc
