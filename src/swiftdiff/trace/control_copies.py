"""Takes control images along when a trace goes into another folder: they must lie below its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from swiftdiff.errors import StorageError, TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace.content import trace_stem


class ControlCopies:
    """Copies of control images below ``<stem>-controls`` beside a new trace, all of them or none.

    They are made in a temporary folder, which `close` removes, and moved by `finish`.

    Args:
        out: The new trace.
        overwrite: Whether there may be such a folder already.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        self._parent = out.parent
        self._name = f"{trace_stem(out)}-controls"
        self._overwrite = overwrite
        self._staging: Path | None = None

    def carry(
        self, requests: Iterable[ImageRequest], source: Path, below: str = ""
    ) -> Iterator[ImageRequest]:
        """Yield the requests of a trace with the paths of their copied control images.

        Nothing changes if the new trace lies in the same folder as the old one.

        Args:
            requests: Those of ``source``.
            source: The trace that they come from.
            below: Folder for the copies, so that those of several traces do not meet.

        Raises:
            TraceError: A control image does not exist.
            StorageError: A copy cannot be written.
        """
        if source.resolve().parent == self._parent.resolve():
            yield from requests
            return
        for request in requests:
            if not request.controlnets:
                yield request
                continue
            uses = []
            for use in request.controlnets:
                name = Path(self._name, below, use.image)
                self._copy(source.parent / use.image, name, f"{source}: request {request.request_id}")
                uses.append(use.model_copy(update={"image": name.as_posix()}))
            yield request.model_copy(update={"controlnets": tuple(uses)})

    def finish(self, requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
        """Yield the requests, and after the last one put the copies into their place.

        Raises:
            StorageError: They cannot be put there.
        """
        yield from requests
        if self._staging is None:
            return
        try:
            for copy in sorted(self._staging.rglob("*")):
                target = self._parent / copy.relative_to(self._staging)
                if copy.is_dir():
                    target.mkdir(exist_ok=True)
                else:
                    copy.replace(target)
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Remove what is not finished."""
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)

    def _copy(self, image: Path, name: Path, where: str) -> None:
        try:
            copy = self._make_staging() / name
            if copy.exists():
                return
            if not image.is_file():
                hint = "swiftdiff trace validate lists all that are missing"
                raise TraceError(f"{where}: the control image {image} does not exist; {hint}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, copy)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _make_staging(self) -> Path:
        if self._staging is None:
            if (self._parent / self._name).exists() and not self._overwrite:
                taken = self._parent / self._name
                raise StorageError(f"{taken} exists; choose another -o or use --force")
            self._parent.mkdir(parents=True, exist_ok=True)
            self._staging = Path(tempfile.mkdtemp(dir=self._parent, prefix=f".{self._name}."))
        return self._staging

    def _cannot_write(self, error: OSError) -> StorageError:
        what = f"cannot copy control images to {self._parent / self._name}"
        return StorageError(f"{what}: {error.strerror or error}")
