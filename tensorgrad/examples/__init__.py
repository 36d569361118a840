"""Runnable examples: ``python -m tensorgrad.examples.NAME``, NAME being char_gpt, lstm_text, digits, vae_digits,
dcgan_digits, pinn, neural_ode, cartpole or embeddings. Each takes ``--help``."""
