"""The second system: video made block by block with a managed KV cache (Inferix, arXiv 2511.20714)."""
