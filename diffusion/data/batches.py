"""Training batches as pure functions of (seed, step), evaluation batches in order, and a prefetcher."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epy

from diffusion.data.arrays import mirror
from diffusion.data.dataset import Dataset

with epy.lazy_imports():
    import grain

Batch = dict[str, np.ndarray]


def _share(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}; pass at least 1")
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(f"process_index: {process_index} is not among {process_count} processes")
    if batch_size % process_count:
        raise ValueError(f"batch_size: {batch_size} does not divide by {process_count} processes; pass a multiple")
    return batch_size // process_count


def batches(
    dataset: Dataset,
    split: str,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    process_index: int = 0,
    process_count: int = 1,
) -> Callable[[int], Batch]:
    """Returns `get(step)`: {"tokens": int32 [b, L], "weights": float32 [b, L]}, a pure function of (seed, step).

    Labeled sources add {"label": int32 [b]}. With `dataset.flip` each training image is mirrored with probability 1/2,
    by a coin that depends on the seed, the step and the row of the global batch alone.

    `batch_size` is the size of the global batch, of which this process gets rows [index * b, (index + 1) * b) with
    b = batch_size / process_count. Epochs follow one another without end, each in its own order (Grain's index
    shuffle); a batch may span two epochs.
    Raises: ValueError when the batch size is not a multiple of the process count or exceeds the split.
    """
    share = _share(batch_size, process_index, process_count)
    rows = dataset.split(split)
    if len(rows) < batch_size:
        raise ValueError(
            f"batch_size: {batch_size} is more than the {len(rows)} examples of the {split} split of "
            f"{dataset.source}; pass a smaller batch or more text"
        )
    order: Any = grain.MapDataset.range(len(rows))
    order = order.shuffle(seed=seed % 2**32).repeat() if shuffle else order.repeat()
    image_shape = dataset.image if dataset.flip and split == "train" else None

    def get(step: int) -> Batch:
        if step < 0:
            raise ValueError(f"step: {step}; steps count from 0")
        first = int(step) * batch_size + process_index * share
        batch = rows.rows([int(order[position]) for position in range(first, first + share)])
        if image_shape is not None:
            coins = np.random.default_rng((seed % 2**32, int(step))).integers(0, 2, batch_size).astype(bool)
            local_coins = coins[process_index * share : (process_index + 1) * share]
            batch["tokens"] = mirror(batch["tokens"], image_shape, local_coins)
        return batch

    return get


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """A finite sequence of batches over a split in order, each read on access."""

    dataset: Dataset
    split: str
    batch_size: int
    examples: int
    process_index: int
    share: int

    def __len__(self) -> int:
        return -(-self.examples // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = index * self.batch_size + self.process_index * self.share
        positions = np.arange(first, first + self.share)
        batch = self.dataset.splits[self.split].rows(np.minimum(positions, self.examples - 1))
        batch["weights"] *= (positions < self.examples)[:, None]
        return batch

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))


def evaluation_batches(
    dataset: Dataset,
    split: str,
    batch_size: int,
    limit: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> EvaluationBatches:
    """Batches of every example of the split (or of the first `limit`), once and in order.

    The last batch is filled with copies of the last example at weight 0, so that weighted means stay exact.
    """
    share = _share(batch_size, process_index, process_count)
    if limit is not None and limit < 1:
        raise ValueError(f"limit: {limit}; pass at least 1 example")
    examples = len(dataset.split(split))
    examples = examples if limit is None else min(limit, examples)
    return EvaluationBatches(dataset, split, batch_size, examples, process_index, share)


def prefetch(get_batch: Callable[[int], Any], start_step: int, depth: int = 2) -> Iterator[Any]:
    """Yields get_batch(start_step), get_batch(start_step + 1), ..., read ahead by a thread.

    An error of `get_batch` is raised in place of its batch. Closing the iterator ends the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        step = start_step
        while not stop.is_set():
            try:
                batch = get_batch(step)
            except BaseException as error:
                return put((None, error))
            put((batch, None))
            step += 1

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        stop.set()
        thread.join(timeout=5)
