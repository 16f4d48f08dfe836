"""A small random model whose attention is far from uniform, so that reducers have something to decide."""

import torch

from lightning_expedite.models import Architecture, Segmenter

SMALL = {
    "image_size": (64, 64),
    "patch_size": 8,
    "width": 32,
    "depth": 4,
    "heads": 2,
    "num_classes": 5,
    "decoder_heads": 2,
}


def tiny_model(reducer=None, convention="mmseg", seed=0, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Segmenter(Architecture(**{**SMALL, **sizes}), convention, reducer)
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.05)
    return model.eval()


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(one, other, tolerance=1e-5):
    """Relative error by the 2-norm."""
    return one.shape == other.shape and (one - other).norm() <= tolerance * other.norm()
