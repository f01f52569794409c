"""Text and array sources, tokenizers, packing, and batches that are pure functions of (seed, step)."""

from diffusion.data.batches import batches, evaluation_batches, prefetch
from diffusion.data.dataset import Dataset, dataset_from_arrays
from diffusion.data.loader import load_dataset
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import Tokenizer

__all__ = [
    "DataSettings",
    "Dataset",
    "Tokenizer",
    "batches",
    "dataset_from_arrays",
    "evaluation_batches",
    "load_dataset",
    "prefetch",
]
