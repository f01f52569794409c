"""Synthetic translation tasks: dialects, whose words must agree, and numbers in words and in digits."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from diffusion.data.settings import DataSettings
from diffusion.data.splits import NAMES, split_of
from diffusion.data.tokenizers import digest
from diffusion.data.types import Pair, Source

SOURCE_WORDS, TARGET_WORDS, DIALECTS = 24, 50, 4
SHARED = 7  # source words, 30 %, that all dialects translate alike
ZIPF = 0.7
SENTENCES = 45_000  # in all splits together
SHORTEST, LONGEST = 4, 8

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
ONES = (ONES + "seventeen eighteen nineteen").split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = ("", "thousand", "million", "billion")
NUMBERS = 30_000
DIGITS = (3, 12)


@functools.cache
def dictionary(seed: int = 0) -> np.ndarray:
    """Target word of each source word in each dialect, [24, 4].

    A dialect never translates two source words alike. `SHARED` source words have one translation in all dialects, the
    others a different one in each; a target word may translate different source words in different dialects.
    """
    rng = np.random.default_rng((seed, 1))
    words = rng.permutation(TARGET_WORDS)
    table = np.zeros((SOURCE_WORDS, DIALECTS), np.int64)
    shared, specific = np.split(rng.permutation(SOURCE_WORDS), [SHARED])
    table[shared] = words[:SHARED, None]
    others = words[SHARED:]
    while True:
        rows = np.stack([rng.permutation(others)[: len(specific)] for _ in range(DIALECTS)], axis=1)
        if all(len(set(row)) == DIALECTS for row in rows.tolist()):
            break
    table[specific] = rows
    return table


def translations(source: list[int], reversed_clauses: bool, seed: int = 0) -> tuple[str, ...]:
    """Translations of a sentence into every dialect.

    With `reversed_clauses` odd dialects reverse each clause of two words.
    """
    table = dictionary(seed)
    turned = [word for start in range(0, len(source), 2) for word in source[start : start + 2][::-1]]
    orders = [turned if reversed_clauses and dialect % 2 else source for dialect in range(DIALECTS)]
    return tuple(" ".join(f"t{table[word, dialect]}" for word in order) for dialect, order in enumerate(orders))


def generated(read: Callable[[str], Iterator[Pair]], settings: DataSettings) -> Source:
    """Source of generated pairs, from a function of the split."""
    content = digest(settings.source, str(settings.reverse), str(settings.seed), "1")
    return Source(settings.source, {split: functools.partial(read, split) for split in NAMES}, content, in_memory=True)


def dialects(settings: DataSettings) -> Source:
    """Sentences of 4 to 8 words of a vocabulary of 24 (Zipf, exponent 0.7), each in one of four dialects.

    The source does not determine the dialect, so the words of a target must agree with one another. The references of a
    sentence are its translations into all four. Sentences are split by the md5 of the source, and occur once in
    validation and test. In `dialects_reversed`, the harder one, odd dialects reverse each clause of two words.
    """
    if settings.reverse:
        raise ValueError("data.reverse: dialects are translated one way; pass --config.data.reverse=False")
    reversed_clauses = settings.source == "dialects_reversed"

    def read(split: str) -> Iterator[Pair]:
        rng = np.random.default_rng((settings.seed, 2))
        frequencies = 1 / np.arange(1, SOURCE_WORDS + 1) ** ZIPF
        lengths = rng.integers(SHORTEST, LONGEST + 1, SENTENCES)
        words = rng.choice(SOURCE_WORDS, (SENTENCES, LONGEST), p=frequencies / frequencies.sum())
        target_dialects = rng.integers(0, DIALECTS, SENTENCES)
        seen = set()
        for row, length, dialect in zip(words.tolist(), lengths.tolist(), target_dialects.tolist(), strict=True):
            source = " ".join(f"s{word}" for word in row[:length])
            if split_of(source) != split or (split != "train" and source in seen):
                continue
            seen.add(source)
            references = translations(row[:length], reversed_clauses, settings.seed)
            yield Pair(source, references[dialect], references)

    return generated(read, settings)


def spell_number(number: int) -> str:
    """Number in British English, for 0 .. 10^12 - 1, else a ValueError: 305 is "three hundred and five"."""
    if not 0 <= number < 1000 ** len(SCALES):
        raise ValueError(f"data.source: number_words knows numbers of up to {DIGITS[1]} digits, not {number}")
    groups, parts = number, []
    for scale in SCALES:
        groups, group = divmod(groups, 1000)
        hundreds, rest = divmod(group, 100)
        words = [f"{ONES[hundreds]} hundred"] if hundreds else []
        if rest and (hundreds or (not scale and number >= 1000)):
            words.append("and")
        if rest:
            words.append(ONES[rest] if rest < 20 else TENS[rest // 10] + (f" {ONES[rest % 10]}" if rest % 10 else ""))
        if words:
            parts.append(" ".join([*words, scale]).strip())
    return " ".join(parts[::-1]) or ONES[0]


def number_words(settings: DataSettings) -> Source:
    """Numbers of 3 to 12 digits, uniform over the number of digits: "three hundred and five" is "3 0 5".

    `data.reverse` is from digits to words.
    """

    def read(split: str) -> Iterator[Pair]:
        rng = np.random.default_rng((settings.seed, 3))
        seen = set()
        for length in rng.integers(DIGITS[0], DIGITS[1] + 1, NUMBERS).tolist():
            number = int(rng.integers(10 ** (length - 1), 10**length))
            if split_of(str(number)) == split and (split == "train" or number not in seen):
                seen.add(number)
                words, digits = spell_number(number), " ".join(str(number))
                yield Pair(digits, words) if settings.reverse else Pair(words, digits)

    return generated(read, settings)
