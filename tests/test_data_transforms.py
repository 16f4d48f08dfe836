import cv2
import numpy as np
import pytest
import torch
from data_files import picture
from hypothesis import given
from hypothesis import strategies as st

from lightning_expedite.data.transforms import STATISTICS, normalize, target_size, view_image


@pytest.mark.parametrize(
    ("size", "resize", "scale", "expected"),
    [
        ((512, 683), (640, 2560), 1.0, (640, 854)),  # 683 * 1.25 = 853.75
        ((683, 512), (640, 2560), 1.0, (854, 640)),
        ((300, 400), (640, 2560), 1.0, (640, 853)),  # 853.33
        ((100, 1000), (640, 2560), 1.0, (256, 2560)),  # the long side decides
        ((375, 500), (520, 4160), 1.0, (520, 693)),
        ((512, 683), (640, 2560), 0.75, (480, 640)),
        ((512, 683), (513, 2052), 0.5, (256, 342)),  # limits are rounded down to pixels: 256, not 256.5
        ((5, 7), None, 1.0, (5, 7)),
        ((5, 7), None, 0.5, (3, 4)),  # halves are rounded up
        ((1024, 2048), None, 1.75, (1792, 3584)),
        ((1, 1000), (10, 40), 1.0, (1, 40)),  # never less than a pixel
    ],
)
def test_target_size(size, resize, scale, expected):
    assert target_size(size, resize, scale) == expected


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    short=st.integers(8, 1024),
    ratio=st.integers(1, 8),
    scale=st.sampled_from([0.5, 0.75, 1.0, 1.25, 1.5, 1.75]),
)
def test_target_size_keeps_proportions_within_the_limits(size, short, ratio, scale):
    target = target_size(size, (short, ratio * short), scale)
    limit = (int(short * scale), int(ratio * short * scale))
    assert min(target) <= limit[0]
    assert max(target) <= limit[1]
    assert min(target) == limit[0] or max(target) == limit[1]
    factor = min(limit[0] / min(size), limit[1] / max(size))
    for side, wanted in zip(target, size, strict=True):
        assert abs(side - wanted * factor) <= 0.5 or side == 1


@pytest.mark.parametrize("normalization", ["vit", "deit"])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("target", [(31, 47), (62, 94), (17, 20)])
def test_view_is_bit_for_bit_resize_mirror_normalise(normalization, mirror, target):
    image = picture(31, 47)
    resized = image
    if target != image.shape[:2]:
        resized = cv2.resize(image, (target[1], target[0]), interpolation=cv2.INTER_LINEAR)
    if mirror:
        resized = resized[:, ::-1]
    mean, deviation = {
        "vit": ([127.5] * 3, [127.5] * 3),
        "deit": ([123.68, 116.28, 103.53], [58.4, 57.12, 57.38]),
    }[normalization]
    expected = (resized.astype(np.float32) - np.float32(mean)) / np.float32(deviation)

    view = view_image(image, target, mirror, normalization)

    assert view.dtype == torch.float32
    assert view.is_contiguous()
    assert view.shape == (3, *target)
    assert torch.equal(view, torch.from_numpy(np.ascontiguousarray(expected.transpose(2, 0, 1))))


def test_image_is_not_changed_in_place():
    image = picture()
    before = image.copy()
    view_image(image, image.shape[:2], False, "vit")
    np.testing.assert_array_equal(image, before)


def test_deit_statistics_are_imagenets_rounded_to_two_decimals():
    mean, deviation = STATISTICS["deit"]
    np.testing.assert_array_equal(mean, np.round(255 * np.array([0.485, 0.456, 0.406]), 2).astype(np.float32))
    np.testing.assert_array_equal(deviation, np.round(255 * np.array([0.229, 0.224, 0.225]), 2).astype(np.float32))


def test_vit_normalisation_spans_minus_one_to_one():
    ends = normalize(np.array([[[0, 255, 51]]], np.uint8), "vit")
    np.testing.assert_array_equal(ends, np.array([[[-1.0, 1.0, np.float32(-76.5) / np.float32(127.5)]]], np.float32))
