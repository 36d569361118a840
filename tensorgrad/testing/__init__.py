"""What a backend must do, as checks that anybody can run: see ``conformance``."""
