"""Token clustering and reconstruction (Liang et al. 2022, "Expediting Large-Scale Vision Transformer ...")."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ReducerError
from ..regions import region
from .base import EncoderShape, Reducer, Reduction, TokenLayout
from .checks import check_location, check_positive, grid_of
from .distances import (
    in_float32,
    matmul_fp32,
    rebuild,
    reconstruction_multiply_adds,
    reconstruction_weights,
    squared_norms,
    to_matmul_dtype,
)
from .spaces import GridRange, IntRange, SearchRange

ROWS_OF_A_BAND = 4  # rows of clusters that a CPU handles at once; see docs/performance.md


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

    @classmethod
    def search_space(cls, encoder: EncoderShape) -> Mapping[str, SearchRange]:
        """Vary the layer, but the last, and the clusters, from a quarter of the token grid's sides on."""
        fewest = max(encoder.grid[0] // 4, 1)
        return {"location": IntRange(1, max(encoder.depth - 1, 1)), "clusters": GridRange(fewest, encoder.grid)}

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
        if self.recorder is not None:
            group = assignment(self.tokens, token_grid, self.grid, self.settings)
            count = self.layout.prefix + self.centroids.shape[1]
            self.recorder.add(self.layout, layer, group, count, lasts=True)
        return torch.cat((prefix, self.centroids), dim=1)

    def restore_logits(self, logits: Tensor) -> Tensor:
        """Rebuild the logits of all patches from those of the clusters."""
        with region("cluster: weights"):
            weights = self.weights()
        return rebuild(weights, logits).to(logits.dtype)

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

    def is_identity(self) -> bool:
        """Tell whether the cluster grid was cut to the token grid on both sides."""
        return self.grid == (self.layout.rows, self.layout.columns)


def cluster(
    tokens: Tensor,
    token_grid: tuple[int, int],
    cluster_grid: tuple[int, int],
    settings: TokenClustering,
    iterations: int | None = None,
) -> Tensor:
    """Cluster tokens softly with a local neighbourhood (Liang et al. 2022, section 3.2).

    Args:
        tokens: ``(B, H * W, C)``.
        token_grid: ``(H, W)``.
        cluster_grid: ``(h, w)``.
        settings: The method's settings.
        iterations: Rounds of assignment and update; by default those of the settings.

    Returns:
        Centroids ``(B, h * w, C)`` of the tokens' type. Distances to them, weights and means are computed in float32
        or wider, from centroids and weights as that type holds them.
    """
    bands = neighbourhood_bands(token_grid, cluster_grid, settings.window_size, tokens.device)
    with region("cluster: start"):
        stored, tokens = tokens.dtype, to_matmul_dtype(tokens)
        centroids = pool(tokens, token_grid, cluster_grid).to(stored)
    for _ in range(settings.iterations if iterations is None else iterations):
        with region("cluster: iteration"):
            centroids = update(tokens, centroids, bands, settings.temperature)
    return centroids


def update(tokens: Tensor, centroids: Tensor, bands: tuple["Band", ...], temperature: float) -> Tensor:
    """Assign tokens ``(B, N, C)`` softly to centroids ``(B, S, C)`` and give the centroids that follow.

    The squared norm of a token is the same for all clusters and drops out of the softmax.
    """
    stored, centroids = centroids.dtype, to_matmul_dtype(centroids)
    bias = squared_norms(centroids).mul_(-temperature)[:, None, :]
    sums, mass = torch.zeros_like(centroids, dtype=bias.dtype), torch.zeros_like(bias)
    for band in bands:
        some = tokens[:, band.tokens]
        affinity = to_matmul_dtype(
            closeness(some, centroids, bias, band, temperature, stored).softmax(dim=-1).to(stored)
        )
        mass[..., band.clusters] += affinity.sum(dim=1, keepdim=True, dtype=mass.dtype)
        sums[:, band.clusters] += matmul_fp32(affinity.transpose(1, 2), some, stored)
    return (sums / mass.clamp_min(1e-16).transpose(1, 2)).to(stored)


def closeness(
    some: Tensor, centroids: Tensor, bias: Tensor, band: "Band", temperature: float, stored: torch.dtype
) -> Tensor:
    """Logits of the assignment of a band's tokens ``(B, n, C)`` to the clusters in its reach, ``(B, n, s)``."""
    near = centroids[:, band.clusters]
    logits = matmul_fp32(some, near.transpose(1, 2), stored).mul_(2 * temperature).add_(bias[..., band.clusters])
    return logits.masked_fill_(band.far, -torch.inf)


def assignment(
    tokens: Tensor, token_grid: tuple[int, int], cluster_grid: tuple[int, int], settings: TokenClustering
) -> Tensor:
    """Give the cluster ``(B, H * W)`` in which each token has its largest share; arguments as of `cluster`.

    The shares are those of the last round, of whose means the clusters are made.
    """
    stored, bands = tokens.dtype, neighbourhood_bands(token_grid, cluster_grid, settings.window_size, tokens.device)
    centroids = to_matmul_dtype(cluster(tokens, token_grid, cluster_grid, settings, settings.iterations - 1))
    tokens, bias = to_matmul_dtype(tokens), squared_norms(centroids).mul_(-settings.temperature)[:, None, :]
    parts = [
        closeness(tokens[:, band.tokens], centroids, bias, band, settings.temperature, stored).argmax(dim=-1)
        + band.clusters.start
        for band in bands
    ]
    return torch.cat(parts, dim=1)


@in_float32
def pool(tokens: Tensor, token_grid: tuple[int, int], cluster_grid: tuple[int, int]) -> Tensor:
    """Pool tokens ``(B, H * W, C)`` adaptively to ``(B, h * w, C)``, first rows, then columns."""
    of_rows, of_columns = (
        shares(side, clusters, tokens.dtype, tokens.device)
        for side, clusters in zip(token_grid, cluster_grid, strict=True)
    )
    pooled = of_rows @ tokens.unflatten(1, token_grid).flatten(2)
    pooled = of_columns @ pooled.unflatten(2, (token_grid[1], -1)).flatten(0, 1)
    return pooled.reshape(tokens.shape[0], cluster_grid[0] * cluster_grid[1], -1)


@dataclass(frozen=True)
class Band:
    """Rows of tokens, the rows of clusters within their reach, and which of these they may not join one by one."""

    tokens: slice
    clusters: slice
    far: Tensor  # boolean (tokens, clusters)


@lru_cache(maxsize=32)
def neighbourhood_bands(
    token_grid: tuple[int, int], cluster_grid: tuple[int, int], window_size: int, device: torch.device
) -> tuple[Band, ...]:
    """Cut the token grid into bands of rows, each with the rows of clusters in its reach.

    On a CPU a band has few rows, so that little is computed in vain; on a GPU one band holds all: many small products
    would take longer than one large one.
    """
    reach = window_size // 2
    rows, columns = cluster_grid
    with torch.inference_mode(False):  # else a later caller could not differentiate through what is kept
        far_rows, far_columns = (
            (home_clusters(tokens, clusters, device)[:, None] - torch.arange(clusters, device=device)).abs() > reach
            for tokens, clusters in zip(token_grid, cluster_grid, strict=True)
        )
        whole = [(0, token_grid[0], 0, rows)]
        parts = bands_of_rows(token_grid[0], rows) if device.type in ("cpu", "meta") else whole
        bands = []
        for first, last, start, stop in parts:
            low, high = max(start - reach, 0), min(stop + reach, rows)
            far = far_rows[first:last, None, low:high, None] | far_columns[None, :, None, :]
            bands.append(
                Band(
                    slice(first * token_grid[1], last * token_grid[1]),
                    slice(low * columns, high * columns),
                    far.flatten(2).flatten(0, 1),
                )
            )
    return tuple(bands)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def bands_of_rows(tokens: int, clusters: int) -> list[tuple[int, int, int, int]]:
    """Part rows of clusters into bands, and rows of tokens by the band of their home.

    Returns:
        First and last-plus-one row of tokens, first and last-plus-one row of clusters, band by band.
    """
    homes = home_clusters(tokens, clusters, torch.device("cpu")).tolist()
    bands = []
    for start in range(0, clusters, ROWS_OF_A_BAND):
        stop = min(start + ROWS_OF_A_BAND, clusters)
        inside = [row for row, home in enumerate(homes) if start <= home < stop]
        bands.append((inside[0], inside[-1] + 1, start, stop))
    return bands


def home_clusters(tokens: int, clusters: int, device: torch.device) -> Tensor:
    """Give the home cluster of each token along one side: nearest-neighbour upsampling of the indices."""
    index = torch.arange(clusters, dtype=torch.float32, device=device)[None, None]
    return F.interpolate(index, tokens, mode="nearest")[0, 0].long()


@lru_cache(maxsize=32)
def shares(tokens: int, clusters: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give what each token of one side adds to each cluster's mean in adaptive pooling: ``(clusters, tokens)``."""
    with torch.inference_mode(False):
        unit = torch.eye(tokens, dtype=dtype, device=device)
        return F.adaptive_avg_pool1d(unit[None], clusters)[0].T.contiguous()


def strongest_cluster(reduction: ClusterReduction) -> Tensor:
    """Index of the cluster that takes the largest part in each patch, ``(B, rows, columns)``."""
    return reduction.weights().argmax(-1).unflatten(1, (reduction.layout.rows, reduction.layout.columns))
