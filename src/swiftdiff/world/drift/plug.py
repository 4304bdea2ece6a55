"""Owns the plug for learned metrics: a Python file of the user's that says how a chunk is judged.

``METRICS`` in it maps a name to a function of a chunk, float32 [F, H, W, 3] from 0 to 1, that returns a
number. LV-Bench's own functions fit in with a line each, where their weights are at hand::

    METRICS = {"clarity": lambda chunk: musiq(torch.from_numpy(chunk).permute(0, 3, 1, 2)).mean()}
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from swiftdiff.errors import ConfigError
from swiftdiff.world.drift.error import Metric

_NAME = "METRICS"
_OURS = ("(proxy)", "(physics)")  # ends of names that say what a metric is


def load_metrics(file: Path) -> dict[str, Metric]:
    """Run a Python file and return its metrics by name.

    Raises:
        ConfigError: There is no such file, it fails, or its ``METRICS`` is missing or of another form, or
            a name in it is of those that say what the metrics here are.
    """
    if not file.is_file():
        raise ConfigError(f"--metrics {file}: there is no such file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--metrics {file} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file does
        raise ConfigError(f"--metrics {file} fails: {type(error).__name__}: {error}") from error
    metrics = getattr(module, _NAME, None)
    is_right = isinstance(metrics, dict) and all(
        isinstance(name, str) and callable(metric) for name, metric in metrics.items()
    )
    if not metrics or not is_right:
        raise ConfigError(f"--metrics {file} must define {_NAME}, a dictionary of functions by name")
    for name in metrics:
        if name.endswith(_OURS):
            raise ConfigError(f"--metrics {file}: {name!r} must not end in {' or '.join(_OURS)}")
    return dict(metrics)
