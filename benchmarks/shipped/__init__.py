"""Trained models that packages ship, run on real input."""
