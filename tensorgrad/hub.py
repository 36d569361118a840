"""``torch.hub``, refused: fetching models runs code from the network, which this package never does.

What works instead: install the model's code as a package, download its weights with a tool of your choice, and read
them with ``tensorgrad.load`` or ``tensorgrad.io.safetensors.load_file``.
"""

from __future__ import annotations

import os
import re
from typing import Any, NoReturn
from urllib.parse import urlparse

from .errors import TensorgradError

__all__ = [
    "HASH_REGEX", "HubError", "download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url",
    "set_dir", "urlparse",
]  # fmt: skip


HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")
"""How PyTorch marks a file's hash in its name."""


class HubError(TensorgradError, RuntimeError):
    """Raised by every function of ``hub``."""


def _refuse(name: str, instead: str) -> NoReturn:
    raise HubError(f"hub.{name}: tensorgrad does not use the network. {instead}")


_CODE = "Install the model's code as a package, and read its weights with tensorgrad.load(path)."
_FILE = "Download the file with another tool, then read it with tensorgrad.load(path)."
_DIR = "There is no folder of downloaded models; give tensorgrad.load the path of a file."


def list(github: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises HubError."""
    _refuse("list", _CODE)


def help(github: str, model: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises HubError."""
    _refuse("help", _CODE)


def load(repo_or_dir: str, model: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises HubError."""
    _refuse("load", _CODE)


def download_url_to_file(url: str, dst: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises HubError."""
    _refuse("download_url_to_file", _FILE)


def load_state_dict_from_url(url: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises HubError."""
    _refuse("load_state_dict_from_url", f"{url}: {_FILE}")


def get_dir() -> NoReturn:
    """Raises HubError."""
    _refuse("get_dir", _DIR)


def set_dir(d: Any) -> NoReturn:
    """Raises HubError."""
    _refuse("set_dir", _DIR)


def _get_torch_home() -> str:
    """Where PyTorch would keep downloads; packages ask when they are imported. Nothing is read or written there."""
    cache = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))
