"""Reducers against naive implementations of their descriptions."""

import itertools
import math

import pytest
import torch
from tiny import close, noise, tiny_model

from lightning_expedite.reducers import ACT, EViT, Reduction, TokenClustering, TokenLayout, ToMe
from lightning_expedite.reducers.act import hash_queries
from lightning_expedite.reducers.clustering import home_clusters
from lightning_expedite.reducers.tome import match

pytestmark = pytest.mark.usefixtures("no_gradients")


# --- Clustering ------------------------------------------------------------------------------------


def naive_clusters(tokens, clusters, window, iterations, temperature):
    """Cluster tokens ``(H, W, C)`` token by token; returns ``{(row, column): centroid}``."""
    (height, width, _), (rows, columns) = tokens.shape, clusters
    grid = list(itertools.product(range(rows), range(columns)))

    def bins(index, parts, side):
        return range(index * side // parts, -(-(index + 1) * side // parts))

    centroids = {
        (i, j): torch.stack([tokens[y, x] for y in bins(i, rows, height) for x in bins(j, columns, width)]).mean(0)
        for i, j in grid
    }
    for _ in range(iterations):
        total = {place: torch.zeros_like(tokens[0, 0]) for place in grid}
        mass = dict.fromkeys(grid, 0.0)
        for y, x in itertools.product(range(height), range(width)):
            home = y * rows // height, x * columns // width
            near = [(i, j) for i, j in grid if max(abs(i - home[0]), abs(j - home[1])) <= window // 2]
            power = [-temperature * (tokens[y, x] - centroids[place]).square().sum().item() for place in near]
            scale = [math.exp(value - max(power)) for value in power]
            for place, share in zip(near, scale, strict=True):
                total[place] += share / sum(scale) * tokens[y, x]
                mass[place] += share / sum(scale)
        centroids = {place: total[place] / max(mass[place], 1e-16) for place in grid}
    return centroids


def naive_weights(token, kept, temperature, neighbours):
    """Shares of the kept tokens in one rebuilt token."""
    weights = [math.exp(-temperature * (token - other).square().sum().item()) for other in kept]
    least = sorted(weights, reverse=True)[min(neighbours, len(kept)) - 1]
    weights = [weight if weight >= least else 0.0 for weight in weights]
    norm = math.sqrt(sum(weight**2 for weight in weights))
    return [weight / max(norm, 1e-12) for weight in weights]


@pytest.mark.parametrize(
    ("grid", "clusters", "window", "iterations", "temperature", "neighbours"),
    [
        ((6, 6), (3, 3), 5, 5, 0.02, 20),
        ((5, 7), (3, 4), 3, 2, 0.5, 4),
        ((8, 4), (5, 2), 1, 3, 0.1, 1),
        ((4, 5), (4, 5), 5, 1, 0.02, 7),
        ((7, 3), (2, 3), 4, 4, 1.0, 3),
    ],
)
@pytest.mark.parametrize("prefix", [1, 2])
def test_clustering_and_reconstruction_equal_the_naive_ones(
    grid, clusters, window, iterations, temperature, neighbours, prefix
):
    block = tiny_model().double().encoder.blocks[0]
    tokens = noise(2, prefix + grid[0] * grid[1], 32, dtype=torch.float64)
    settings = TokenClustering(3, clusters, window, iterations, temperature, neighbours, 0.07)
    reduction = settings.start(TokenLayout(*grid, prefix=prefix))
    whole = Reduction(reduction.layout).layer(1, block, tokens)
    assert torch.equal(reduction.layer(1, block, tokens), whole)
    clustered = reduction.layer(3, block, tokens)
    assert torch.equal(clustered[:, :prefix], whole[:, :prefix])
    logits = noise(2, clusters[0] * clusters[1], 4, dtype=torch.float64, seed=1)
    rebuilt = reduction.restore_logits(logits)
    for image in range(2):
        patches = whole[image, prefix:]
        centroids = naive_clusters(patches.unflatten(0, grid), clusters, window, iterations, temperature)
        centroids = torch.stack(list(centroids.values()))
        assert close(clustered[image, prefix:], centroids, 1e-10)
        weights = torch.tensor(
            [naive_weights(patch, centroids, 0.07, neighbours) for patch in patches], dtype=torch.float64
        )
        assert close(rebuilt[image], weights @ logits[image], 1e-9)


def test_reconstruction_keeps_ties_with_the_last_neighbour():
    reduction = TokenClustering(1, (1, 3), neighbours=2).start(TokenLayout(1, 4, prefix=0))
    reduction.tokens = torch.zeros(1, 4, 2)
    reduction.centroids = torch.tensor([[[0.0, 0], [5, 0], [0, 5]]])
    weights = reduction.weights()
    assert (weights > 0).all()
    assert torch.equal(weights[..., 1], weights[..., 2])
    assert torch.allclose(weights.square().sum(-1), torch.ones(1, 4))


@pytest.mark.parametrize(
    ("size", "cut"), [((24, 64), (3, 5)), ((64, 16), (5, 2)), ((16, 8), (2, 1)), ((64, 64), (5, 5))]
)
def test_cluster_grid_is_cut_to_the_tokens_of_a_small_image(size, cut):
    images = noise(2, 3, *size)
    model = tiny_model(TokenClustering(2, (5, 5)))
    logits, reduction = model.segment_patches(images)
    assert reduction.grid == cut
    assert reduction.is_identity() is (cut == (size[0] // 8, size[1] // 8))
    model.reducer = TokenClustering(2, cut)
    assert torch.equal(model.segment_patches(images).logits, logits)


@pytest.mark.parametrize(("tokens", "clusters"), [(40, 28), (40, 20), (48, 32), (48, 24), (30, 15), (33, 28)])
def test_home_clusters_are_nearest_neighbours(tokens, clusters):
    homes = home_clusters(tokens, clusters, torch.device("cpu"))
    assert homes.tolist() == [token * clusters // tokens for token in range(tokens)]


# --- EViT ------------------------------------------------------------------------------------------


def naive_class_attention(attention, tokens):
    """Attention ``(N,)`` of the class token of one image, averaged over heads, query by query."""
    heads, width = attention.num_heads, attention.head_dim
    qkv = attention.qkv(tokens)
    rows = []
    for head in range(heads):
        query = qkv[0, head * width : (head + 1) * width] * width**-0.5
        start = heads * width + head * width
        rows.append(torch.stack([query @ key for key in qkv[:, start : start + width]]))
    return torch.stack([row.softmax(0) for row in rows]).mean(0)


def naive_drop(block, tokens, prefix, keep, fuse):
    """One EViT layer on one image ``(N, C)``: result, features, kept and dropped indices."""
    normed = block.norm1(tokens)
    attention = naive_class_attention(block.attn, normed)[prefix:]
    tokens = tokens + block.attn(normed[None])[0]
    patches = tokens[prefix:]
    order = sorted(range(len(patches)), key=lambda index: -attention[index].item())
    kept, dropped = order[:keep], order[keep:]
    parts = [*tokens[:prefix], *(patches[index] for index in kept)]
    if fuse:
        parts.append(sum(attention[index].item() * patches[index] for index in dropped))
    result = torch.stack(parts)
    return result + block.mlp(block.norm2(result)), patches, kept, dropped


def naive_restore(patches, features, kept, dropped, temperature, neighbours):
    places = {index: patches[position] for position, index in enumerate(kept)}
    for index in dropped:
        weights = naive_weights(features[index], features[kept], temperature, neighbours)
        places[index] = sum(weight * patches[position] for position, weight in enumerate(weights) if weight)
    return torch.stack([places[index] for index in range(len(places))])


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize(("rate", "fuse", "neighbours"), [(0.6, True, 1), (0.5, False, 3), (0.3, True, 50)])
def test_dropping_and_restoring_equal_the_naive_ones(prefix, rate, fuse, neighbours):
    blocks = tiny_model().double().encoder.blocks
    settings = EViT([4, 1, 3], rate, fuse, neighbours, 0.03)
    assert settings.locations == (1, 3, 4)
    tokens = noise(2, prefix + 20, 32, dtype=torch.float64)
    reduction = settings.start(TokenLayout(4, 5, prefix=prefix))
    reduced = reduction.prepare_tokens(tokens)
    for layer, block in enumerate(blocks, start=1):
        reduced = reduction.layer(layer, block, reduced)
    out = reduction.restore_tokens(reduced)
    for image in range(2):
        one, drops = tokens[image], []
        for layer, block in enumerate(blocks, start=1):
            if layer in settings.locations:
                keep = math.ceil(rate * (len(one) - prefix))
                one, *drop = naive_drop(block, one, prefix, keep, fuse)
                drops.append(drop)
            else:
                one = block(one[None])[0]
        assert close(reduced[image], one, 1e-9)
        patches = one[prefix:]
        for features, kept, dropped in reversed(drops):
            patches = naive_restore(patches, features, kept, dropped, 0.03, neighbours)
        assert close(out[image], torch.cat((one[:prefix], patches)), 1e-9)


# --- ToMe ------------------------------------------------------------------------------------------


def naive_groups(tokens, merged, prefix):
    """Group the tokens ``(N, C)`` of one image: lists of members in the order of the merged tokens."""
    sources, destinations = range(0, len(tokens), 2), range(1, len(tokens), 2)
    best = {}
    for source in sources:
        if source >= prefix:
            allowed = [other for other in destinations if other >= prefix]
            cosine = [
                float(tokens[source] @ tokens[other] / tokens[source].norm() / tokens[other].norm())
                for other in allowed
            ]
            best[source] = max(zip(cosine, allowed, strict=True))
    joining = sorted(best, key=lambda source: -best[source][0])[:merged]
    alone = [[source] for source in sources if source not in joining]
    groups = {other: [other] for other in destinations}
    for source in joining:
        groups[best[source][1]].append(source)
    return alone + list(groups.values())


def naive_on_merged(module, tokens, merged, prefix):
    groups = naive_groups(tokens, merged, prefix)
    result = module(torch.stack([tokens[group].mean(0) for group in groups])[None])[0]
    copied = torch.empty_like(tokens)
    for group, value in zip(groups, result, strict=True):
        copied[group] = value
    return copied


@pytest.mark.parametrize("prefix", [1, 2, 5])  # class token; distillation token; class and four register tokens
@pytest.mark.parametrize("grid", [(4, 5), (3, 5), (1, 2)])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 1.0])
def test_merging_equals_the_naive_one(prefix, grid, ratio):
    block = tiny_model().double().encoder.blocks[1]
    patches = grid[0] * grid[1]
    tokens = noise(2, prefix + patches, 32, dtype=torch.float64)
    merged = min(int(ratio * (prefix + patches)), patches // 2)
    reduction = ToMe(ratio).start(TokenLayout(*grid, prefix=prefix))
    assert reduction.merged == merged
    out = reduction.layer(1, block, tokens)
    for image in range(2):
        one = tokens[image]
        one = one + naive_on_merged(block.attn, block.norm1(one), merged, prefix)
        one = one + naive_on_merged(block.mlp, block.norm2(one), merged, prefix)
        assert close(out[image], one, 1e-10)


@pytest.mark.parametrize("prefix", [1, 2, 5])  # class token; distillation token; class and four register tokens
@pytest.mark.parametrize("patches", [1, 2, 3, 12, 15, 16])
@pytest.mark.parametrize("ratio", [0.3, 0.9, 1.0])
def test_prefix_tokens_never_merge_and_at_most_half_of_the_patches_do(prefix, patches, ratio):
    layout = TokenLayout(1, patches, prefix=prefix)
    tokens = noise(3, prefix + patches, 8)
    tokens[:, :prefix] = tokens[:, -1:]  # as alike to a patch as can be
    reduction = ToMe(ratio).start(layout)
    assert reduction.merged <= patches // 2
    matching = match(tokens, reduction.merged, layout)
    assert matching.size == prefix + patches - reduction.merged
    for group in matching.group:
        assert group.unique().tolist() == list(range(matching.size))
        for special in range(prefix):
            assert (group == group[special]).sum() == 1


# --- ACT -------------------------------------------------------------------------------------------


def wrapped(value):
    """The int64 that an integer of any size wraps to."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def naive_codes(queries, weight, offset):
    """Hash queries ``(N, D)`` of one head one by one; whole numbers that wrap as int64 do."""
    buckets = [
        [math.floor((float(query @ weight[:, index]) + offset[index].item()) / 8) for index in range(len(offset))]
        for query in queries
    ]
    least = [min(column) for column in zip(*buckets, strict=True)]
    return [
        wrapped(sum(wrapped((value - low) << (2 * index)) for index, (value, low) in enumerate(pairs)))
        for pairs in (list(zip(row, least, strict=True)) for row in buckets)
    ]


def naive_act(attention, tokens, weight, offset):
    heads, width = attention.num_heads, attention.head_dim
    qkv = attention.qkv(tokens).unflatten(-1, (3, heads, width))
    columns, groups = [], []
    for head in range(heads):
        query, key, value = qkv[:, 0, head] * width**-0.5, qkv[:, 1, head], qkv[:, 2, head]
        codes = naive_codes(query, weight, offset)
        groups.append(len(set(codes)))
        result = torch.empty_like(query)
        for code in set(codes):
            members = [index for index, other in enumerate(codes) if other == code]
            result[members] = (query[members].mean(0) @ key.T).softmax(0) @ value
        columns.append(result)
    return attention.proj(torch.cat(columns, dim=1)), groups


@pytest.mark.parametrize(("hashes", "seed"), [(1, 0), (4, 3), (16, 0), (32, 7)])
def test_grouped_attention_equals_the_naive_one(hashes, seed):
    blocks = tiny_model().double().encoder.blocks
    for block in blocks:
        block.attn.qkv.weight.mul_(4)  # queries several buckets apart
    tokens = noise(2, 1 + 12, 32, dtype=torch.float64)
    reduction = ACT(hashes, seed).start(TokenLayout(3, 4))
    out = tokens
    for layer, block in enumerate(blocks, start=1):
        out = reduction.layer(layer, block, out)
    counts = []
    for image in range(2):
        generator = torch.Generator().manual_seed(seed)
        one, rows = tokens[image], []
        for block in blocks:
            weight = torch.randn(1, 16, hashes, generator=generator)[0].double()
            offset = torch.rand(1, hashes, 1, generator=generator)[0, :, 0].double()
            attended, groups = naive_act(block.attn, block.norm1(one), weight, offset)
            one = one + attended
            one = one + block.mlp(block.norm2(one))
            rows.append(groups)
        counts.append(rows)
        assert close(out[image], one, 1e-9)
    assert torch.stack(reduction.groups, dim=1).tolist() == counts
    assert 1 < max(itertools.chain(*counts[0])) <= 13


def test_hash_codes_wrap_like_64_bit_integers():
    queries = 4000 * noise(1, 1, 9, 4, dtype=torch.float64)
    weight, offset = noise(1, 4, 32, seed=1, dtype=torch.float64), noise(1, 32, 1, seed=2).double().abs()
    codes = hash_queries(queries, weight, offset)[0, 0].tolist()
    expected = naive_codes(queries[0, 0], weight[0], offset[0, :, 0])
    assert min(expected) < 0
    moved = {wrapped(code - other) for code, other in zip(codes, expected, strict=True)}
    assert len(moved) == 1  # by the least buckets: the same for all queries
