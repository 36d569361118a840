"""A BERT-type encoder whose parameters have the names of the published weights, and sentence vectors from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import TensorgradError, require_extra
from tensorgrad.io import safetensors
from tensorgrad.nn import functional as F

__all__ = ["Bert", "SentenceEncoder"]


class Embeddings(nn.Module):
    """Word, position and segment vectors, added and normalized: (n, t) numbers of tokens to (n, t, width)."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, positions = config["hidden_size"], config["max_position_embeddings"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width, padding_idx=config["pad_token_id"])
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        self.register_buffer("position_ids", tg.arange(positions).unsqueeze(0))

    def forward(self, tokens: Any) -> Any:
        places = self.position_ids[:, : tokens.shape[1]]
        first = tg.zeros_like(tokens)  # there is one segment
        x = self.word_embeddings(tokens) + self.token_type_embeddings(first) + self.position_embeddings(places)
        return self.dropout(self.LayerNorm(x))


class SelfAttention(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width = config["hidden_size"]
        self.heads, self.rate = config["num_attention_heads"], config["attention_probs_dropout_prob"]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Any, mask: Any) -> Any:
        n, t, width = x.shape
        q, k, v = (
            layer(x).reshape(n, t, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.rate if self.training else 0.0)
        return out.transpose(1, 2).reshape(n, t, width)


class Output(nn.Module):
    """Back to the width of the stream, added to it and normalized."""

    def __init__(self, inner: int, config: dict[str, Any]):
        super().__init__()
        self.dense = nn.Linear(inner, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])

    def forward(self, x: Any, stream: Any) -> Any:
        return self.LayerNorm(stream + self.dropout(self.dense(x)))


class Attention(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config["hidden_size"], config)

    def forward(self, x: Any, mask: Any) -> Any:
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.dense = nn.Linear(config["hidden_size"], config["intermediate_size"])

    def forward(self, x: Any) -> Any:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config["intermediate_size"], config)

    def forward(self, x: Any, mask: Any) -> Any:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.layer = nn.ModuleList([Layer(config) for _ in range(config["num_hidden_layers"])])


class Pooler(nn.Module):
    """A summary of the first token. The published weights have it; sentence vectors are means instead."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.dense = nn.Linear(config["hidden_size"], config["hidden_size"])

    def forward(self, x: Any) -> Any:
        return self.dense(x[:, 0]).tanh()


class Bert(nn.Module):
    """The encoder of Devlin et al. 2018, made from the ``config.json`` that comes with its weights.

    Raises: TensorgradError for a configuration of another kind of network.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        for name, known in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if config.get(name, known) != known:
                raise TensorgradError(f"this encoder knows {name} {known!r}, the configuration has {config[name]!r}.")
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)

    def forward(self, tokens: Any, present: Any) -> Any:
        """(n, t, width) from numbers of tokens (n, t); ``present`` (n, t) is False where a sequence is padded."""
        x = self.embeddings(tokens)
        mask = present[:, None, None, :]
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return x


class SentenceEncoder:
    """Sentences to vectors of length one, with the weights and the tokenizer of a folder.

    Args:
        folder: holds ``config.json``, ``model.safetensors`` and ``tokenizer.json``.
        device: where it computes.
        length: sentences are cut to this many tokens.
    Source: Reimers and Gurevych 2019: the mean over the tokens' vectors.
    """

    def __init__(self, folder: Path, device: Any = "cpu", length: int = 256):
        self.device = device
        self.model = Bert(json.loads((folder / "config.json").read_text())).eval()
        safetensors.load_model(self.model, folder / "model.safetensors")
        self.model.to(device)
        self.tokenizer = require_extra("tokenizers", "embeddings").Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(length)
        self.tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")

    def tokens(self, sentences: list[str]) -> tuple[Any, Any]:
        """(numbers of tokens, which of them are no padding), both (n, t)."""
        found = self.tokenizer.encode_batch(sentences)
        numbers = tg.tensor([one.ids for one in found], device=self.device)
        return numbers, tg.tensor([one.attention_mask for one in found], device=self.device).bool()

    def __call__(self, sentences: list[str]) -> Any:
        """(n, width), each row of length one: cosines of angles are products."""
        with tg.no_grad():
            numbers, present = self.tokens(sentences)
            weights = present.unsqueeze(-1).float()
            total = (self.model(numbers, present) * weights).sum(1)
            return F.normalize(total / weights.sum(1), dim=1)
