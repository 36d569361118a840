"""Generation with a cache of fixed size: one program for all positions, whoever writes the cache how."""

from __future__ import annotations

import pytest

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import nn
from tensorgrad.errors import CompileError

BATCH, HEADS, LENGTH, WIDTH, TOKENS = 2, 4, 12, 32, 17


@pytest.fixture(params=["numpy", "cpp"])
def backend(request):
    with tg.backend(request.param):
        yield request.param


def put(cache, position, new):
    cache.index_put_((tg.arange(BATCH)[:, None], tg.arange(HEADS)[None], position.reshape(1, 1)), new[:, :, 0])


def choose(cache, position, new):
    cache.copy_(tg.where((tg.arange(LENGTH) == position)[:, None], new, cache))


def number(cache, position, new):
    cache[:, :, position] = new[:, :, 0]


def numbers(cache, position, new):
    cache[:, :, position.reshape(1)] = new


def by_batch(cache, position, new):
    cache[tg.arange(BATCH), :, position.expand(BATCH)] = new[:, :, 0]


def moved(cache, position, new):
    cache[:, :, position] = cache[:, :, position] * 0 + new[:, :, 0]


# how a row of a cache (batch, heads, length, width) is written at a position that a tensor holds
WRITES = {
    "index_copy_": lambda cache, position, new: cache.index_copy_(2, position.reshape(1), new),
    "scatter_": lambda cache, position, new: cache.scatter_(2, position.reshape(1, 1, 1, 1).expand(new.shape), new),
    "index_add_": lambda cache, position, new: cache.index_fill_(2, position, 0.0).index_add_(2, position, new),
    "index_put_": put,
    "where": choose,
    "x[:, :, number] = y": number,
    "x[:, :, numbers] = y": numbers,
    "x[batch, :, number] = y": by_batch,
    "x[:, :, number] read": moved,
}


class Attention(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.write = write
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        for name in ("keys", "values"):
            self.register_buffer(name, tg.zeros(BATCH, HEADS, LENGTH, WIDTH // HEADS))

    def heads(self, x):
        shape = (*x.shape[:2], HEADS, WIDTH // HEADS)
        return [part.view(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)]

    def forward(self, x, position):
        """One token after those in the cache, or a whole sequence without one."""
        q, k, v = self.heads(x)
        if position is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            self.write(self.keys, position, k)
            self.write(self.values, position, v)
            seen = tg.arange(LENGTH) <= position
            y = F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=seen)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.attention = Attention(write)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x, position):
        x = x + self.attention(self.norms[0](x), position)
        return x + self.mlp(self.norms[1](x))


class Network(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.token, self.place = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block(write) for _ in range(2)])
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens, position=None):
        places = tg.arange(tokens.shape[1]) if position is None else position
        x = self.token(tokens) + self.place(places)
        for block in self.blocks:
            x = block(x, position)
        return self.head(x)[:, -1]


def network(write):
    tg.manual_seed(4)
    return Network(write).eval()


def generated(step):
    """Tokens, each of the one before and its position."""
    tokens = [tg.tensor([[1], [2]])]
    for position in range(LENGTH - 1):
        tokens.append(step(tokens[-1], tg.tensor(position)))
    return tg.cat(tokens, 1).tolist()


def whole(model):
    tokens = tg.tensor([[1], [2]])
    for _ in range(LENGTH - 1):
        tokens = tg.cat([tokens, model(tokens).argmax(-1, keepdim=True)], 1)
    return tokens.tolist()


@pytest.mark.parametrize("how", WRITES)
def test_one_program_for_all_positions(backend, how):
    def step(token, position):
        return model(token, position).argmax(-1, keepdim=True)

    with tg.inference_mode():
        model = network(WRITES[how])
        expected = whole(model)
        assert len({*expected[0], *expected[1]}) > 3
        assert generated(step) == expected
        model = network(WRITES[how])
        compiled = tg.compile(step)
        assert generated(compiled) == expected
        assert generated(compiled) == expected  # what is left in the cache is behind the mask
        assert compiled.stats()["captures"] == 1 and compiled.stats()["eager"] == 0


def test_a_compiled_module(backend):
    model = network(WRITES["index_copy_"])
    with tg.no_grad():
        expected = whole(model)
        compiled = tg.compile(model)
        assert generated(lambda *given: compiled(*given).argmax(-1, keepdim=True)) == expected
        assert compiled.stats()["captures"] == 1


def test_sampling_draws_anew(backend):
    model = network(WRITES["index_copy_"])

    def step(token, position):
        return tg.multinomial(F.softmax(model(token, position) * 0.1, -1), 1)

    compiled = tg.compile(step)
    with tg.no_grad():
        runs = []
        for run in (step, compiled, compiled):
            tg.manual_seed(9)
            runs.append(generated(run))
    assert runs[0] == runs[1] == runs[2] and len(set(runs[0][0])) > 3
    assert compiled.stats()["captures"] == 1


def test_a_counter_among_the_buffers(backend):
    """The position may be state, counted up by the function itself."""
    model, count = network(WRITES["x[:, :, number] = y"]), tg.tensor(0)

    def step(token):
        found = model(token, count).argmax(-1, keepdim=True)
        count.add_(1)
        return found

    compiled = tg.compile(step)
    with tg.no_grad():
        expected = whole(model)
        tokens = [tg.tensor([[1], [2]])]
        for _ in range(LENGTH - 1):
            tokens.append(compiled(tokens[-1]))
    assert tg.cat(tokens, 1).tolist() == expected
    assert compiled.stats()["captures"] == 1 and count.item() == LENGTH - 1


def sliced(x, position):
    x[position : position + 1] = 1.0


def added(x, position):
    x[position].add_(1)


def seen(x, position):
    row = x[position]
    x.mul_(2)
    return row + 1


# (what Python can't do in a program, what the error says)
REFUSED = [
    (sliced, "let it stay a tensor"),
    (lambda x, position: x.narrow(0, position, 1).zero_(), "let it stay a tensor"),
    (lambda x, position: x[position.item()] + 1, "let it stay a tensor"),
    (lambda x, position: x[: int(position)].sum(), "let it stay a tensor"),
    (added, r"x\[position\] = value"),
    (seen, "pick it again"),
    (lambda x, position: x[position], "clone"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_a_program_could_not_follow_is_refused(backend, case):
    function, words = REFUSED[case]
    with tg.no_grad(), pytest.raises(CompileError, match=words):
        tg.compile(function)(tg.arange(12.0).reshape(4, 3), tg.tensor(2))


# keys with a position among them: the shape that eager gives
KEYS = [
    lambda x, p, many: x[p] + 0,
    lambda x, p, many: x[:, p] + 0,
    lambda x, p, many: x[p, :, p] + 0,
    lambda x, p, many: x[..., p, None] + 0,
    lambda x, p, many: x[p, many] + 0,
    lambda x, p, many: x[many, :, p] + 0,
    lambda x, p, many: x[many, p, :, many] + 0,
    lambda x, p, many: x[-p] + 0,
    lambda x, p, many: x[0, p.to(tg.int32)] + 0,
]


@pytest.mark.parametrize("case", range(len(KEYS)))
def test_positions_in_keys(backend, case):
    x, many = tg.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6), tg.tensor([2, 0, 1])
    function = KEYS[case]
    compiled = tg.compile(function)
    for position in (1, 0, 2):
        given = x, tg.tensor(position), many
        theirs, ours = function(*given), compiled(*given)
        assert theirs.shape == ours.shape and theirs.tolist() == ours.tolist()
    assert compiled.stats()["captures"] == 1


def test_positions_out_of_bounds_are_refused_in_replays(backend):
    compiled = tg.compile(lambda x, position: x[position] + 1)
    x = tg.arange(4.0)
    assert compiled(x, tg.tensor(3)).item() == 4.0
    with pytest.raises(IndexError):
        compiled(x, tg.tensor(4))
    assert compiled(x, tg.tensor(1)).item() == 2.0


def test_numbers_that_python_reads_of_state_are_looked_at_in_each_call(backend):
    scale = tg.tensor(3.0)
    compiled = tg.compile(lambda x: x * scale.item())
    assert compiled(tg.ones(2)).tolist() == [3.0, 3.0]
    assert compiled(tg.ones(2)).tolist() == [3.0, 3.0] and compiled.stats()["replays"] == 1
    scale.numpy()[...] = 4.0
    assert compiled(tg.ones(2)).tolist() == [4.0, 4.0]

    def counted(x):
        scale.add_(1)
        return x * scale.item()

    with pytest.raises(CompileError, match="changes"):
        tg.compile(counted)(tg.ones(2))
    table = tg.ones(100)
    with pytest.raises(CompileError, match="find changed"):
        tg.compile(lambda x: x * table.tolist()[0])(tg.ones(2))


def test_an_average_of_all_batches(backend):
    """Batch norm without a momentum counts batches: no number of it is read."""
    tg.manual_seed(0)
    ours, theirs = nn.BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3, momentum=None)
    compiled = tg.compile(ours)
    for _ in range(4):
        x = tg.randn(5, 3)
        assert compiled(x).tolist() == theirs(x).tolist()
    assert ours.running_var.tolist() == theirs.running_var.tolist() and compiled.stats()["captures"] == 1
