"""Segmenter: a timm ViT, a decoder, and an optional token reducer between and around them."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...protocol import Protocol
from ...reducers.base import EncoderShape, Reducer, Reduction, TokenLayout
from ...reducers.grouping import GroupRecorder
from ...regions import region
from .architecture import CONVENTIONS, Architecture, ConventionName
from .decoders import DECODERS

if TYPE_CHECKING:
    from .pretrained import ReducerChoice


class Segmentation(NamedTuple):
    """Logits of one forward pass at patch resolution, and how the tokens were reduced on the way."""

    logits: Tensor  # (B, K, rows, columns)
    reduction: Reduction


class Segmenter(nn.Module):
    """Segmenter (Strudel et al. 2021) with an optional token reducer.

    Args:
        architecture: Sizes of the model.
        convention: ``"official"`` or ``"mmseg"``; see `Convention`.
        reducer: Token reducer, or ``None`` to run all tokens through all layers.

    Attributes:
        protocol: How the weights are to be evaluated, as far as their checkpoint says.
        data_set: Name of the data set they were trained on, where the checkpoint says so.
        classes: Names of the logits in their order, where they are stored with the weights.

    Raises:
        ReducerError: The reducer cannot apply to this architecture.
    """

    def __init__(
        self,
        architecture: Architecture,
        convention: ConventionName = "mmseg",
        reducer: Reducer | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.convention = CONVENTIONS[convention]
        self.encoder = VisionTransformer(
            img_size=architecture.image_size,
            patch_size=architecture.patch_size,
            num_classes=0,
            global_pool="token" if architecture.class_token else "",
            embed_dim=architecture.width,
            depth=architecture.depth,
            num_heads=architecture.heads,
            mlp_ratio=architecture.mlp_ratio,
            class_token=architecture.class_token,
            reg_tokens=int(architecture.distilled),  # timm has no other name for a second learnt token
            dynamic_img_size=True,
            norm_layer=partial(nn.LayerNorm, eps=self.convention.encoder_norm_eps),
        )
        self.decoder = DECODERS[architecture.decoder](architecture)
        self.reducer = reducer
        self.protocol = Protocol()
        self.data_set: str | None = None
        self.classes: tuple[str, ...] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        reducer: "ReducerChoice" = "stored",
        convention: ConventionName | None = None,
        revision: str | None = None,
        weights_folder: str | Path | None = None,
        pack_weights: bool | None = None,
    ) -> "Segmenter":
        """Load a model from a folder or from the Hugging Face hub. No code of a repository is ever run.

        Args:
            name_or_folder: A folder or file as `load_segmenter` takes it, the name of known weights, or ``owner/name``
                of a model of the hub (``hf://owner/name@revision`` too).
            reducer: ``"stored"``: the one that was stored, if any; ``None``: none; a reducer; or a class of reducers
                that is not in this package, for the stored settings.
            convention: ``"official"`` or ``"mmseg"``; by default the stored one.
            revision: Branch, tag or commit of the hub's repository; the main branch by default.
            weights_folder: Folder of downloaded known weights; models of the hub are kept in the hub's own cache.
            pack_weights: Deprecated and ignored.

        Returns:
            The model in eval mode.

        Raises:
            CheckpointError: The model is missing, damaged, another library's, or cannot be fetched.
            ReducerError: The reducer cannot apply to this model.
        """
        from .pretrained import from_pretrained

        return from_pretrained(name_or_folder, reducer, convention, revision, weights_folder, pack_weights)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        classes: Sequence[str] | None = None,
        protocol: Protocol | None = None,
        dtype: torch.dtype | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Store the model: ``model.safetensors``, ``config.json`` and a model card, ``README.md``.

        Args:
            folder: Where to write; made where missing. A ``README.md`` that is there stays as it is.
            classes: Names of the classes in the order of the logits; by default those the model was loaded with.
            protocol: Evaluation settings to store; by default those the model was loaded with.
            dtype: Floating-point type of the stored weights; the model's own by default.
            overwrite: Whether a model that is there already is replaced.

        Returns:
            The folder.

        Raises:
            OutputError: There is a model already, or the folder cannot be written to.
            ReducerError: The reducer's settings cannot be stored as JSON.
            CheckpointError: There are not as many names as classes.
        """
        from .pretrained import save_pretrained

        return save_pretrained(self, folder, classes, protocol, dtype, overwrite)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        message: str = "Segmenter stored with lightning_expedite",
        classes: Sequence[str] | None = None,
        protocol: Protocol | None = None,
        dtype: torch.dtype | None = None,
    ) -> str:
        """Send what `save_pretrained` writes to a repository of the Hugging Face hub, which is made where missing.

        Args:
            repository: ``owner/name``.
            private: Whether a new repository is private; by default as the owner's settings say.
            revision: Branch to write to, made where missing; the main branch by default.
            message: Message of the commit.
            classes: See `save_pretrained`.
            protocol: See `save_pretrained`.
            dtype: See `save_pretrained`.

        Returns:
            Address of the commit.

        Raises:
            OutputError: The hub does not answer or refuses.
        """
        from .pretrained import push_to_hub

        return push_to_hub(self, repository, private, revision, message, classes, protocol, dtype)

    @property
    def reducer(self) -> Reducer | None:
        """The token reducer; assigning one checks that it can apply to this model."""
        return self._reducer

    @reducer.setter
    def reducer(self, reducer: Reducer | None) -> None:
        if reducer is not None:
            shape = self.architecture
            reducer.check(EncoderShape(shape.depth, shape.grid, shape.class_token))
        self._reducer = reducer

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.architecture.num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Segment normalised images.

        Args:
            images: ``(B, 3, H, W)``; any size, padded inside to whole patches.

        Returns:
            Logits ``(B, K, H, W)``.
        """
        height, width = images.shape[-2:]
        logits = F.interpolate(self.segment_patches(images).logits, self.upsampled_size(height, width), mode="bilinear")
        return logits[..., :height, :width]

    def segment_patches(self, images: Tensor, recorder: GroupRecorder | None = None) -> Segmentation:
        """Segment normalised images ``(B, 3, H, W)`` at the resolution of their patches.

        Args:
            images: The images.
            recorder: Gets told which patches share a token, where the reducer knows how to tell.
        """
        with region("embed"):
            tokens, grid = self.embed(images)
        layout = TokenLayout(*grid, prefix=self.architecture.prefix)
        reduction = self.reducer.start(layout) if self.reducer is not None else Reduction(layout)
        if recorder is not None:
            reduction.recorder = recorder
        tokens = reduction.prepare_tokens(tokens)
        for layer, block in enumerate(self.encoder.blocks, start=1):
            with region(f"block {layer}"):
                tokens = reduction.layer(layer, block, tokens)
        with region("restore tokens"):
            tokens = reduction.restore_tokens(self.encoder.norm(tokens))
        with region("decoder"):
            logits = self.decoder(tokens[:, layout.prefix :])
        with region("restore logits"):
            logits = reduction.restore_logits(logits)
        return Segmentation(logits.transpose(1, 2).unflatten(2, grid), reduction)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images into tokens.

        Args:
            images: ``(B, 3, H, W)``.

        Returns:
            Tokens ``(B, prefix + rows * columns, C)`` with position embeddings, and ``(rows, columns)``.
        """
        encoder = self.encoder
        # Channels last: the convolution then writes tokens, not planes to be transposed.
        images = self._pad(images).contiguous(memory_format=torch.channels_last)
        patches = encoder.patch_embed(images)  # (B, rows, columns, C)
        batch, rows, columns, _ = patches.shape
        tokens = patches.flatten(1, 2)
        for prefix in (encoder.reg_token, encoder.cls_token):
            if prefix is not None:
                tokens = torch.cat((prefix.expand(batch, -1, -1), tokens), dim=1)
        positions = resample_abs_pos_embed(
            encoder.pos_embed,
            new_size=[rows, columns],
            old_size=list(self.architecture.grid),
            num_prefix_tokens=self.architecture.prefix,
            interpolation=self.convention.position_interpolation,
            antialias=False,
        )
        return tokens + positions, (rows, columns)

    def upsampled_size(self, height: int, width: int) -> tuple[int, int]:
        """Size to which the logits of an image are interpolated, before they are cut to its own size."""
        if not self.convention.upsample_to_padded:
            return height, width
        patch = self.architecture.patch_size
        return -(-height // patch) * patch, -(-width // patch) * patch

    def _pad(self, images: Tensor) -> Tensor:
        patch = self.architecture.patch_size
        height, width = images.shape[-2:]
        return F.pad(images, (0, -width % patch, 0, -height % patch))


def with_reducer(model: Segmenter, reducer: Reducer | None) -> Segmenter:
    """Give a new model with another reducer, on the same weights; the given one stays as it is.

    Args:
        model: Any Segmenter.
        reducer: Token reducer, or ``None`` to run all tokens through all layers.

    Raises:
        ReducerError: The reducer cannot apply to this model.
    """
    other = copy.copy(model)
    other.reducer = reducer
    return other
