"""Wrong settings of layers, initial values, optimizers, schedules, distributions and loaders are named, in the class of
error that PyTorch has there; what is no setting of a number is none of a small one either."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import distributions, nn, optim
from tensorgrad.nn import functional as F
from tensorgrad.nn import init
from tensorgrad.nn.utils import rnn
from tensorgrad.optim import lr_scheduler as schedules
from tensorgrad.utils import data


def weights():
    return [nn.Parameter(tg.ones(2, 2))]


def descent():
    return optim.SGD(weights(), lr=0.1)


CASES = {
    # --- layers
    "a word as a probability": (lambda: nn.Dropout("a"), TypeError, "p must be a number"),
    "a fraction as a kernel": (lambda: nn.Conv2d(4, 4, 1.5), TypeError, "kernel_size: .* must be an integer, got 1.5"),
    "a word as a channel": (lambda: nn.Conv1d("a", 4, 2), TypeError, "in_channels must be an integer"),
    "a word as groups": (lambda: nn.Conv1d(4, 4, 2, groups="a"), TypeError, "groups must be an integer"),
    "a fraction as a width": (lambda: nn.CircularPad1d(1.5), TypeError, "padding must be an integer"),
    "a word as a row": (lambda: nn.Embedding(5, 4, padding_idx="a"), TypeError, "padding_idx must be an integer"),
    "a number as a table": (lambda: nn.EmbeddingBag(5, 4, _weight=3), TypeError, "_weight must be a Tensor"),
    "a fraction as a shape": (lambda: nn.LayerNorm(1.5), TypeError, "normalized_shape: the size must be an integer"),
    "no groups": (lambda: nn.GroupNorm(0, 4), ValueError, "num_groups must be positive"),
    "a word as epsilon of a layer": (
        lambda: nn.LayerNorm(4, eps="a")(tg.ones(2, 4)),
        TypeError,
        "eps must be a number",
    ),
    "a number as cutoffs": (lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, 3), TypeError, "cutoffs should be a sequence"),
    "a division by nothing": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, [3], div_value=0),
        ValueError,
        "div_value should be positive",
    ),
    "a word as a projection": (lambda: nn.LSTM(4, 3, proj_size="a"), TypeError, "proj_size must be an integer"),
    "an imaginary dropout": (lambda: nn.GRU(4, 3, dropout=1j), ValueError, "dropout should be a number"),
    "nothing as a size": (lambda: nn.GRUCell(4, None), TypeError, "hidden_size must be an integer"),
    "no features": (lambda: nn.Bilinear(0, 3, 3), ValueError, "in1_features must be > 0"),
    "a word as a bound": (lambda: nn.Hardtanh("a"), TypeError, "min_val must be a number"),
    "the root of order 0": (lambda: F.lp_pool1d(tg.ones(1, 1, 4), 0, 2), RuntimeError, "norm_type must not be 0"),
    "a word as a ratio": (
        lambda: nn.FractionalMaxPool2d(2, output_ratio="a"),
        TypeError,
        "output_ratio must be a number",
    ),
    "groups of a half": (lambda: nn.ChannelShuffle(0.5)(tg.ones(1, 4, 2, 2)), TypeError, "groups must be an integer"),
    "a negative floor": (
        lambda: nn.CosineSimilarity(eps=-1)(tg.ones(2, 3), tg.ones(2, 3)),
        RuntimeError,
        "eps must be non-negative",
    ),
    "a fraction as a place": (lambda: nn.Sequential(nn.ReLU())[1.5], TypeError, "index must be an integer"),
    "a path that is none": (lambda: nn.Linear(2, 2).get_submodule(0), AttributeError, "dotted path"),
    "a parameter's path that is none": (lambda: nn.Linear(2, 2).get_parameter(0), AttributeError, "dotted path"),
    "a name without a module": (lambda: nn.ModuleDict(["a"]), ValueError, "has length 1; 2 is required"),
    "a number for a name": (lambda: nn.ParameterDict([3]), TypeError, "element #0 should be Iterable"),
    "an order with one place twice": (
        lambda: rnn.invert_permutation(tg.tensor([0, 0])),
        RuntimeError,
        "must occur once",
    ),
    "an order of bools": (lambda: rnn.invert_permutation(tg.tensor([True])), RuntimeError, "int32/int64"),
    "a length below 0": (
        lambda: rnn.unpad_sequence(tg.ones(4, 1, 2), tg.tensor([-2])),
        RuntimeError,
        "must not be negative",
    ),
    "a dimension beyond the weight": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2), dim=3),
        IndexError,
        "out of range",
    ),
    "a word as the largest norm": (lambda: nn.utils.clip_grad_norm_(weights(), "a"), TypeError, "max_norm must be"),
    "a word as the order of a norm": (lambda: nn.utils.get_total_norm(weights(), "a"), TypeError, "norm_type must be"),
    "a number to be clipped": (lambda: nn.utils.clip_grad_norm_(3, 1.0), TypeError, "iterable of Tensors"),
    "a number to be packed": (lambda: rnn.pack_padded_sequence(3, [1]), TypeError, "input must be a Tensor"),
    "a number to be unpacked": (lambda: rnn.pad_packed_sequence(3), TypeError, "expected a PackedSequence"),
    "packed rows of other sizes": (
        lambda: rnn.pad_packed_sequence(rnn.PackedSequence(tg.ones(3), tg.tensor([2, 2]))),
        RuntimeError,
        "for 3 rows of data",
    ),
    "a word as a growth": (lambda: tg.amp.GradScaler("cpu", growth_factor="a"), TypeError, "growth_factor must be"),
    "an interval beyond 32 bits": (
        lambda: tg.amp.GradScaler("cpu", growth_interval=2**40),
        ValueError,
        "growth_interval",
    ),
    # --- initial values
    "a number to be filled": (lambda: init.constant_(3, 0.0), TypeError, "tensor must be a Tensor"),
    "integers to be made orthogonal": (
        lambda: init.orthogonal_(tg.zeros(2, 2, dtype=tg.int64)),
        RuntimeError,
        "orthogonal_: expected a floating-point tensor",
    ),
    "a word as a gain": (lambda: init.xavier_normal_(tg.ones(2, 2), "a"), TypeError, "gain must be a number"),
    "a number as a mode": (lambda: init.kaiming_normal_(tg.ones(2, 2), mode=0), TypeError, "fan_in or fan_out"),
    "NaN as a slope": (lambda: init.kaiming_uniform_(tg.ones(2, 2), a=math.nan), RuntimeError, "uniform_: the range"),
    "NaN as a deviation": (lambda: init.normal_(tg.ones(2), std=math.nan), RuntimeError, "std must not be negative"),
    "an imaginary mean": (lambda: init.normal_(tg.ones(2), mean=1j), TypeError, "mean must be a number"),
    "no bound": (lambda: init.uniform_(tg.ones(2), b=math.nan), RuntimeError, "range from 0.0 to nan is empty"),
    "a range beyond the dtype": (lambda: init.uniform_(tg.ones(2), b=1e300), RuntimeError, "without overflow"),
    "an infinite range": (lambda: init.uniform_(tg.ones(2), b=math.inf), RuntimeError, "out of bounds"),
    "an interval of NaN": (lambda: init.trunc_normal_(tg.ones(2), a=math.nan), ValueError, "is empty"),
    "a share of NaN": (lambda: init.sparse_(tg.ones(2, 2), math.nan), ValueError, "sparsity must be from 0 to 1"),
    "the rate of NaN": (lambda: tg.ones(2).exponential_(math.nan), RuntimeError, "lambd must be positive"),
    # --- optimizers
    "a word as momentum": (lambda: optim.SGD(weights(), momentum="a"), TypeError, "momentum must be a number"),
    "nothing as dampening": (lambda: optim.SGD(weights(), dampening=None), TypeError, "dampening must be a number"),
    "one epsilon for two": (lambda: optim.Adafactor(weights(), eps=0), TypeError, "eps must be two numbers"),
    "one beta": (lambda: optim.Adam(weights(), betas=(0.9,)), TypeError, "betas must be two numbers"),
    "a word as a decay": (lambda: optim.Adadelta(weights(), rho="a"), TypeError, "rho must be a number"),
    "no least step": (lambda: optim.Rprop(weights(), step_sizes=(None, 1)), TypeError, r"step_sizes\[0\] must be"),
    "an imaginary power": (lambda: optim.ASGD(weights(), alpha=1j), TypeError, "alpha must be a number"),
    "no history": (lambda: optim.LBFGS(weights(), history_size=0), ValueError, "history_size"),
    "half an iteration": (lambda: optim.LBFGS(weights(), max_iter=1.5), TypeError, "max_iter must be an integer"),
    "a word as a number of steps": (lambda: optim.Muon(weights(), ns_steps="a"), TypeError, "ns_steps must be"),
    "a rate beyond the dtype": (lambda: optim.Adam(weights(), lr=1e300), RuntimeError, "lr: .*without overflow"),
    "a group's decay beyond the dtype": (
        lambda: optim.SGD([{"params": weights(), "weight_decay": 1e300}], lr=0.1),
        RuntimeError,
        "weight_decay: .*without overflow",
    ),
    "no parameters": (lambda: optim.SGD(None), TypeError, "iterable of Tensors"),
    "a group without parameters": (lambda: optim.SGD([{}]), KeyError, "params"),
    "a group of a number": (lambda: optim.SGD([{"params": 3}]), TypeError, "must be tensors"),
    "no state": (lambda: descent().load_state_dict(None), TypeError, "expected a dict"),
    "a state without groups": (lambda: descent().load_state_dict({}), KeyError, "param_groups"),
    "a state that is a number": (
        lambda: descent().load_state_dict({"state": {0: 3}, "param_groups": [{"params": [0]}]}),
        TypeError,
        "state of 0 must be a dict",
    ),
    # --- schedules
    "an optimizer that is none": (lambda: schedules.LambdaLR("a", abs), TypeError, "not an Optimizer"),
    "a function that is none": (lambda: schedules.LambdaLR(descent(), 3), TypeError, "should be a function"),
    "steps of no length": (lambda: schedules.StepLR(descent(), 0), ValueError, "step_size must not be 0"),
    "a word as a factor": (lambda: schedules.ExponentialLR(descent(), "a"), TypeError, "gamma must be a number"),
    "one milestone": (lambda: schedules.MultiStepLR(descent(), 3), TypeError, "list of epochs"),
    "a way of no length": (lambda: schedules.CosineAnnealingLR(descent(), 0), ValueError, "T_max must not be 0"),
    "a word as an end": (lambda: schedules.LinearLR(descent(), end_factor="a"), TypeError, "end_factor must be"),
    "a word as a peak": (lambda: schedules.OneCycleLR(descent(), "a", 10), TypeError, "max_lr must be a number"),
    "a word as a share": (
        lambda: schedules.OneCycleLR(descent(), 0.1, 10, pct_start="a"),
        ValueError,
        "between 0 and 1 pct_start",
    ),
    "a cycle of no length": (
        lambda: schedules.CyclicLR(descent(), 0.1, 0.2, step_size_up=0),
        ValueError,
        "step_size_up must be positive",
    ),
    "a word as a cycle": (lambda: schedules.CosineAnnealingWarmRestarts(descent(), "a"), ValueError, "integer T_0"),
    "a word as patience": (
        lambda: schedules.ReduceLROnPlateau(descent(), patience="a"),
        TypeError,
        "patience must be a number",
    ),
    "one schedule of several": (lambda: schedules.SequentialLR(descent(), 1, [1]), TypeError, "must be a list"),
    "a word as a decay of averages": (
        lambda: optim.swa_utils.get_ema_multi_avg_fn("a"),
        TypeError,
        "decay must be a number",
    ),
    # --- distributions
    "a shape of fractions": (lambda: distributions.Normal(0.0, 1.0).sample((1.5,)), TypeError, "must be an integer"),
    "integers as parameters": (
        lambda: distributions.Gumbel(tg.tensor([2]), 1.0),
        TypeError,
        "must be floating point, got torch.int64",
    ),
    "a number of probabilities": (lambda: distributions.Categorical(0.5), TypeError, "probs must be a Tensor"),
    "a matrix that is none": (
        lambda: distributions.MultivariateNormal(tg.zeros(2), 1.0),
        TypeError,
        "covariance_matrix must be a Tensor",
    ),
    "a distribution that is none": (lambda: distributions.Independent(3, 1), TypeError, "must be a Distribution"),
    "dimensions below 0": (
        lambda: distributions.Independent(distributions.Normal(tg.zeros(2), 1.0), -1),
        ValueError,
        "reinterpreted_batch_ndims >= 0",
    ),
    # --- loaders
    "half a size": (lambda: nn.LayerNorm((2, 1.5)), TypeError, "each number must be an integer"),
    "a word as workers": (lambda: data.DataLoader([1], num_workers="a"), TypeError, "num_workers must be an integer"),
    "a word as a timeout": (lambda: data.DataLoader([1], timeout="a"), TypeError, "timeout must be a number"),
    "a number as a sampler": (lambda: data.DataLoader([1], sampler=3), TypeError, "sampler must be iterable"),
    "a number that collates": (lambda: data.DataLoader([1], collate_fn=3), TypeError, "collate_fn must be callable"),
    "numbers as samples": (lambda: data.TensorDataset(3), TypeError, "made of tensors"),
    "a sample without an order": (lambda: data.TensorDataset(tg.tensor(1)), IndexError, "without dimensions"),
    "a number of splits": (lambda: data.random_split([1, 2], 2), TypeError, "sequence of numbers"),
    "a split of NaN": (lambda: data.random_split([1, 2], [math.nan, 1]), ValueError, "finite"),
    "half a replica": (lambda: data.DistributedSampler([1], 1.5, 0), TypeError, "num_replicas must be an integer"),
    "a seed of a half": (lambda: data.DistributedSampler([1], 1, 0, seed=1.5), TypeError, "seed must be an integer"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_settings(name):
    action, error, text = CASES[name]
    with pytest.raises(error, match=text):
        action()


@pytest.mark.parametrize("alpha", [-2.0, -0.5, 0.3])
def test_celu_of_any_sign(alpha):
    torch = pytest.importorskip("torch")
    found = []
    for lib in (tg, torch):
        x = lib.tensor([-1.5, -0.2, 0.0, 0.3], requires_grad=True)
        y = lib.nn.functional.celu(x, alpha)
        y.sum().backward()
        found.append((y.detach().numpy(), x.grad.numpy()))
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("old", [{"size_average": 0}, {"reduce": 0}, {"size_average": 1, "reduce": 1}])
@pytest.mark.filterwarnings("ignore:size_average and reduce")
def test_older_reductions_are_asked_for_by_truth(old):
    torch = pytest.importorskip("torch")
    x, y = [[0.5, -1.0], [2.0, 0.1]], [1, 0]
    mine = nn.CrossEntropyLoss(**old)(tg.tensor(x), tg.tensor(y))
    theirs = torch.nn.CrossEntropyLoss(**old)(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6)


def test_settings_at_the_edge_that_are_taken():
    assert init.trunc_normal_(tg.zeros(2, 3), a=1.5, b=1.5).tolist() == [[1.5] * 3] * 2
    assert (init.sparse_(tg.zeros(4, 3), 0.5, std=1e30) == 0).sum() == 6
    assert nn.Conv2d(1, 1, np.array([3, 1])).kernel_size == (3, 1) and nn.LayerNorm(x for x in (2, 3)).eps == 1e-5
    assert [len(part) for part in data.random_split(range(5), np.array([2, 3]))] == [2, 3]
    assert optim.SGD(weights(), lr=np.array(0.1)).param_groups[0]["lr"] == 0.1
    assert nn.GRUCell(3, 0).weight_hh.shape == (0, 0)
    step = optim.Adafactor([w := nn.Parameter(tg.ones(2, 2))], lr=math.inf)
    w.grad = tg.ones(2, 2)
    step.step()
    assert w.isfinite().all()
    sizes = distributions.Normal(tg.zeros(2), 1.0).expand(tg.tensor([3, 2])).batch_shape
    assert sizes == (3, 2) and all(type(size) is int for size in sizes)
