"""A stored model to change, and the way in which a damaged one must be refused."""

import pytest
import torch
from reference import DATA

from lightning_expedite import load
from lightning_expedite.errors import CheckpointError

OFFICIAL = DATA / "parity" / "official_mask"


def stored_state(folder=OFFICIAL):
    return torch.load(folder / "checkpoint.pth", weights_only=True)["model"]


def refused(path, *words):
    """Load what must be refused, with one line that names the file and holds these words."""
    with pytest.raises(CheckpointError) as raised:
        load(path)
    message = str(raised.value)
    for word in (str(path), *words):
        assert word in message
    return message


# What a checkpoint has to hold, and some of its keys from all parts of the model.
STATE = {key: value for key, value in stored_state().items() if not key.startswith("encoder.head")}
SOME_KEYS = (
    "encoder.pos_embed",
    "encoder.patch_embed.proj.weight",
    "encoder.blocks.3.mlp.fc2.bias",
    "decoder.cls_emb",
    "decoder.mask_norm.weight",
)


def changed(key, value):
    return {**STATE, key: value}
