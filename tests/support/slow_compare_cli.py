"""Runs ``swiftdiff compare`` on fake systems one of which comes to a stop: for tests of signals.

Usage: ``python slow_compare_cli.py NAME ARGUMENTS_OF_SWIFTDIFF...``: it serves one request, and no second.
"""

from __future__ import annotations

import sys

from compare_fakes import FakeBuild

from swiftdiff.cli import main
from swiftdiff.compare import session

if __name__ == "__main__":
    session.build_system = FakeBuild(stops=(sys.argv[1],))
    main.run(sys.argv[2:])
