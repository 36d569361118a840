"""Layers, losses and initial values under PyTorch's names.

Every layer is a ``Module``; a layer's function without weights stands in ``nn.functional``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import missing_name
from .activation import *  # noqa: F403 - each file declares its layers in __all__
from .adaptive import *  # noqa: F403
from .attention import *  # noqa: F403
from .containers import *  # noqa: F403
from .conv import *  # noqa: F403
from .distance import *  # noqa: F403
from .dropout import *  # noqa: F403
from .embedding import *  # noqa: F403
from .fold import *  # noqa: F403
from .lazy_layers import *  # noqa: F403
from .linear import *  # noqa: F403
from .loss import *  # noqa: F403
from .module import Module as Module
from .norm import *  # noqa: F403
from .padding import *  # noqa: F403
from .parameter import Buffer as Buffer
from .parameter import Parameter as Parameter
from .parameter import UninitializedBuffer as UninitializedBuffer
from .parameter import UninitializedParameter as UninitializedParameter
from .pixel_shuffle import *  # noqa: F403
from .pool import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .recurrent_cells import *  # noqa: F403
from .transformer import *  # noqa: F403
from .upsampling import *  # noqa: F403

if TYPE_CHECKING:
    from . import functional as functional
    from . import init as init
    from . import utils as utils

_LAZY = ("common_types", "functional", "init", "lazy", "modules", "parallel", "parameter", "utils")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("DataParallel", "DistributedDataParallel"):
        return getattr(importlib.import_module(f"{__name__}.parallel"), name)
    raise AttributeError(missing_name(f"torch.nn.{name}"))
