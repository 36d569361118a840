"""Scalar formulas: a small IR with symbolic derivatives, lowered to typed programs that backends evaluate."""

from .derivative import vector_jacobian
from .lower import Program, lower
from .node import Expr, constant, source, substitute, symbol, symbols

__all__ = ["Expr", "Program", "constant", "lower", "source", "substitute", "symbol", "symbols", "vector_jacobian"]
