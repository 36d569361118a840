"""What may be changed in place between a compiled function and its backward pass: what that pass does not read."""

from __future__ import annotations

import types

import pytest

import tensorgrad as tg


def calls(function, count=3):
    """The function itself, then its program: the run that it is written of and replays."""
    compiled = tg.compile(function)
    return [function, *[compiled] * count]


def two():
    return tg.tensor([1.0, 2.0], requires_grad=True), tg.tensor([3.0, 5.0])


@pytest.mark.parametrize("listed", (False, True))
def test_an_argument_that_no_gradient_reads_may_change(listed):
    def shifted(x, c):
        return (x * 2.0 + c, x * 4.0 - c)[: 1 + listed]

    for call in calls(shifted):
        x, c = two()
        results = call(x, c)
        c.add_(1.0)
        with tg.no_grad():
            x.mul_(7.0)
        sum(y.sum() for y in results).backward()
        assert x.grad.tolist() == [6.0 if listed else 2.0] * 2


def test_one_that_a_gradient_reads_may_not():
    for call in calls(lambda x, c: x * c):
        x, c = two()
        y = call(x, c)
        with tg.no_grad():
            x.mul_(7.0)  # the gradient is made of the other
        y.sum().backward(retain_graph=True)
        assert x.grad.tolist() == [3.0, 5.0]
        c.add_(1.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            y.sum().backward()


def test_a_view_of_one_that_a_gradient_reads_may_not():
    for call in calls(lambda x, c: x * c.view(2)):
        x, c = two()
        y = call(x, c)
        c[0] = 9.0
        with pytest.raises(RuntimeError, match="changed in place"):
            y.sum().backward()


def test_another_run_for_a_second_derivative_reads_what_the_first_has():
    state = types.SimpleNamespace(shift=tg.tensor([1.0, 2.0]))

    def cubed(x, c):
        return (x + state.shift + c) ** 3

    for call in calls(cubed)[1:]:
        for changed in ("shift", "c", None):
            x, c = two()
            y = call(x, c)
            if changed is not None:
                (state.shift if changed == "shift" else c).add_(1.0)
                with pytest.raises(RuntimeError, match=r"changed in place, .* since\. A second derivative"):
                    tg.autograd.grad(y.sum(), x, create_graph=True)
            else:
                (first,) = tg.autograd.grad(y.sum(), x, create_graph=True)
                (second,) = tg.autograd.grad(first.sum(), x)
                assert second.allclose(6.0 * (x + state.shift + c))


def test_another_run_is_refused_once_an_argument_has_other_data():
    for given in (0, 1):
        for call in calls(lambda x, c: (x + c) ** 3)[1:]:
            x, c = two()
            y = call(x, c)
            (x, c)[given].data = tg.tensor([7.0, 9.0])
            (first,) = tg.autograd.grad(y.sum(), x, retain_graph=True)  # the program has what it reads
            assert first.tolist() == [48.0, 147.0]
            with pytest.raises(RuntimeError, match=r"its data was set, since\. A second derivative"):
                tg.autograd.grad(y.sum(), x, create_graph=True)


def test_another_run_under_other_surroundings_is_refused():
    state = types.SimpleNamespace(power=3)
    compiled = tg.compile(lambda x: x**state.power)
    for _ in range(2):
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        state.power = 3
        y = compiled(x)
        state.power = 4
        with pytest.raises(tg.errors.CompileError, match=r"power.*another run"):
            tg.autograd.grad(y.sum(), x, create_graph=True)
