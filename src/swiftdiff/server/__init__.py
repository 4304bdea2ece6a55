"""The HTTP server: OpenAI's Images API over one system, with a queue, limits, metrics and an access log."""
