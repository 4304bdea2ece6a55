"""Runs ``swiftdiff compare`` on fake systems that take a while for each request: for tests of signals.

Usage: ``python slow_compare_cli.py SECONDS_PER_REQUEST ARGUMENTS_OF_SWIFTDIFF...``
"""

from __future__ import annotations

import sys

from compare_fakes import FakeBuild

from swiftdiff.cli import main
from swiftdiff.compare import session

if __name__ == "__main__":
    seconds = float(sys.argv[1])
    session.build_system = FakeBuild(seconds={"a": seconds, "b": seconds})
    main.run(sys.argv[2:])
