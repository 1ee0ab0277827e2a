"""Planners of others, written from their papers, to compare ours with: each takes a Problem and gives a Solution."""
