"""The ops: one record each, one file per family, and the functions users call them by.

Importing this package installs the families' functions as methods of Tensor. A family's public names are its module's
``__all__``; adding one needs no other list than the lines below.
"""

from __future__ import annotations

import importlib
import pkgutil

from .native_views import install_views
from .numpy_names import accept, accept_in_methods

# not families: the machinery, and records that users reach through other names
_INTERNAL = frozenset(
    (
        "calls",
        "elementwise",
        "inplace",
        "native_views",
        "numeric",
        "numpy_names",
        "operators",
        "pointwise",
        "record",
        "samples",
        "selected",
        "shape_core",
        "signatures",
    )
)
# families that few programs call: loaded with ``nn.functional``, or when named, so that the package is imported fast
_LATER = frozenset((
    "ctc", "embedding_bag", "fold", "fractional_pool", "grid_sample", "interpolate", "layer_names", "multilabel_loss",
    "pixel_shuffle", "rnn", "rnn_sequence", "samplers", "unpool",
))  # fmt: skip


def load_all() -> None:
    """Load the families that are otherwise loaded when they are first needed: for lists of all ops."""
    for name in sorted(_LATER):
        importlib.import_module(f"{__name__}.{name}")
    from .late import HOMES

    for name in sorted({"fft", "linalg", "special", *HOMES.values()}):
        importlib.import_module(f"{__name__.partition('.')[0]}.{name}")


__all__: list[str] = []
for _info in pkgutil.iter_modules(__path__):
    if _info.name in _LATER:
        continue
    _module = importlib.import_module(f"{__name__}.{_info.name}")
    if _info.name not in _INTERNAL:
        for _name in getattr(_module, "__all__", ()):
            globals()[_name] = accept(getattr(_module, _name))
            __all__.append(_name)
accept_in_methods()
install_views(globals())
