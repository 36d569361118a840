"""Workloads that nobody tuned for: other widths and batches of the eight, and the other kinds of networks people train.

They keep the eight honest: what helps only those does not help here. Same style as ``workloads.py``: one text that runs
on ``torch`` and on ``tensorgrad``, code as tutorials of these networks write it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import data
from benchmarks.workloads import Job, gpt, on


def _layers(ns: Any, *widths: int, activation: str = "ReLU") -> Any:
    """Linear layers of these widths with the activation between them."""
    nn, layers = ns.nn, []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), getattr(nn, activation)()]
    return nn.Sequential(*layers[:-1])


def mlp_small(ns: Any) -> Job:
    """MLP 64-128-128-1, batch 32, Adam: half overhead, half arithmetic."""
    model = _layers(ns, 64, 128, 128, 1)
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    return Job(model, optimizer, lambda x, y: ns.nn.functional.mse_loss(model(x), y), on(ns, data.regression(32, 64)))


def mlp_wide(ns: Any) -> Job:
    """MLP 784-2048-2048-10, batch 256, SGD: large matrix products."""
    model = _layers(ns, 784, 2048, 2048, 10)
    optimizer = ns.optim.SGD(model.parameters(), lr=0.01)
    batches = on(ns, data.rows(256, 784, 10))
    return Job(model, optimizer, lambda x, y: ns.nn.functional.cross_entropy(model(x), y), batches)


def mlp_deep(ns: Any) -> Job:
    """Tabular MLP of 6 blocks linear-batch norm-SiLU-dropout, width 256, batch 512, AdamW."""
    nn, blocks, inputs = ns.nn, [], 100
    for _ in range(6):
        blocks += [nn.Linear(inputs, 256), nn.BatchNorm1d(256), nn.SiLU(), nn.Dropout(0.1)]
        inputs = 256
    model = nn.Sequential(*blocks, nn.Linear(256, 10))
    optimizer = ns.optim.AdamW(model.parameters(), lr=1e-3)
    batches = on(ns, data.rows(512, 100, 10))
    return Job(model, optimizer, lambda x, y: nn.functional.cross_entropy(model(x), y), batches)


def logistic(ns: Any) -> Job:
    """Multinomial logistic regression 784-10, batch 64, SGD."""
    model = ns.nn.Linear(784, 10)
    optimizer = ns.optim.SGD(model.parameters(), lr=0.1)
    batches = on(ns, data.rows(64, 784, 10))
    return Job(model, optimizer, lambda x, y: ns.nn.functional.cross_entropy(model(x), y), batches)


def autoencoder(ns: Any) -> Job:
    """Autoencoder 784-256-64-16-64-256-784, batch 128, Adam, squared error."""
    model = _layers(ns, 784, 256, 64, 16, 64, 256, 784)
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    batches = [batch[:1] for batch in on(ns, data.rows(128, 784, 10))]
    return Job(model, optimizer, lambda x: ns.nn.functional.mse_loss(model(x), x), batches)


def vae(ns: Any) -> Job:
    """Variational autoencoder 784-400-20, batch 128, Adam, binary cross-entropy and divergence."""
    nn, F = ns.nn, ns.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.mean, self.log_variance = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
            self.up, self.out = nn.Linear(20, 400), nn.Linear(400, 784)
            self.draw = ns.randn_like

        def forward(self, x: Any) -> Any:
            hidden = F.relu(self.hidden(x))
            mean, log_variance = self.mean(hidden), self.log_variance(hidden)
            deviation = ns.exp(0.5 * log_variance)
            z = mean + self.draw(deviation) * deviation
            return ns.sigmoid(self.out(F.relu(self.up(z)))), mean, log_variance

    def loss(x: Any) -> Any:
        seen, mean, log_variance = model(x)
        divergence = -0.5 * ns.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return F.binary_cross_entropy(seen, x, reduction="sum") + divergence

    model = Model()
    batches = [(ns.sigmoid(x),) for x, _ in on(ns, data.rows(128, 784, 10))]
    return Job(model, ns.optim.Adam(model.parameters(), lr=1e-3), loss, batches)


def vae_conv(ns: Any) -> Job:
    """The same with strided and transposed convolutions on 3x32x32, 64 latent numbers, batch 32."""
    nn, F = ns.nn, ns.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Sequential(
                nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2, padding=1),
                nn.ReLU(), nn.Flatten(), nn.Linear(64 * 8 * 8, 128),
            )  # fmt: skip
            self.decode = nn.Sequential(
                nn.Linear(64, 64 * 8 * 8), nn.ReLU(), nn.Unflatten(1, (64, 8, 8)),
                nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.ReLU(),
                nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1), nn.Sigmoid(),
            )  # fmt: skip
            self.draw = ns.randn_like

        def forward(self, x: Any) -> Any:
            mean, log_variance = self.encode(x).chunk(2, dim=1)
            deviation = ns.exp(0.5 * log_variance)
            return self.decode(mean + self.draw(deviation) * deviation), mean, log_variance

    def loss(x: Any) -> Any:
        seen, mean, log_variance = model(x)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1).mean()
        return F.mse_loss(seen, x, reduction="sum") / len(x) + divergence

    model = Model()
    batches = [(ns.sigmoid(x),) for x, _ in on(ns, data.images(32, 3, 32))]
    return Job(model, ns.optim.Adam(model.parameters(), lr=1e-3), loss, batches)


def cnn_wide(ns: Any) -> Job:
    """Three stages of two convolutions (64, 128, 256) on 3x32x32, as VGG, batch 16, SGD with momentum, dropout."""
    nn, layers, inputs = ns.nn, [], 3
    for outputs in (64, 128, 256):
        for _ in range(2):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(256 * 4 * 4, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10)
    )
    optimizer = ns.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    batches = on(ns, data.images(16, 3, 32))
    return Job(model, optimizer, lambda x, y: nn.functional.cross_entropy(model(x), y), batches)


def lenet(ns: Any) -> Job:
    """LeNet-5 on 1x28x28: 5x5 convolutions, tanh, average pool, batch 64, SGD with momentum."""
    nn = ns.nn
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
    optimizer = ns.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = on(ns, data.images(64, 1, 28))
    return Job(model, optimizer, lambda x, y: nn.functional.cross_entropy(model(x), y), batches)


def bottleneck(ns: Any) -> Job:
    """ResNet of bottlenecks (1x1, 3x3, 1x1), as ResNet-50, two per stage on 3x32x32, batch 8, SGD with momentum."""
    nn, F = ns.nn, ns.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != 4 * width:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * width)
                )

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)))
            y = F.relu(self.bn2(self.conv2(y)))
            return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))

    blocks, inputs = [], 64
    for width, stride in ((64, 1), (128, 2), (256, 2)):
        blocks += [Block(inputs, width, stride), Block(4 * width, width, 1)]
        inputs = 4 * width
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10),
    )  # fmt: skip
    optimizer = ns.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    return Job(model, optimizer, lambda x, y: F.cross_entropy(model(x), y), on(ns, data.images(8, 3, 32)))


def mobilenet(ns: Any) -> Job:
    """MobileNetV2's inverted residuals (1x1, depthwise 3x3, 1x1, ReLU6) on 3x32x32, batch 16, SGD with momentum."""
    nn = ns.nn

    def norm_conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
            super().__init__()
            hidden = inputs * expand
            self.residual = stride == 1 and inputs == outputs
            self.body = nn.Sequential(
                *norm_conv(inputs, hidden, 1), nn.ReLU6(inplace=True),
                *norm_conv(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True),
                *norm_conv(hidden, outputs, 1),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.residual else self.body(x)

    blocks, inputs = [], 32
    for outputs, count, stride, expand in ((16, 1, 1, 1), (24, 2, 1, 6), (32, 2, 2, 6), (64, 2, 2, 6), (96, 2, 1, 6)):
        for i in range(count):
            blocks.append(Block(inputs, outputs, stride if i == 0 else 1, expand))
            inputs = outputs
    model = nn.Sequential(
        *norm_conv(3, 32, 3), nn.ReLU6(inplace=True), *blocks, *norm_conv(inputs, 256, 1), nn.ReLU6(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = ns.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)
    batches = on(ns, data.images(16, 3, 32))
    return Job(model, optimizer, lambda x, y: nn.functional.cross_entropy(model(x), y), batches)


def convnext(ns: Any) -> Job:
    """ConvNeXt blocks (depthwise 7x7, layer norm over channels, GELU, scale) of width 96 on 16x16, batch 8, AdamW."""
    nn, F = ns.nn, ns.nn.functional

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.scale = nn.Parameter(ns.ones(width))

        def forward(self, x: Any) -> Any:
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            y = self.scale * self.down(F.gelu(self.up(y)))
            return x + y.permute(0, 3, 1, 2)

    model = nn.Sequential(
        nn.Conv2d(3, 96, 2, stride=2), *(Block(96) for _ in range(3)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(96), nn.Linear(96, 10),
    )  # fmt: skip
    optimizer = ns.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    return Job(model, optimizer, lambda x, y: F.cross_entropy(model(x), y), on(ns, data.images(8, 3, 32)))


def unet(ns: Any) -> Job:
    """U-Net of widths 16, 32, 64 on 3x64x64, batch 4, Adam: pool, transposed convolution, concatenation."""
    nn, F = ns.nn, ns.nn.functional

    def double(inputs: int, outputs: int) -> Any:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        )  # fmt: skip

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.bottom = double(3, 16), double(16, 32), double(32, 64)
            self.up2, self.join2 = nn.ConvTranspose2d(64, 32, 2, stride=2), double(64, 32)
            self.up1, self.join1 = nn.Upsample(scale_factor=2, mode="nearest"), double(48, 16)
            self.head = nn.Conv2d(16, 1, 1)

        def forward(self, x: Any) -> Any:
            a = self.down1(x)
            b = self.down2(F.max_pool2d(a, 2))
            c = self.bottom(F.max_pool2d(b, 2))
            b = self.join2(ns.cat([b, self.up2(c)], dim=1))
            a = self.join1(ns.cat([a, self.up1(b)], dim=1))
            return self.head(a)

    model = Model()
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    batches = [(x, (x.mean(dim=1, keepdim=True) > 0).float()) for x, _ in on(ns, data.images(4, 3, 64))]
    return Job(model, optimizer, lambda x, y: F.binary_cross_entropy_with_logits(model(x), y), batches)


@dataclass
class AdversarialJob(Job):
    """``model`` holds ``generator`` and ``discriminator``; ``optimizer`` is the generator's."""

    discriminator_optimizer: Any = None
    labels: Any = None  # ones for real, zeros for fake

    def _train(self, real: Any, noise: Any) -> Any:
        generator, discriminator = self.model["generator"], self.model["discriminator"]
        ones, zeros = self.labels(real)
        fake = generator(noise)
        self.discriminator_optimizer.zero_grad()
        judged = self.loss(discriminator(real), ones) + self.loss(discriminator(fake.detach()), zeros)
        judged.backward()
        self.discriminator_optimizer.step()
        self.optimizer.zero_grad()
        fooled = self.loss(discriminator(fake), ones)
        fooled.backward()
        self.optimizer.step()
        return judged + fooled


def dcgan(ns: Any) -> Job:
    """DCGAN on 3x32x32, 64 channels, 100 noise numbers, batch 32: one step of each of the two Adams."""
    nn = ns.nn
    generator = nn.Sequential(
        nn.ConvTranspose2d(100, 256, 4, bias=False), nn.BatchNorm2d(256), nn.ReLU(True),
        nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(True),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(True),
        nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(128, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(256, 1, 4, bias=False), nn.Flatten(0),
    )  # fmt: skip
    adams = [ns.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (generator, discriminator)]
    model = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    noises = on(ns, data.rows(32, 100, 10))
    batches = [
        (ns.tanh(x), z.reshape(32, 100, 1, 1))
        for (x, _), (z, _) in zip(on(ns, data.images(32, 3, 32)), noises, strict=True)
    ]

    def labels(real: Any) -> Any:
        return ns.ones(len(real), dtype=real.dtype), ns.zeros(len(real), dtype=real.dtype)

    loss = nn.BCEWithLogitsLoss()
    return AdversarialJob(model, adams[0], loss, batches, discriminator_optimizer=adams[1], labels=labels)


def vit(ns: Any) -> Job:
    """Vision transformer: patches 4x4 of 3x32x32, width 192, 6 layers, 3 heads, class token, batch 16, AdamW."""
    nn, F = ns.nn, ns.nn.functional
    width, heads = 192, 3

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            y = self.norm1(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(self.norm2(x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 4, stride=4)
            self.token, self.places = nn.Parameter(ns.zeros(1, 1, width)), nn.Parameter(ns.zeros(1, 65, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(6)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = ns.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
            return self.head(self.norm(self.blocks(x))[:, 0])

    model = Model()
    optimizer = ns.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    return Job(model, optimizer, lambda x, y: F.cross_entropy(model(x), y), on(ns, data.images(16, 3, 32)))


def gpt_mid(ns: Any) -> Job:
    """The GPT of ``workloads.py`` with 4 layers, 8 heads, width 256, context 128, batch 8, vocabulary 1,000."""
    return gpt(ns, layers=4, heads=8, width=256, context=128, batch=8, vocabulary=1000)


def llama(ns: Any) -> Job:
    """Decoder with RMS norm, rotary places and SwiGLU written out; 4 layers, width 192, context 96, batch 8."""
    nn, F = ns.nn, ns.nn.functional
    width, heads, context, vocabulary = 192, 6, 96, 512
    half = width // heads // 2
    angles = ns.arange(context).float()[:, None] * (10000.0 ** (-ns.arange(half).float() / half))
    cosines, sines = ns.cos(angles), ns.sin(angles)

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(ns.ones(width))

        def forward(self, x: Any) -> Any:
            return x * ns.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight

    def rotate(x: Any) -> Any:
        a, b = x[..., :half], x[..., half:]
        c, s = cosines.to(x.dtype), sines.to(x.dtype)
        return ns.cat([a * c - b * s, a * s + b * c], dim=-1)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = Norm(), Norm()
            self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
            self.v, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
            self.gate, self.up = nn.Linear(width, 512, bias=False), nn.Linear(width, 512, bias=False)
            self.down = nn.Linear(512, width, bias=False)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            y = self.norm1(x)
            q, k, v = (f(y).view(n, t, heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
            mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
            x = x + self.o(mixed.transpose(1, 2).reshape(n, t, width))
            y = self.norm2(x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    model = nn.Sequential(
        nn.Embedding(vocabulary, width), *(Block() for _ in range(4)), Norm(), nn.Linear(width, vocabulary, bias=False)
    )
    optimizer = ns.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def loss(ids: Any, following: Any) -> Any:
        return F.cross_entropy(model(ids).view(-1, vocabulary), following.view(-1))

    return Job(model, optimizer, loss, on(ns, data.tokens(8, context, vocabulary)))


def seq2seq(ns: Any) -> Job:
    """nn.Transformer, 2 + 2 layers of width 128, 4 heads, 32 tokens to 32, batch 16, dropout 0.1, Adam."""
    nn, F = ns.nn, ns.nn.functional
    width, length, vocabulary = 128, 32, 500

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.target = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
            self.places = nn.Embedding(length, width)
            self.transformer = nn.Transformer(width, 4, 2, 2, 512, dropout=0.1, batch_first=True)
            self.head = nn.Linear(width, vocabulary)

        def forward(self, source: Any, target: Any) -> Any:
            place = self.places(places)
            scale = math.sqrt(width)
            y = self.transformer(
                self.source(source) * scale + place, self.target(target) * scale + place, tgt_mask=mask,
                tgt_is_causal=True,
            )  # fmt: skip
            return self.head(y)

    places = ns.arange(length)
    mask = ns.triu(ns.ones(length, length), diagonal=1) > 0
    model = Model()

    def loss(source: Any, target: Any, following: Any) -> Any:
        return F.cross_entropy(model(source, target).reshape(-1, vocabulary), following.reshape(-1))

    texts = on(ns, data.tokens(16, length, vocabulary))
    batches = [(ids.flip(1), ids, following) for ids, following in texts]
    return Job(model, ns.optim.Adam(model.parameters(), lr=1e-3), loss, batches)


def encoder(ns: Any) -> Job:
    """BERT-like classifier: nn.TransformerEncoder, 3 layers of width 128, 64 tokens with padding, batch 16, AdamW."""
    nn, F = ns.nn, ns.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(1000, 128, padding_idx=0), nn.Embedding(64, 128)
            layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, activation="gelu", batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
            self.head = nn.Linear(128, 10)

        def forward(self, ids: Any) -> Any:
            padding = ids == 0
            x = self.encoder(self.tokens(ids) + self.places(places), src_key_padding_mask=padding)
            kept = (~padding).unsqueeze(-1).to(x.dtype)
            return self.head((x * kept).sum(1) / kept.sum(1))

    places = ns.arange(64)
    model = Model()
    optimizer = ns.optim.AdamW(model.parameters(), lr=5e-4)
    return Job(model, optimizer, lambda x, y: F.cross_entropy(model(x), y), on(ns, data.texts(16, 64, 1000, 10)))


class _ClippedJob(Job):
    """Gradients are scaled down to a norm of one before the update."""

    clip: Any = None

    def _train(self, *batch: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss(*batch)
        loss.backward()
        self.clip(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss


def char_rnn(ns: Any) -> Job:
    """Character model: embedding 64, two LSTM layers of 256 over 64 steps, batch 32, Adam, clipped gradients."""
    nn, F = ns.nn, ns.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.characters, self.head = nn.Embedding(96, 64), nn.Linear(256, 96)
            self.lstm = nn.LSTM(64, 256, num_layers=2, batch_first=True)

        def forward(self, ids: Any) -> Any:
            return self.head(self.lstm(self.characters(ids))[0])

    model = Model()

    def loss(ids: Any, following: Any) -> Any:
        return F.cross_entropy(model(ids).reshape(-1, 96), following.reshape(-1))

    job = _ClippedJob(model, ns.optim.Adam(model.parameters(), lr=2e-3), loss, on(ns, data.tokens(32, 64, 96)))
    job.clip = nn.utils.clip_grad_norm_
    return job


def _sequence_to_one(ns: Any, kind: str, inputs: int, hidden: int, layers: int, steps: int, batch: int) -> Job:
    nn = ns.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(nn, kind)(inputs, hidden, num_layers=layers, batch_first=True)
            self.head = nn.Linear(hidden, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    model = Model()
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    batches = on(ns, data.sequences(batch, steps, inputs))
    return Job(model, optimizer, lambda x, y: nn.functional.mse_loss(model(x), y), batches)


def gru(ns: Any) -> Job:
    """Two GRU layers of 128 over 50 steps of 64 numbers, batch 32, Adam."""
    return _sequence_to_one(ns, "GRU", 64, 128, 2, 50, 32)


def rnn(ns: Any) -> Job:
    """One tanh RNN of 64 over 100 steps of 8 numbers, batch 16, Adam: many small steps."""
    return _sequence_to_one(ns, "RNN", 8, 64, 1, 100, 16)


def lstm_small(ns: Any) -> Job:
    """One LSTM of 64 over 30 steps of 16 numbers, batch 64, Adam."""
    return _sequence_to_one(ns, "LSTM", 16, 64, 1, 30, 64)


def bilstm(ns: Any) -> Job:
    """Text classifier: embedding 128, two bidirectional LSTM layers of 128 over 64 tokens, batch 32, Adam."""
    nn, F = ns.nn, ns.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(5000, 128, padding_idx=0)
            self.lstm = nn.LSTM(128, 128, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
            self.head = nn.Linear(256, 10)

        def forward(self, ids: Any) -> Any:
            _, (h, _) = self.lstm(self.tokens(ids))
            return self.head(ns.cat([h[-2], h[-1]], dim=1))

    model = Model()
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    return Job(model, optimizer, lambda x, y: F.cross_entropy(model(x), y), on(ns, data.texts(32, 64, 5000, 10)))


def seq2seq_gru(ns: Any) -> Job:
    """Encoder-decoder of GRU cells with attention, the decoder a Python loop over 12 steps; width 128, batch 32."""
    nn, F = ns.nn, ns.nn.functional
    width, vocabulary, length = 128, 200, 12

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.target = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
            self.encoder = nn.GRU(width, width, batch_first=True)
            self.cell, self.query = nn.GRUCell(2 * width, width), nn.Linear(width, width)
            self.head = nn.Linear(width, vocabulary)

        def forward(self, source: Any, target: Any) -> Any:
            seen, state = self.encoder(self.source(source))
            state, words, out = state[0], self.target(target), []
            for t in range(target.shape[1]):
                weights = F.softmax(ns.bmm(seen, self.query(state).unsqueeze(2)).squeeze(2), dim=1)
                found = ns.bmm(weights.unsqueeze(1), seen).squeeze(1)
                state = self.cell(ns.cat([words[:, t], found], dim=1), state)
                out.append(self.head(state))
            return ns.stack(out, dim=1)

    model = Model()

    def loss(source: Any, target: Any, following: Any) -> Any:
        return F.cross_entropy(model(source, target).reshape(-1, vocabulary), following.reshape(-1))

    batches = [(ids.flip(1), ids, following) for ids, following in on(ns, data.tokens(32, length, vocabulary))]
    return Job(model, ns.optim.Adam(model.parameters(), lr=1e-3), loss, batches)


def dlrm(ns: Any) -> Job:
    """Click model: 13 numbers through an MLP, 8 tables of 10,000 x 16, dot products of pairs, batch 256, SGD."""
    return _clicks(ns, bags=False)


def dlrm_bags(ns: Any) -> Job:
    """The same with bags of 5 ids (``nn.EmbeddingBag``, sums), Adagrad."""
    return _clicks(ns, bags=True)


def _clicks(ns: Any, *, bags: bool) -> Job:
    nn, F = ns.nn, ns.nn.functional
    tables, rows, width = 8, 10_000, 16

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bottom = nn.Sequential(*_layers(ns, 13, 64, width), nn.ReLU())
            make = (lambda: nn.EmbeddingBag(rows, width, mode="sum")) if bags else (lambda: nn.Embedding(rows, width))
            self.tables = nn.ModuleList([make() for _ in range(tables)])
            self.top = _layers(ns, width + tables * (tables + 1) // 2, 64, 32, 1)

        def forward(self, numbers: Any, ids: Any) -> Any:
            x = self.bottom(numbers)
            found = [table(ids[:, i]) for i, table in enumerate(self.tables)]
            together = ns.stack([x, *found], dim=1)
            pairs = ns.bmm(together, together.transpose(1, 2))
            return self.top(ns.cat([x, pairs[:, first, second]], dim=1)).squeeze(1)

    first, second = ns.tril_indices(tables + 1, tables + 1, offset=-1)
    model = Model()
    kind = ns.optim.Adagrad if bags else ns.optim.SGD
    batches = on(ns, data.clicks(256, 13, tables, rows, 5 if bags else 0))
    return Job(
        model,
        kind(model.parameters(), lr=0.01),
        lambda numbers, ids, y: F.binary_cross_entropy_with_logits(model(numbers, ids), y),
        batches,
    )


def factors(ns: Any) -> Job:
    """Matrix factorization with biases: 5,000 users, 2,000 items, 32 factors, batch 1,024, Adam."""
    nn, F = ns.nn, ns.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(5000, 32), nn.Embedding(2000, 32)
            self.user_bias, self.item_bias = nn.Embedding(5000, 1), nn.Embedding(2000, 1)

        def forward(self, ids: Any) -> Any:
            user, item = ids[:, 0], ids[:, 1]
            dot = (self.users(user) * self.items(item)).sum(1)
            return dot + self.user_bias(user).squeeze(1) + self.item_bias(item).squeeze(1)

    model = Model()
    optimizer = ns.optim.Adam(model.parameters(), lr=1e-3)
    batches = [(ids, y) for _, ids, y in on(ns, data.clicks(1024, 1, 2, 2000, 0))]
    return Job(model, optimizer, lambda ids, y: F.mse_loss(model(ids), y), batches)


def pinn(ns: Any) -> Job:
    """Network for Burgers' equation, 2-32-32-32-1 with tanh at 1,000 points: derivatives of derivatives, Adam."""
    model = _layers(ns, 2, 32, 32, 32, 1, activation="Tanh")
    grad = ns.autograd.grad

    def loss(points: Any) -> Any:
        x, t = (points[:, i : i + 1].requires_grad_() for i in (0, 1))
        u = model(ns.cat([x, t], dim=1))
        u_x, u_t = grad(u.sum(), (x, t), create_graph=True)
        (u_xx,) = grad(u_x.sum(), x, create_graph=True)
        start = model(ns.cat([x, ns.zeros_like(t)], dim=1)) + ns.sin(math.pi * x)
        return ((u_t + u * u_x - 0.01 / math.pi * u_xx) ** 2).mean() + (start**2).mean()

    batches = [batch[:1] for batch in on(ns, data.rows(1000, 2, 10))]
    return Job(model, ns.optim.Adam(model.parameters(), lr=1e-3), loss, batches)


def graph(ns: Any) -> Job:
    """Two graph convolutions by index_add over 5,000 nodes and 40,000 edges, 64 features, Adam."""
    nn, F = ns.nn, ns.nn.functional

    class Convolution(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.own, self.others = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)

        def forward(self, x: Any, source: Any, target: Any) -> Any:
            y = self.others(x)
            total = ns.zeros_like(y).index_add(0, target, y[source])
            count = ns.zeros(len(x), dtype=x.dtype).index_add(0, target, ns.ones(len(source), dtype=x.dtype))
            return self.own(x) + total / count.clamp(min=1).unsqueeze(1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Convolution(64, 64), Convolution(64, 10)

        def forward(self, x: Any, source: Any, target: Any) -> Any:
            return self.second(F.relu(self.first(x, source, target)), source, target)

    model = Model()
    optimizer = ns.optim.Adam(model.parameters(), lr=0.01)
    batches = on(ns, data.graphs(5000, 40_000, 64, 10))
    return Job(model, optimizer, lambda x, a, b, y: F.cross_entropy(model(x, a, b), y), batches)


def policy(ns: Any) -> Job:
    """Actor-critic loss over 256 states: shared MLP, log-probabilities gathered, entropy, value error, Adam."""
    nn, F = ns.nn, ns.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*_layers(ns, 17, 64, 64, activation="Tanh"), nn.Tanh())
            self.actor, self.critic = nn.Linear(64, 10), nn.Linear(64, 1)

        def forward(self, x: Any) -> Any:
            hidden = self.body(x)
            return self.actor(hidden), self.critic(hidden).squeeze(-1)

    model = Model()

    def loss(x: Any, action: Any) -> Any:
        logits, value = model(x)
        log_p = F.log_softmax(logits, dim=-1)
        reward = x.sum(dim=1)
        advantage = (reward - value).detach()
        chosen = log_p.gather(1, action.unsqueeze(1)).squeeze(1)
        entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
        return -(advantage * chosen).mean() + 0.5 * F.smooth_l1_loss(value, reward) - 0.01 * entropy

    return Job(model, ns.optim.Adam(model.parameters(), lr=3e-4), loss, on(ns, data.rows(256, 17, 10)))


def swish_chain(ns: Any) -> Job:
    """Softplus, swish and a normalization written out on 1 M parameters, SGD with momentum."""
    nn = ns.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(ns.zeros(1 << 20))

        def forward(self) -> Any:
            x = self.x
            y = x * ns.sigmoid(x) + 0.1 * ns.log(1 + ns.exp(-x.abs()))
            return ((y - y.mean()) / (y.std() + 1e-5)).abs().mean()

    model = Model()
    return Job(model, ns.optim.SGD(model.parameters(), lr=10.0, momentum=0.9), model, [()])


MORE: dict[str, Callable[[Any], Job]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        mlp_small, mlp_wide, mlp_deep, logistic, autoencoder, vae, vae_conv, cnn_wide, lenet, bottleneck, mobilenet,
        convnext, unet, dcgan, vit, gpt_mid, llama, seq2seq, encoder, char_rnn, gru, rnn, lstm_small, bilstm,
        seq2seq_gru, dlrm, dlrm_bags, factors, pinn, graph, policy, swish_chain,
    )
}  # fmt: skip
