"""Names under which PyTorch keeps what concerns the graph itself."""

from .hooks import Handle
from .node import Node
from .saved import save_on_cpu, saved_tensors_hooks

__all__ = ["Handle", "Node", "save_on_cpu", "saved_tensors_hooks"]
