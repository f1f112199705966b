"""Prefetched batches of two samplers: switching loses nothing, and a checkpoint resumes exactly."""

import io
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.data.images import ImageStore
from reidlib.data.samplers import PKSampler, Prefetcher, RandomBatchSampler
from reidlib.errors import InputError

COUNT = 24
LABELS = torch.arange(COUNT) % 6


def store():
    """Images whose pixel values are their numbers."""
    numbers = np.arange(COUNT, dtype=np.uint8)[:, None, None, None]
    return ImageStore(np.broadcast_to(numbers, (COUNT, 2, 2, 3)).copy(), torch.device("cpu"))


def samplers():
    return {
        "random": RandomBatchSampler(COUNT, 4, torch.Generator().manual_seed(1)),
        "identity": PKSampler(LABELS, 2, 2, torch.Generator().manual_seed(2)),
    }


def batches_of(feeds, names):
    batches = []
    for name in names:
        indices, images = feeds.next(name)
        assert images[:, 0, 0, 0].tolist() == indices.tolist()  # the pictures belong to the numbers
        batches.append(indices.tolist())
    return batches


def alone(name, count):
    """The batches of a sampler without prefetching and switching."""
    sampler, batches = samplers()[name], []
    while len(batches) < count:
        batches += [batch.tolist() for batch in sampler]
    return batches[:count]


choices = st.lists(st.sampled_from(["random", "identity"]), max_size=40)


@settings(deadline=None)
@given(choices)
def test_switching_at_any_step_loses_and_repeats_nothing(names):
    with Prefetcher(store(), samplers()) as feeds:
        batches = batches_of(feeds, names)
    for name in ("random", "identity"):
        sampler_batches = [batch for batch, of in zip(batches, names, strict=True) if of == name]
        assert sampler_batches == alone(name, len(sampler_batches))


@settings(deadline=None)
@given(before=choices, after=choices)
def test_resuming_anywhere_continues_exactly(before, after):
    with Prefetcher(store(), samplers()) as feeds:
        batches_of(feeds, before)
        stored = io.BytesIO()
        torch.save(feeds.state_dict(), stored)
        rest = batches_of(feeds, after)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    with Prefetcher(store(), samplers()) as resumed:
        batches_of(resumed, ["random", "identity", "identity"])  # whatever it did before is forgotten
        resumed.load_state_dict(state)
        again = Prefetcher(store(), samplers())
        again.load_state_dict(resumed.state_dict())  # saved again before another step
        assert batches_of(resumed, after) == rest
    with again:
        assert batches_of(again, after) == rest


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_each_batch_without_overlap(processes):
    names = ["identity", "random", "random", "identity"] * 3
    with Prefetcher(store(), samplers()) as feeds:
        whole = batches_of(feeds, names)
    parts = []
    for rank in range(processes):
        with Prefetcher(store(), samplers(), (rank, processes)) as feeds:
            parts.append(batches_of(feeds, names))
    assert [list(chain(*batch)) for batch in zip(*parts, strict=True)] == whole


def test_a_state_of_other_samplers_is_refused():
    prefetcher = Prefetcher(store(), {"random": samplers()["random"]})
    with pytest.raises(InputError, match="random, identity instead of random"):
        prefetcher.load_state_dict(Prefetcher(store(), samplers()).state_dict())
