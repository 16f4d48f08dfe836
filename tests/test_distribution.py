"""However images are divided among processes, batched and ordered: the same whole numbers as in one process."""

import multiprocessing
import os
import random

import pytest
import torch
from data_files import make_camvid
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed
from torch.utils.data import DistributedSampler

from lightning_expedite.data import CamVid
from lightning_expedite.data.dataset import PLACEHOLDER, ShardedSampler
from lightning_expedite.evaluation import Prediction, SegmenterModule
from lightning_expedite.evaluation.metrics import SegmentationScores

pytestmark = pytest.mark.promise("distribution")

CLASSES, SIZE = 5, (7, 9)
IMAGES = range(1, 18)
BATCHES = (1, 2, 3, 5, 17)
PROCESSES = (1, 2, 3, 4)


# --- Which process gets which image ------------------------------------------------------------------


@st.composite
def divisions(draw):
    images = draw(st.integers(1, 17))
    return images, draw(st.integers(1, 4)), draw(st.frozensets(st.integers(0, images - 1)))


@given(divisions())
@settings(max_examples=300, deadline=None)
def test_every_image_that_is_not_finished_goes_to_one_process(drawn):
    images, processes, finished = drawn
    samplers = [ShardedSampler(range(images), processes, rank, finished=finished) for rank in range(processes)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    given_out = [position for share in shares for position in share if position != PLACEHOLDER]
    assert sorted(given_out) == [position for position in range(images) if position not in finished]
    for share in shares:
        assert share == sorted(share)
        assert PLACEHOLDER not in share or share == [PLACEHOLDER]
    assert max(map(len, shares)) - min(len(share) for share in shares if share) <= 1


def test_an_idle_process_reads_the_first_image_as_a_placeholder_with_its_label(tmp_path):
    """Lightning replaces samplers that are not distributed, and shuffles by epoch those that are."""
    dataset = CamVid(make_camvid(tmp_path)).open_dataset()
    sampler = ShardedSampler(dataset, num_replicas=3, rank=2)
    sampler.set_epoch(1)
    assert isinstance(sampler, DistributedSampler)
    assert list(sampler) == [PLACEHOLDER]
    placeholder, first = dataset[PLACEHOLDER], dataset[0]
    assert placeholder["index"] == -1
    assert placeholder["name"] == first["name"]
    assert torch.equal(placeholder["label"], first["label"])


# --- Their counts, summed by real process groups -----------------------------------------------------


def label_of(index, seed):
    generator = torch.Generator().manual_seed(1000 * seed + index)
    return torch.randint(0, CLASSES - (index % 2), SIZE, generator=generator)


class CountingModule(SegmenterModule):
    """The module with made-up predictions, which depend on the image alone."""

    def __init__(self):
        super().__init__(checkpoint="none")
        self.scores = SegmentationScores(CLASSES)

    def predict(self, sample):
        return Prediction(
            label_of(sample["index"], 1), 1 + sample["index"] % 4, sample["index"] % 3, torch.tensor(True)
        )

    def _check_outputs(self, sample, prediction):
        pass  # there are neither pixels nor logits

    def log_dict(self, *_, **__):
        pass  # to the trainer, which is not here


def sample_of(index):
    label = label_of(max(index, 0), 2)
    label[0] = 255
    return {"index": index, "name": f"image{index}", "size": SIZE, "views": [], "label": label}


def count(positions, batch_size):
    """Count images with a module, and return everything that is written to the results."""
    module = CountingModule()
    module.on_test_epoch_start()
    for start in range(0, len(positions), batch_size):
        module.test_step([sample_of(index) for index in positions[start : start + batch_size]], start)
    module.on_test_epoch_end()
    numbers = {
        name: module.result[name].tolist() for name in ("intersection", "union", "prediction", "label", "mIoU", "mAcc")
    }
    return numbers, module.images


def divide(rank, processes):
    """Count the same images as one of several processes, in many ways; in some, their order is shuffled."""
    found = []
    for images in IMAGES:
        for batch_size in BATCHES:
            positions = list(ShardedSampler(range(images), processes, rank))
            if batch_size > 1:
                random.Random(f"{rank} {images} {batch_size}").shuffle(positions)
            found.append(count(positions, batch_size))
    return found


def split_anyhow(rank, processes):
    """Count the same images, divided at random: some processes get none, or all."""
    found = []
    for images in IMAGES:
        chance = random.Random(images)  # every process draws the same
        owners = [chance.choice([0, *range(processes)]) for _ in range(images)]
        own = [index for index, owner in enumerate(owners) if owner == rank] or [PLACEHOLDER]
        chance.shuffle(own)
        found.append(count(own, 2))
    return found


def in_processes(work, processes, folder):
    """Do ``work(rank, processes)`` in a gloo group of forked processes; gives the answers by rank."""
    context = multiprocessing.get_context("fork")  # the packages are imported already
    answers = [context.Pipe(duplex=False) for _ in range(processes)]

    def one(rank):
        torch.set_num_threads(1)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        place = f"file://{folder}/group"
        distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=processes)
        answers[rank][1].send(work(rank, processes))
        distributed.destroy_process_group()

    started = [context.Process(target=one, args=(rank,)) for rank in range(processes)]
    for process in started:
        process.start()
    found = []
    for process, (answer, _) in zip(started, answers, strict=True):
        assert answer.poll(60), "a process gave no answer"
        found.append(answer.recv())
        process.join()
    assert [process.exitcode for process in started] == [0] * processes
    return found


@pytest.fixture(scope="module")
def alone():
    """What a single process counts, one image after another."""
    return {images: count(list(range(images)), 1) for images in IMAGES}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("work", [divide, split_anyhow])
@pytest.mark.parametrize("processes", PROCESSES)
def test_counts_and_rows_are_those_of_one_process(processes, work, alone, tmp_path):
    expected = [alone[images] for images in IMAGES for _ in (BATCHES if work is divide else (2,))]
    for found in in_processes(work, processes, tmp_path):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one == other
