"""The ops: one record each, one file per family, and the functions users call them by.

Importing this package installs the families' functions as methods of Tensor. A family's public names are its module's
``__all__``; adding one needs no other list than the line below.
"""

from __future__ import annotations

import importlib
import pkgutil

# not families: the machinery, and records that users reach through other names
_INTERNAL = frozenset(("elementwise", "inplace", "operators", "pointwise", "record", "samples", "shape_core"))

__all__: list[str] = []
for _info in pkgutil.iter_modules(__path__):
    _module = importlib.import_module(f"{__name__}.{_info.name}")
    if _info.name not in _INTERNAL:
        for _name in getattr(_module, "__all__", ()):
            globals()[_name] = getattr(_module, _name)
            __all__.append(_name)
