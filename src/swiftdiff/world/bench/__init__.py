"""What a world's KV cache, int8, streaming and profiling come to."""
