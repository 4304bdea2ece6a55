"""Silences the progress bars and warnings of diffusers and transformers while swiftdiff loads or saves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Show errors only inside the block, then what was shown before.

    What goes wrong is raised by swiftdiff itself; transformers' load report calls the untouched weights
    beside a LoRA "missing", and importing it without torchvision warns about image processors that are not
    used.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    verbosities = [library.get_verbosity() for library in libraries]
    bars_shown = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, shown in zip(libraries, verbosities, bars_shown, strict=True):
            library.set_verbosity(verbosity)
            if shown:
                library.enable_progress_bar()
