"""What is in a trace: arrivals, adapters, and the hit rates that caches of any size would have."""
