"""Expedit clustering and reconstruction (Liang et al. 2022, "Expediting Large-Scale Vision Transformer ...")."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ReducerError, checks_arguments
from ..regions import region
from .base import EncoderShape, Reducer, Reduction, TokenLayout
from .checks import check_location, check_positive, grid_of
from .distances import in_float32, matmul_fp32, squared_norms, to_matmul_dtype
from .reconstruction import reconstruct, reconstruction_multiply_adds, reconstruction_weights
from .spaces import GridRange, IntRange, SearchRange

Grid = tuple[int, int]

CPU_BAND_ROWS = 4  # rows of clusters that a CPU handles at once; see docs/performance.md


class TokenClustering(Reducer):
    """Cluster the patch tokens after one layer and reconstruct the logits of all patches after the decoder.

    Prefix tokens (class, registers) stay as they are; the remaining layers and the decoder run on the clusters
    (Liang et al. 2022, sections 3.2 and 3.3). If an image has fewer tokens per side than ``clusters``, the cluster grid
    is reduced to the token grid.

    Args:
        location: Layer (from 1) after which the tokens are clustered.
        clusters: Rows and columns of the cluster grid; one number is used for both.
        window_size: A token may join the clusters at most ``window_size // 2`` rows and columns from its home cluster.
        iterations: Number of assignment and update steps.
        temperature: Factor of the squared distance in the assignment's softmax.
        neighbours: Clusters that contribute to the reconstruction of a patch's logits.
        reconstruction_temperature: Factor of the squared distance in the reconstruction's weights.

    Raises:
        ReducerError: A setting is out of its range.
    """

    @checks_arguments
    def __init__(
        self,
        location: int,
        clusters: Grid | int,
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
        """Vary the layer, except the last, and the clusters, from a quarter of the token grid's rows."""
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

    tokens: Tensor  # (B, rows * columns, C)
    centroids: Tensor  # (B, clusters, C)

    def __init__(self, settings: TokenClustering, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.settings = settings
        self.grid = (min(settings.clusters[0], layout.rows), min(settings.clusters[1], layout.columns))

    def layer(self, layer: int, block: nn.Module, tokens: Tensor) -> Tensor:
        """Run a block; cluster the patch tokens after the settings' location."""
        tokens = super().layer(layer, block, tokens)
        if layer != self.settings.location:
            return tokens
        prefix, self.tokens = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix :]
        token_grid = (self.layout.rows, self.layout.columns)
        self.centroids = cluster(self.tokens, token_grid, self.grid, self.settings)
        if self.recorder is not None:
            group = hard_assignment(self.tokens, token_grid, self.grid, self.settings)
            count = self.layout.prefix + self.centroids.shape[1]
            self.recorder.add(self.layout, layer, group, count, lasts=True)
        return torch.cat((prefix, self.centroids), dim=1)

    def restore_logits(self, logits: Tensor) -> Tensor:
        """Reconstruct the logits of all patches from those of the clusters."""
        with region("cluster: weights"):
            weights = self.weights()
        return reconstruct(weights, logits).to(logits.dtype)

    def weights(self) -> Tensor:
        """Return the weight of each cluster in each patch's logits, ``(B, rows * columns, clusters)``."""
        temperature, neighbours = self.settings.reconstruction_temperature, self.settings.neighbours
        return reconstruction_weights(self.tokens, self.centroids, temperature, neighbours)

    def multiply_adds(self, width: int) -> int:
        """Count clustering and reconstruction."""
        settings, tokens, clusters = self.settings, self.layout.patches, self.grid[0] * self.grid[1]
        window = min(settings.window_size**2, clusters)
        once = tokens * width + 2 * (tokens + clusters)
        iteration = 3 * tokens * width * window + 3 * tokens * window + clusters * width
        reconstruction = reconstruction_multiply_adds(tokens, clusters, settings.neighbours, width)
        return once + settings.iterations * iteration + reconstruction

    def is_identity(self) -> bool:
        """Return True if the cluster grid was reduced to the token grid on both sides."""
        return self.grid == (self.layout.rows, self.layout.columns)


def cluster(
    tokens: Tensor, token_grid: Grid, cluster_grid: Grid, settings: TokenClustering, iterations: int | None = None
) -> Tensor:
    """Cluster tokens softly within local neighbourhoods (Liang et al. 2022, section 3.2).

    Args:
        tokens: ``(B, H * W, C)``.
        token_grid: ``(H, W)``.
        cluster_grid: ``(h, w)``.
        settings: The method's settings.
        iterations: Number of assignment and update steps; the settings' by default.

    Returns:
        Centroids ``(B, h * w, C)`` of the tokens' type. Distances, weights and means are computed in float32 or wider,
        from centroids and weights rounded to that type.
    """
    bands = neighbourhood_bands(token_grid, cluster_grid, settings.window_size, tokens.device)
    with region("cluster: start"):
        dtype, tokens = tokens.dtype, to_matmul_dtype(tokens)
        centroids = pool(tokens, token_grid, cluster_grid).to(dtype)
    for _ in range(settings.iterations if iterations is None else iterations):
        with region("cluster: iteration"):
            centroids = update(tokens, centroids, bands, settings.temperature)
    return centroids


def update(tokens: Tensor, centroids: Tensor, bands: tuple["Band", ...], temperature: float) -> Tensor:
    """Assign tokens ``(B, N, C)`` softly to centroids ``(B, S, C)`` and return the new centroids."""
    dtype, centroids = centroids.dtype, to_matmul_dtype(centroids)
    bias = squared_norms(centroids).mul_(-temperature)[:, None, :]
    sums, mass = torch.zeros_like(centroids, dtype=bias.dtype), torch.zeros_like(bias)
    for band in bands:
        band_tokens = tokens[:, band.tokens]
        logits = assignment_logits(band_tokens, centroids, bias, band, temperature, dtype)
        affinity = to_matmul_dtype(logits.softmax(dim=-1).to(dtype))
        mass[..., band.clusters] += affinity.sum(dim=1, keepdim=True, dtype=mass.dtype)
        sums[:, band.clusters] += matmul_fp32(affinity.transpose(1, 2), band_tokens, dtype)
    return (sums / mass.clamp_min(1e-16).transpose(1, 2)).to(dtype)


def assignment_logits(
    band_tokens: Tensor, centroids: Tensor, bias: Tensor, band: "Band", temperature: float, dtype: torch.dtype
) -> Tensor:
    """Return the logits ``(B, n, s)`` of assigning a band's tokens ``(B, n, C)`` to its candidate clusters.

    The squared norm of a token is the same for all clusters, drops out of the softmax and is left out.
    """
    candidates = centroids[:, band.clusters]
    logits = matmul_fp32(band_tokens, candidates.transpose(1, 2), dtype).mul_(2 * temperature)
    return logits.add_(bias[..., band.clusters]).masked_fill_(band.outside_window, -torch.inf)


def hard_assignment(tokens: Tensor, token_grid: Grid, cluster_grid: Grid, settings: TokenClustering) -> Tensor:
    """Return the cluster ``(B, H * W)`` with each token's largest weight in the last update; arguments of `cluster`."""
    dtype, bands = tokens.dtype, neighbourhood_bands(token_grid, cluster_grid, settings.window_size, tokens.device)
    centroids = to_matmul_dtype(cluster(tokens, token_grid, cluster_grid, settings, settings.iterations - 1))
    tokens, bias = to_matmul_dtype(tokens), squared_norms(centroids).mul_(-settings.temperature)[:, None, :]
    assigned = []
    for band in bands:
        logits = assignment_logits(tokens[:, band.tokens], centroids, bias, band, settings.temperature, dtype)
        assigned.append(logits.argmax(dim=-1) + band.clusters.start)
    return torch.cat(assigned, dim=1)


@in_float32
def pool(tokens: Tensor, token_grid: Grid, cluster_grid: Grid) -> Tensor:
    """Pool tokens ``(B, H * W, C)`` adaptively to ``(B, h * w, C)``, first rows, then columns."""
    rows, columns = (
        pooling_matrix(side, clusters, tokens.dtype, tokens.device)
        for side, clusters in zip(token_grid, cluster_grid, strict=True)
    )
    pooled = rows @ tokens.unflatten(1, token_grid).flatten(2)
    pooled = columns @ pooled.unflatten(2, (token_grid[1], -1)).flatten(0, 1)
    return pooled.reshape(tokens.shape[0], cluster_grid[0] * cluster_grid[1], -1)


@dataclass(frozen=True)
class Band:
    """Rows of tokens with their candidate clusters, and which of these are outside each token's window."""

    tokens: slice
    clusters: slice
    outside_window: Tensor  # boolean (tokens, clusters)


@lru_cache(maxsize=32)
def neighbourhood_bands(
    token_grid: Grid, cluster_grid: Grid, window_size: int, device: torch.device
) -> tuple[Band, ...]:
    """Split the token grid into bands of rows, each with the rows of clusters within reach.

    On a CPU a band has few rows, which leaves out most clusters outside the windows; on a GPU one band holds all: many
    small products would take longer than one large one.
    """
    reach, (rows, columns) = window_size // 2, cluster_grid
    bands = []
    with torch.inference_mode(False):  # a later caller could not differentiate through cached inference tensors
        outside_rows, outside_columns = (
            (home_clusters(tokens, clusters, device)[:, None] - torch.arange(clusters, device=device)).abs() > reach
            for tokens, clusters in zip(token_grid, cluster_grid, strict=True)
        )
        step = CPU_BAND_ROWS if device.type in ("cpu", "meta") else rows
        for first, last, start, stop in split_rows(token_grid[0], rows, step):
            low, high = max(start - reach, 0), min(stop + reach, rows)
            outside = outside_rows[first:last, None, low:high, None] | outside_columns[None, :, None, :]
            band_tokens = slice(first * token_grid[1], last * token_grid[1])
            bands.append(Band(band_tokens, slice(low * columns, high * columns), outside.flatten(2).flatten(0, 1)))
    return tuple(bands)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def split_rows(tokens: int, clusters: int, step: int) -> list[tuple[int, int, int, int]]:
    """Split rows of clusters into bands of ``step``, and rows of tokens by the band of their home cluster.

    Returns:
        For each band: start and stop of its rows of tokens, start and stop of its rows of clusters.
    """
    homes = home_clusters(tokens, clusters, torch.device("cpu")).tolist()
    bands = []
    for start in range(0, clusters, step):
        stop = min(start + step, clusters)
        inside = [row for row, home in enumerate(homes) if start <= home < stop]
        bands.append((inside[0], inside[-1] + 1, start, stop))
    return bands


def home_clusters(tokens: int, clusters: int, device: torch.device) -> Tensor:
    """Return the home cluster of each token along one side: nearest-neighbour upsampling of the indices."""
    index = torch.arange(clusters, dtype=torch.float32, device=device)[None, None]
    return F.interpolate(index, tokens, mode="nearest")[0, 0].long()


@lru_cache(maxsize=32)
def pooling_matrix(tokens: int, clusters: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix ``(clusters, tokens)`` of adaptive average pooling along one side."""
    with torch.inference_mode(False):
        identity = torch.eye(tokens, dtype=dtype, device=device)
        return F.adaptive_avg_pool1d(identity[None], clusters)[0].T.contiguous()
