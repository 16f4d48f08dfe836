"""How much memory a ``test`` takes at most, from sizes alone: whether it will fit.

The bound is a sum of parts, each of which follows from what the program holds at one time; tests compare it with runs.
It leaves out what Python and its packages take before the first image, and on a GPU the CUDA context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..evaluation.inference import SlidingWindow, WindowLogits, bands_of
from ..evaluation.metrics import PIXELS_AT_ONCE
from ..evaluation.upsampling import KEPT_LARGE, KEPT_SMALL, SMALL
from ..evaluation.windows import WindowPlan
from ..models.segmenter.architecture import Architecture
from ..models.segmenter.model import Segmenter

Size = tuple[int, int]

FLOAT = 4  # bytes of a float32
PREFETCHED = 2  # batches that PyTorch's loader has under way in each of its processes
COUNTING = 47  # bytes a pixel while pixels are counted: int64 copies of both maps, masks, and histograms' float32
READING = 12  # bytes a stored pixel while an image and its label are decoded
RESIZING = 15  # bytes a pixel of a view while it is resized, normalised and copied for the other process
WORKER = 64 << 20  # what a loader's process takes for itself: copies of the pages that Python writes to
DISTANCES = 13  # bytes a pair of tokens: weights of a reconstruction, twice while they are made, and their mask
REDUCED = 8  # tensors of all tokens that a reducer keeps for the end, or makes for a moment
HOLES = 0.5
"""Share of what is made and freed for every image that glibc's heap holds besides: passes over windows took 1.4 to 1.5
times the memory of their tensors, and 1.0 times with ``MALLOC_MMAP_THRESHOLD_=262144`` in the environment."""
COUNT = 40  # bytes of a whole number in a list
RESULT = 1000  # bytes of an image's result without its counts


@dataclass(frozen=True)
class MemoryBound:
    """Upper bounds in bytes; see `peak_memory_bound`."""

    weights: int
    """The model's weights."""
    activations: int
    """The model's pass over one batch of windows."""
    window_logits: int
    """Logits of all windows of one image, of all its views, at patch resolution."""
    labels: int
    """Label map and label of one image, a band of scores of all classes, and the counting of pixels."""
    interpolation: int
    """Weights of interpolations that are kept for further images."""
    image: int
    """The image on a GPU, in another type or enlarged to the window."""
    loading: int
    """Images in work and under way in the loader, and what reading takes."""
    heap: int
    """Holes between blocks that the C library's allocator keeps after what is made for every image was freed."""
    results: int
    """Counts of all images, which are kept until they are written."""
    on_gpu: bool
    """Whether the model is on a GPU."""

    @property
    def device(self) -> int:
        """What PyTorch allocates at most where the model is."""
        model = self.weights + self.activations + self.window_logits
        return model + self.labels + self.interpolation + self.image

    @property
    def host(self) -> int:
        """By how much all processes' memory rises at most, those of the loader included.

        Beside a GPU the weights count, since they are read there first.
        """
        return self.loading + self.heap + self.results + (self.weights if self.on_gpu else self.device)


def peak_memory_bound(
    architecture: Architecture,
    windows: SlidingWindow,
    image: Size,
    views: Sequence[Size] = (),
    *,
    reduced: bool = False,
    dtype: torch.dtype = torch.float32,
    on_gpu: bool = False,
    batch_size: int = 1,
    num_workers: int = 2,
    images: int = 1,
    sizes: int = 1,
) -> MemoryBound:
    """Bound the memory that ``test`` takes.

    Args:
        architecture: Sizes of the model.
        windows: Window, stride, windows at once and convention.
        image: Height and width of the largest image as stored.
        views: Height and width of each of its views after resizing, mirrored ones too; by default one as stored.
        reduced: Whether there is a token reducer.
        dtype: Type of weights and activations (``bf16-true`` is ``torch.bfloat16``); not of mixed precisions.
        on_gpu: Whether the model is on a GPU.
        batch_size: Images of a batch of the loader.
        num_workers: Processes of the loader.
        images: Images of the data set.
        sizes: Distinct sizes of images.

    Returns:
        The parts, and their sums on device and host.
    """
    views = views or (image,)
    element, classes = dtype.itemsize, architecture.num_classes
    parameters = _parameters(architecture)
    plans = [windows.plan(view) for view in views]
    bands = [_Bands(plan, classes, image, windows.window, on_gpu) for plan in plans]
    patches = [_patches(plan.window, architecture.patch_size) for plan in plans]
    activations = max(_activations(architecture, plan, windows.batch_size, element, reduced) for plan in plans)
    labels, copied = _labels(bands, image), _image(plans, views, element, on_gpu)
    loading = _loading(views, image, batch_size, num_workers, on_gpu)
    heap = (0 if on_gpu else activations + labels + copied) + (0 if num_workers else loading)
    return MemoryBound(
        weights=parameters * element,
        activations=activations,
        window_logits=sum(
            len(plan.origins) * count * classes * element for plan, count in zip(plans, patches, strict=True)
        ),
        labels=labels,
        interpolation=min(sizes * sum(band.kept for band in bands), max(band.most_kept for band in bands)),
        image=copied,
        loading=loading,
        heap=int(HOLES * heap),
        results=images * (3 * classes * COUNT + RESULT),
        on_gpu=on_gpu,
    )


def _parameters(architecture: Architecture) -> int:
    """Count all parameters."""
    with torch.device("meta"):
        model = Segmenter(architecture)
    return sum(parameter.numel() for parameter in model.parameters())


def _patches(window: Size, patch: int) -> int:
    return -(-window[0] // patch) * -(-window[1] // patch)


def _activations(architecture: Architecture, plan: WindowPlan, batch: int, element: int, reduced: bool) -> int:
    """Bound one pass over a batch of windows.

    A layer holds most in its MLP: what comes in, its norm, and the hidden tokens before and after their activation.
    Before the first layer the windows are there four times: cut out, padded, with their channels last, and as the
    convolution takes them. The decoder's tokens are the patches' and the classes', with the encoder's beside them.
    """
    count = min(batch, len(plan.origins))
    patches = _patches(plan.window, architecture.patch_size)
    tokens = (architecture.prefix + patches) * architecture.width
    pixels = 3 * patches * architecture.patch_size**2
    layer = (2 + 2 * architecture.mlp_ratio) * tokens
    decoded = (patches + architecture.num_classes) * architecture.decoder_width
    decoder = (2 + 2 * architecture.decoder_mlp_ratio) * decoded + 2 * tokens
    logits = 4 * patches * architecture.num_classes
    total = element * (2 * pixels + max(layer, decoder, 2 * pixels + 2 * tokens) + logits)
    if reduced:
        total += DISTANCES * (architecture.prefix + patches) ** 2 + REDUCED * FLOAT * tokens
    return int(count * total)


class _Bands:
    """The bands of rows in which one view's logits become an image's labels.

    Args:
        plan: The view's windows.
        classes: Number of classes.
        image: Height and width of the labels.
        window: Side of a window in pixels.
        on_gpu: Whether the logits are on a GPU.
    """

    def __init__(self, plan: WindowPlan, classes: int, image: Size, window: int, on_gpu: bool) -> None:
        logits = torch.empty(1, classes, 0, 0, device="meta" if on_gpu else "cpu")
        bands = bands_of([(WindowLogits(plan, logits, (0, 0), 0), False)], image)
        self.rows = bands[0][1]
        self.source_rows = min(self.rows * plan.image[0] // image[0] + 3, plan.image[0])
        self.scores = FLOAT * classes * self.rows * image[1]
        self.source = FLOAT * classes * self.source_rows * (plan.image[1] + max(2 * window, image[1]))
        large = FLOAT * self.rows * self.source_rows
        self.kept = 3 * len(bands) * large
        self.most_kept = KEPT_SMALL * FLOAT * SMALL + KEPT_LARGE * large


def _labels(bands: Sequence[_Bands], image: Size) -> int:
    """Bound the way from logits to counts: bands of scores come first, the counting after them."""
    pixels = image[0] * image[1]
    scores = bands[0].scores * (1 if len(bands) == 1 else 4)  # of several views: sum, scores, softmax, mirror
    band = scores + max(band.source for band in bands)
    counting = 3 * pixels + COUNTING * min(pixels, max(PIXELS_AT_ONCE, image[1]))
    return 9 * pixels + max(band, counting)  # labels in int64, what they are compared with in uint8


def _image(plans: Sequence[WindowPlan], views: Sequence[Size], element: int, on_gpu: bool) -> int:
    """Bound copies of the views: all of them on a GPU or in another type, the enlarged one alone else."""
    pixels = sum(height * width for height, width in views)
    copied = 3 * pixels * ((FLOAT if on_gpu else 0) + (element if element != FLOAT else 0))
    enlarged = max(
        (3 * plan.image[0] * plan.image[1] for plan, view in zip(plans, views, strict=True) if plan.image != view),
        default=0,
    )
    return copied + element * enlarged


def _loading(views: Sequence[Size], image: Size, batch_size: int, num_workers: int, on_gpu: bool) -> int:
    """Bound the loader: the batch in work, the one before it, those under way, and what is being read."""
    stored = image[0] * image[1]
    pixels = [height * width for height, width in views]
    sample = 3 * FLOAT * sum(pixels) + stored
    batches = 2 + PREFETCHED * num_workers + (2 if on_gpu else 0)  # for a GPU two more in pinned memory
    reading = READING * stored + RESIZING * max(pixels)
    return batches * batch_size * sample + max(num_workers, 1) * reading + num_workers * WORKER
