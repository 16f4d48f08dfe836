import pytest
from data_files import make_camvid
from torch.utils.data import DistributedSampler

from lightning_expedite.data import CamVid
from lightning_expedite.data.dataset import PLACEHOLDER, ShardedSampler


@pytest.mark.parametrize("images", range(18))
@pytest.mark.parametrize("ranks", range(1, 6))
def test_every_image_exactly_once_and_placeholders_only_for_idle_ranks(images, ranks):
    samplers = [ShardedSampler(range(images), ranks, rank) for rank in range(ranks)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    for rank, share in enumerate(shares):
        own = [position for position in share if position != PLACEHOLDER]
        assert own == list(range(rank, images, ranks))
        assert share == (own or [PLACEHOLDER])
    positions = sorted(position for share in shares for position in share if position != PLACEHOLDER)
    assert positions == list(range(images))


def test_lightning_takes_it_for_a_distributed_sampler():
    assert isinstance(ShardedSampler(range(3), 2, 1), DistributedSampler)


def test_order_is_the_same_in_every_epoch():
    sampler = ShardedSampler(range(5), 2, 0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) == first == [0, 2, 4]


def test_placeholder_repeats_the_first_image_and_keeps_its_label(tmp_path):
    data = CamVid(make_camvid(tmp_path), num_workers=0)
    data.setup("test")
    dataset = data.test_dataloader().dataset
    placeholder, first = dataset[PLACEHOLDER], dataset[0]
    assert placeholder["index"] == -1
    assert placeholder["name"] == first["name"]
    assert placeholder["label"] is not None
    assert (placeholder["label"] == first["label"]).all()
