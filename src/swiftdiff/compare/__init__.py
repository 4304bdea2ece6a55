"""Measurement of systems against each other: each measurement a run, in turns, on one machine."""
