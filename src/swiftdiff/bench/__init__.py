"""The benchmark: systems take turns at the same requests; ratios come with their spread."""
