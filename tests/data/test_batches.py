"""Batches: pure in (seed, step), a new order in each epoch, the same global batch on any number of hosts."""

import threading

import numpy as np
import pytest

from diffusion.data import batches, dataset_from_arrays, evaluation_batches, prefetch
from diffusion.data.tokenizers import bytes_tokenizer
from tests.checks import refused

EXAMPLES = 10


@pytest.fixture(scope="module")
def dataset():
    tokens = np.arange(EXAMPLES, dtype=np.int32)[:, None] * np.ones((1, 3), np.int32)
    return dataset_from_arrays({"train": tokens, "validation": tokens[:5]}, bytes_tokenizer())


def ids(batch):
    return batch["tokens"][:, 0].tolist()


def test_a_batch_depends_on_seed_and_step_alone(dataset):
    get, again, other = (batches(dataset, "train", 4, seed=seed) for seed in (3, 3, 4))
    forward = [ids(get(step)) for step in range(8)]
    assert [ids(again(step)) for step in reversed(range(8))] == forward[::-1]
    assert [ids(other(step)) for step in range(8)] != forward
    assert get(0)["tokens"].dtype == np.int32 and get(0)["weights"].dtype == np.float32
    assert ids(get(10**9)) == ids(get(10**9))


def test_every_epoch_holds_every_example_once_in_a_new_order(dataset):
    get = batches(dataset, "train", 4, seed=0)
    stream = [example for step in range(10) for example in ids(get(step))]
    epochs = [stream[start : start + EXAMPLES] for start in range(0, 40, EXAMPLES)]
    assert all(sorted(epoch) == list(range(EXAMPLES)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_without_shuffling_the_order_is_that_of_the_source(dataset):
    get = batches(dataset, "train", 4, seed=0, shuffle=False)
    assert [ids(get(step)) for step in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_share_one_global_batch(dataset, hosts):
    whole = batches(dataset, "train", 6, seed=1)
    parts = [batches(dataset, "train", 6, 1, process_index=host, process_count=hosts) for host in range(hosts)]
    for step in (0, 1, 7):
        assert [i for part in parts for i in ids(part(step))] == ids(whole(step))
    finite = evaluation_batches(dataset, "train", 6)
    shares = [evaluation_batches(dataset, "train", 6, process_index=host, process_count=hosts) for host in range(hosts)]
    for index, batch in enumerate(finite):
        for name, array in batch.items():
            np.testing.assert_array_equal(np.concatenate([share[index][name] for share in shares]), array)


def test_evaluation_has_every_example_once_and_fill_of_weight_0(dataset):
    evaluation = list(evaluation_batches(dataset, "train", 4))
    assert len(evaluation_batches(dataset, "train", 4)) == len(evaluation) == 3
    assert all(batch["tokens"].shape == (4, 3) for batch in evaluation)
    assert evaluation[2]["weights"].tolist() == [[1.0] * 3, [1.0] * 3, [0.0] * 3, [0.0] * 3]
    total = sum((batch["tokens"] * batch["weights"]).sum() for batch in evaluation)
    assert total / sum(batch["weights"].sum() for batch in evaluation) == np.mean(range(EXAMPLES))
    assert [ids(batch) for batch in evaluation_batches(dataset, "train", 4, limit=4)] == [[0, 1, 2, 3]]
    (larger,) = evaluation_batches(dataset, "validation", 8)  # a split smaller than the batch
    assert larger["weights"].sum() == 15


@pytest.mark.parametrize(
    ("split", "size", "options", "message"),
    [
        ("train", 5, {"process_count": 2}, "batch_size: 5 does not divide by 2 processes"),
        ("train", 11, {}, "batch_size: 11 is more than the 10 examples"),
        ("train", 0, {}, "batch_size: 0"),
        ("train", 4, {"process_index": 2, "process_count": 2}, "process_index: 2"),
        ("test", 4, {}, "has no 'test' examples"),
    ],
)
def test_batch_sizes_that_do_not_divide_or_fit_are_refused(dataset, split, size, options, message):
    with refused(message):
        batches(dataset, split, size, 0, **options)


def test_prefetch_keeps_order_passes_errors_and_ends_its_thread(dataset):
    get = batches(dataset, "train", 4, seed=0)
    reader = prefetch(get, start_step=5, depth=3)
    assert [ids(next(reader)) for _ in range(4)] == [ids(get(step)) for step in range(5, 9)]
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]

    def fails(step):
        if step == 2:
            raise RuntimeError("no third batch")
        return step

    failing = prefetch(fails, 0)
    assert [next(failing), next(failing)] == [0, 1]
    with pytest.raises(RuntimeError, match="no third batch"):
        next(failing)
