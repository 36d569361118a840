"""Texts that every machine with Python has: the source of its standard library, and the prose of its docstrings."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg

__all__ = ["Alphabet", "batch", "prose", "source"]


def _files() -> list[Path]:
    return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


def source(most: int) -> str:
    """About ``most`` characters of source code, in the order of the files' names; ASCII files only."""
    parts, size = [], 0
    for path in _files():
        text = path.read_bytes()
        if text.isascii() and size < most:
            parts.append(text.decode().replace("\t", "    ").replace("\r", ""))
            size += len(parts[-1])
    return "\n".join(parts)[:most]


def prose(most: int) -> str:
    """About ``most`` characters of docstrings, a blank line between two."""
    parts, size = [], 0
    for path in _files():
        text = path.read_bytes()
        if size >= most or not text.isascii():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in somebody's string
            tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found = ast.get_docstring(node)
                if found and len(found) > 40:
                    parts.append(" ".join(found.split()))
                    size += len(parts[-1])
    return "\n\n".join(parts)[:most]


class Alphabet:
    """The characters of a text, numbered."""

    def __init__(self, text: str):
        self.characters = sorted(set(text))
        self.numbers = {character: i for i, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray[Any, Any]:
        """Numbers (n,) int64 of the characters; those that the alphabet lacks are left out."""
        return np.array([self.numbers[c] for c in text if c in self.numbers], dtype=np.int64)

    def decode(self, numbers: Any) -> str:
        """The text that the numbers stand for."""
        return "".join(self.characters[int(i)] for i in numbers)


def batch(data: Any, size: int, length: int) -> tuple[Any, Any]:
    """(inputs, targets), both (size, length) int64: pieces of a numbered text, and each one a character later."""
    starts = tg.randint(0, len(data) - length - 1, (size, 1), device=data.device)
    places = starts + tg.arange(length + 1, device=data.device)
    pieces = data[places]
    return pieces[:, :-1], pieces[:, 1:]
