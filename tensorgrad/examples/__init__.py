"""Runnable examples: ``python -m tensorgrad.examples.digits``, ``... .embeddings``."""
