"""What is in a trace: arrivals, adapters, and the hit rates that caches of any size would have."""

from __future__ import annotations

from swiftdiff.trace.statistics.adapters import AdapterStatistics
from swiftdiff.trace.statistics.study import TraceStatistics, study_trace

__all__ = ["AdapterStatistics", "TraceStatistics", "study_trace"]
