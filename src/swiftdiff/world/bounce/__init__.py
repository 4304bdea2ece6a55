"""The embedded world: balls that bounce, how they are drawn, learnt and judged."""
