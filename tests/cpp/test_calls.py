"""How kernels are called: arguments by position and by name, what is refused, and the choice by dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_arguments_by_position_and_by_name_are_the_same() -> None:
    expected = X.sum(axis=1, keepdims=True)
    for got in (C.sum(X, (1,), True), C.sum(X, (1,), keepdim=True), C.sum(keepdim=True, dim=(1,), x=X)):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(C.sum(X, (1,)), X.sum(axis=1))


@pytest.mark.parametrize(
    ("args", "named", "said"),
    [
        ((X,), {}, "needs the argument 'dim'"),
        ((X, (1,), True, 4), {}, "takes 3 arguments, got 4"),
        ((X, (1,)), {"axis": 1}, "no argument 'axis'"),
        ((X, (1,)), {"x": X}, "got twice the argument 'x'"),
        (([1.0], (0,)), {}, "sum"),
    ],
)
def test_wrong_arguments_are_named(args: tuple[Any, ...], named: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        C.sum(*args, **named)


def test_an_error_while_a_flag_is_read_is_the_users() -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise ArithmeticError("neither")

    with pytest.raises(ArithmeticError, match="neither"):
        C.sum(X, (1,), Undecided())


def test_floats_go_to_the_native_kernel_and_the_rest_to_the_inherited() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    call = C.FloatsFirst(lambda x, **how: ("native", how), lambda x, **how: ("inherited", how))
    for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        assert call(X.astype(dtype), k=1) == ("native", {"k": 1})
    for other in (X.astype(np.int64), X.astype(np.complex64), X > 0, 1.0, None):
        assert call(other) == ("inherited", {})
    with pytest.raises(TypeError, match="callable"):
        C.FloatsFirst(1, len)
