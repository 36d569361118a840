"""tensorgrad on a GPU: right, as fast as the card allows, beside PyTorch. ``python -m benchmarks.gpu``."""
