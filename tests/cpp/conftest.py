from __future__ import annotations

import pytest


@pytest.fixture(params=["tiles", "vectors"])
def multiplied_by(request):
    """Products of bfloat16 by tiles of AMX, where there are any, and as they are without."""
    from tensorgrad import _C

    found = _C.isa() == "amx"
    if request.param == "tiles" and not found:
        pytest.skip("this processor has no AMX, or it was not asked for")
    _C.use_amx(request.param == "tiles")
    yield
    _C.use_amx(found)
