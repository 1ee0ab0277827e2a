"""Serves language models: OpenAI's API over HTTP."""
