"""Settings and rows that the tests of ready-made arrays share."""

from types import SimpleNamespace


def fields(source, path="", **changes):
    lengths = {"mnist": (784, 256), "cifar10": (3072, 256), "imagenet32": (3072, 256), "density2d": (2, 32)}
    lengths |= {"cifar10_pairs": (2048, 4096)}
    length, vocab_size = lengths.get(source, (64, 16))
    settings = dict(source=source, path=str(path), tokenizer="values", length=length, vocab_size=vocab_size)
    return SimpleNamespace(**(settings | {"validation_images": 2} | changes))


def everything(dataset, split):
    return dataset.split(split).rows(range(len(dataset.split(split))))
