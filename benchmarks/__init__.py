"""Training steps, single ops, overhead and start-up of tensorgrad beside PyTorch and JAX: ``python -m benchmarks``."""
