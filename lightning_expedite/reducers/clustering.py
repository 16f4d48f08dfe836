"""Token clustering and reconstruction (Liang et al. 2022, "Expediting Large-Scale Vision Transformer ...")."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ReducerError
from .base import EncoderShape, Reducer, Reduction, TokenLayout
from .checks import check_location, check_positive, grid_of
from .distances import (
    in_float32,
    rebuild,
    reconstruction_multiply_adds,
    reconstruction_weights,
    squared_distances,
)


class TokenClustering(Reducer):
    """Cluster the patch tokens after one layer and rebuild the logits of all patches after the decoder.

    The class token and a distillation token stay as they are; the remaining layers and the decoder run on
    the clusters (Liang et al. 2022, sections 3.2 and 3.3). Where an image has fewer tokens per side than
    ``clusters``, the cluster grid is cut to the token grid.

    Args:
        location: Layer (from 1) after which the tokens are clustered.
        clusters: Rows and columns of the cluster grid; one number stands for both.
        window_size: A token may join the clusters at most ``window_size // 2`` rows and columns from home.
        iterations: Rounds of assignment and update.
        temperature: Factor of the squared distance in the assignment's softmax.
        neighbours: Clusters that take part in rebuilding a token's logits.
        reconstruction_temperature: Factor of the squared distance in the reconstruction's weights.

    Raises:
        ReducerError: A setting is out of its range.
    """

    def __init__(
        self,
        location: int,
        clusters: tuple[int, int] | int,
        window_size: int = 5,
        iterations: int = 5,
        temperature: float = 0.02,
        neighbours: int = 20,
        reconstruction_temperature: float = 0.02,
    ) -> None:
        self.location = location
        self.clusters = grid_of("clusters", clusters)
        self.window_size = check_positive("window_size", window_size)
        self.iterations = check_positive("iterations", iterations)
        self.temperature = check_positive("temperature", temperature)
        self.neighbours = check_positive("neighbours", neighbours)
        self.reconstruction_temperature = check_positive("reconstruction_temperature", reconstruction_temperature)

    def check(self, encoder: EncoderShape) -> None:
        """Raise `ReducerError` for a location beyond the depth or more clusters than tokens on a side."""
        check_location(self.location, encoder.depth)
        if any(clusters > tokens for clusters, tokens in zip(self.clusters, encoder.grid, strict=True)):
            raise ReducerError(
                f"clusters={self.clusters} is more than the model's own token grid of {encoder.grid}; "
                "choose at most as many clusters per side as there are tokens"
            )

    def start(self, layout: TokenLayout) -> "ClusterReduction":
        """Begin one forward pass."""
        return ClusterReduction(self, layout)


class ClusterReduction(Reduction):
    """One forward pass of `TokenClustering`; keeps the tokens before and after clustering."""

    def __init__(self, settings: TokenClustering, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.settings = settings
        self.grid = (min(settings.clusters[0], layout.rows), min(settings.clusters[1], layout.columns))
        self.tokens: Tensor | None = None
        self.centroids: Tensor | None = None

    def layer(self, layer: int, block: nn.Module, tokens: Tensor) -> Tensor:
        """Run a block; cluster the patch tokens after the settings' location."""
        tokens = super().layer(layer, block, tokens)
        if layer != self.settings.location:
            return tokens
        prefix, self.tokens = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        token_grid = (self.layout.rows, self.layout.columns)
        self.centroids = cluster(self.tokens, token_grid, self.grid, self.settings)
        return torch.cat((prefix, self.centroids.to(tokens.dtype)), dim=1)

    def masks(self, logits: Tensor) -> Tensor:
        """Rebuild the logits of all patches from those of the clusters."""
        return rebuild(self.weights(), logits).to(logits.dtype)

    def weights(self) -> Tensor:
        """Share of every cluster in the logits of every patch, ``(B, rows * columns, clusters)``."""
        if self.tokens is None or self.centroids is None:
            raise RuntimeError("the tokens are not clustered yet")
        settings = self.settings
        return reconstruction_weights(
            self.tokens, self.centroids, settings.reconstruction_temperature, settings.neighbours
        )

    def multiply_adds(self, width: int) -> int:
        """Count clustering and reconstruction."""
        settings, tokens, clusters = self.settings, self.layout.patches, self.grid[0] * self.grid[1]
        window = min(settings.window_size**2, clusters)
        once = tokens * width + 2 * (tokens + clusters)
        round_ = 3 * tokens * width * window + 3 * tokens * window + clusters * width
        rebuilt = reconstruction_multiply_adds(tokens, clusters, settings.neighbours, width)
        return once + settings.iterations * round_ + rebuilt

    def nothing_reduced(self) -> bool:
        """Tell whether the cluster grid was cut to the token grid on both sides."""
        return self.grid == (self.layout.rows, self.layout.columns)


@in_float32
def cluster(
    tokens: Tensor, token_grid: tuple[int, int], cluster_grid: tuple[int, int], settings: TokenClustering
) -> Tensor:
    """Cluster tokens softly with a local neighbourhood (Liang et al. 2022, section 3.2).

    Args:
        tokens: ``(B, H * W, C)``.
        token_grid: ``(H, W)``.
        cluster_grid: ``(h, w)``.
        settings: The method's settings.

    Returns:
        Centroids ``(B, h * w, C)`` in float32 or wider.
    """
    image = tokens.transpose(1, 2).unflatten(2, token_grid)
    centroids = F.adaptive_avg_pool2d(image, cluster_grid).flatten(2).transpose(1, 2)
    far = outside_neighbourhood(token_grid, cluster_grid, settings.window_size, tokens.device)
    for _ in range(settings.iterations):
        logits = squared_distances(tokens, centroids).mul_(-settings.temperature)
        affinity = logits.masked_fill_(far, -torch.inf).softmax(dim=-1)
        mass = affinity.sum(dim=1).clamp_min(1e-16)[..., None]
        centroids = affinity.transpose(1, 2) @ tokens / mass
    return centroids


@lru_cache(maxsize=32)
def outside_neighbourhood(
    token_grid: tuple[int, int], cluster_grid: tuple[int, int], window_size: int, device: torch.device
) -> Tensor:
    """Tell which clusters a token may not join: boolean ``(H * W, h * w)``."""
    far = [
        (home_clusters(tokens, clusters)[:, None] - torch.arange(clusters)).abs() > window_size // 2
        for tokens, clusters in zip(token_grid, cluster_grid, strict=True)
    ]
    rows, columns = far
    return (rows[:, None, :, None] | columns[None, :, None, :]).flatten(2).flatten(0, 1).to(device)


def home_clusters(tokens: int, clusters: int) -> Tensor:
    """Give the home cluster of each token along one side: nearest-neighbour upsampling of the indices."""
    index = torch.arange(clusters, dtype=torch.float32)[None, None]
    return F.interpolate(index, tokens, mode="nearest")[0, 0].long()


def strongest_cluster(reduction: ClusterReduction) -> Tensor:
    """Index of the cluster that takes the largest part in each patch, ``(B, rows, columns)``."""
    return reduction.weights().argmax(-1).unflatten(1, (reduction.layout.rows, reduction.layout.columns))
