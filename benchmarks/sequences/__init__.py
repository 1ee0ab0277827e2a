"""Language models with caches over several devices: right tokens, speed, long texts, lost devices, a server."""
