"""Makes traces from a spec, and fits specs to traces."""
