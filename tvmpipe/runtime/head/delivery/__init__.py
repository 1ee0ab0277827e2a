"""Brings files to devices: each byte leaves the head once, and what several devices want they give each other."""
