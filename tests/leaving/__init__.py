"""Leaving, and taking a copy along."""
