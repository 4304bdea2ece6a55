"""The error tree: what a user can get wrong is raised as one of these, with a message that says it all.

::

    SwiftdiffError
    ├── ConfigError     a system config (TOML) or a command-line option is wrong
    ├── TraceError      a trace file is wrong; the message names file, line and field
    ├── AdapterError    an adapter store, ControlNet or LoRA is missing or unreadable
    ├── ModelError      a model is missing, damaged or of a kind that is not supported
    ├── RequestError    one request cannot be served; it fails alone and the others go on
    └── StorageError    a file cannot be written or read: disk full, no permission
"""

from __future__ import annotations

from typing import Self


class SwiftdiffError(Exception):
    """A mistake or condition that the user can act on.

    Args:
        message: Complete by itself: what is wrong, where, and what would be right.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @classmethod
    def for_field(cls, field: str, value: object, allowed: str, where: str = "") -> Self:
        """Return an error that names a field, the value it had and what it may be.

        Args:
            field: The field as its user wrote it, such as ``controlnets[0].scale``.
            value: What was given; long values are shortened.
            allowed: What would be right, such as ``an integer from 1 to 1000``.
            where: File, or file and line, or request that holds the field.
        """
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        prefix = f"{where}: " if where else ""
        return cls(f"{prefix}{field} is {shown}, but must be {allowed}")


class ConfigError(SwiftdiffError):
    """A system config or a command-line option is wrong."""


class TraceError(SwiftdiffError):
    """A trace file is wrong; the message names file, line and field."""


class AdapterError(SwiftdiffError):
    """An adapter store, a ControlNet or a LoRA is missing or unreadable."""


class ModelError(SwiftdiffError):
    """A model is missing, damaged or of a kind that is not supported."""


class RequestError(SwiftdiffError):
    """One request cannot be served; it fails alone and the others go on."""


class StorageError(SwiftdiffError):
    """A file cannot be written or read."""
