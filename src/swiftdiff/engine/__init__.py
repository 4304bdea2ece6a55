"""The engine: when requests arrive, in which order they are served, and what is kept of them."""
