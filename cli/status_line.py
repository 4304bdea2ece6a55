"""Owns the one line on stderr that says what goes on while something is measured."""

from __future__ import annotations

from rich.console import Console


class StatusLine:
    """A line that is overwritten; nothing but what is noted in a log file.

    It is drawn only when asked: a spinner would take time from what is measured.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    @property
    def is_live(self) -> bool:
        """Whether someone watches a terminal."""
        return self.console.is_terminal

    def note(self, message: str) -> None:
        """Print a line that stays."""
        self.clear()
        alarming = message.startswith(("WARNING", "error"))
        self.console.print(message, style="bold red" if alarming else "", markup=False)

    def draw(self, text: str) -> None:
        """Show what goes on."""
        if self.is_live:
            width = self.console.width - 1
            self.console.file.write(f"\r{text[:width]:<{width}}")
            self.console.file.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self.is_live:
            self.console.file.write("\r" + " " * (self.console.width - 1) + "\r")
            self.console.file.flush()
