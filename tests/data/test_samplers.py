import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.data.samplers import PKSampler, RandomBatchSampler
from reidlib.errors import InputError


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def lists(batches):
    return [batch.tolist() for batch in batches]


def samplers():
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 0, 0] * 3)
    return [
        lambda: RandomBatchSampler(23, 4, generator()),
        lambda: RandomBatchSampler(23, 4, generator(), drop_last=False),
        lambda: PKSampler(labels, 3, 2, generator()),
    ]


@given(size=st.integers(1, 60), share=st.floats(0.01, 1), drop=st.booleans(), seed=st.integers(0, 99))
def test_random_batches_are_a_shuffled_partition(size, share, drop, seed):
    batch_size = max(1, int(size * share))
    sampler = RandomBatchSampler(size, batch_size, generator(seed), drop_last=drop)
    batches = lists(sampler)
    assert len(batches) == len(sampler)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    indices = torch.cat(list(map(torch.tensor, batches))).tolist() if batches else []
    assert len(set(indices)) == len(indices) == (size // batch_size * batch_size if drop else size)
    assert set(indices) <= set(range(size))


@settings(deadline=None)
@given(data=st.data())
def test_identity_batches_are_p_identities_times_k_images(data):
    counts = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    labels = torch.cat([torch.full((count,), 10 * i) for i, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=generator(data.draw(st.integers(0, 9))))]
    identities = data.draw(st.integers(1, len(counts)))
    images = data.draw(st.integers(1, 6))
    sampler = PKSampler(labels, identities, images, generator(data.draw(st.integers(0, 9))))
    batches = list(sampler)
    assert len(batches) == len(sampler) == max(1, len(labels) // (identities * images))
    for batch in batches:
        groups = labels[batch].view(identities, images)
        assert (groups == groups[:, :1]).all()  # each row of K is one person
        assert len(groups[:, 0].unique()) == identities
        for row in batch.view(identities, images):
            num_images = int((labels == labels[row[0]]).sum())
            indices, times = row.unique(return_counts=True)
            assert len(indices) == min(num_images, images)
            assert times.max() - times.min() <= 1  # repeated as evenly as possible


def test_both_samplers_agree_on_an_epochs_length():
    labels = torch.arange(50) % 10
    assert len(PKSampler(labels, 4, 3, generator())) == len(RandomBatchSampler(50, 12, generator())) == 4


def test_no_identity_repeats_before_nearly_all_are_drawn():
    labels = torch.arange(90) % 9
    sampler = PKSampler(labels, 3, 2, generator())
    first_round = torch.cat(list(sampler)[:3])
    assert len(labels[first_round].unique()) == 9


@pytest.mark.parametrize("make", samplers())
def test_epochs_differ_and_seeds_repeat(make):
    sampler, again = make(), make()
    first, second = lists(sampler), lists(sampler)
    assert first != second
    assert [lists(again), lists(again)] == [first, second]


@pytest.mark.parametrize("make", samplers())
@pytest.mark.parametrize("epochs, steps", [(0, 0), (0, 2), (1, 0), (2, 3)])
def test_resuming_anywhere_continues_exactly(make, epochs, steps):
    sampler = make()
    for _ in range(epochs):
        list(sampler)
    batches = iter(sampler)
    for _ in range(steps):
        next(batches)
    stored = io.BytesIO()
    torch.save(sampler.state_dict(), stored)
    stored.seek(0)
    rest = [lists(batches), lists(sampler)]
    resumed = make()
    list(resumed)  # whatever it did before is forgotten
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    once_more = make()
    once_more.load_state_dict(resumed.state_dict())  # saved again before another step
    assert [lists(resumed), lists(resumed)] == rest
    assert [lists(once_more), lists(once_more)] == rest


@pytest.mark.parametrize("make", samplers())
def test_yielded_but_unused_batches_are_repeated(make):
    sampler = make()
    epoch = lists(sampler)  # all prefetched
    following = lists(make_after(make, 1))
    state = sampler.state_dict(num_used=2)
    resumed = make()
    resumed.load_state_dict(state)
    assert lists(resumed) == epoch[2:]
    assert lists(resumed) == following


def make_after(make, epochs):
    sampler = make()
    for _ in range(epochs):
        list(sampler)
    return sampler


def test_more_used_batches_than_drawn_are_refused():
    sampler = RandomBatchSampler(10, 5, generator())
    list(sampler)
    with pytest.raises(InputError, match="the epoch's 2; got 3"):
        sampler.state_dict(num_used=3)


def test_a_state_of_another_configuration_is_refused():
    sampler = RandomBatchSampler(10, 5, generator())
    list(sampler)
    with pytest.raises(InputError, match="epochs of 2 batches instead of 5"):
        RandomBatchSampler(10, 2, generator()).load_state_dict(sampler.state_dict())


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: RandomBatchSampler(5, 6, generator()), "at most all 5 images; got batch size 6"),
        (lambda: RandomBatchSampler(5, 0, generator()), "got batch size 0"),
        (lambda: RandomBatchSampler(0, 1, generator()), "all 0 images"),
        (lambda: PKSampler(torch.tensor([1, 1, 2]), 3, 2, generator()), "all 2 identities; got 3"),
        (lambda: PKSampler(torch.tensor([1, 1, 2]), 0, 2, generator()), "got 0 identities"),
        (lambda: PKSampler(torch.tensor([1, 1, 2]), 1, 0, generator()), "one image of each"),
    ],
)
def test_batches_that_the_data_cannot_fill_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
