"""Capture and replay of what passes the door: the seed of the compiler."""
