"""The report: what a run's records come to, as numbers, tables and plots."""
