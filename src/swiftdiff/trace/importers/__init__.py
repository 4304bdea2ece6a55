"""Importers of other people's traces: one file a format."""
