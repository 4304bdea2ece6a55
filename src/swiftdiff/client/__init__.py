"""The client: replays a trace against a server over HTTP, its own or any that speaks OpenAI's Images API."""
