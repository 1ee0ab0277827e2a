"""A server that programs for OpenAI's API talk to: one file for each group of routes, and one list of them in `app`."""
