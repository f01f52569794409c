"""Token ids of prompts for the text encoders of image generators and reward models: CLIP's BPE and BERT's WordPiece."""

import gzip
import html
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tokenizers as hf
from jaxtyping import Int32

from diffusion.data.subword import byte_alphabet

Ids = Int32[np.ndarray, "N S"]
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
OPENAI_FILE, OPENAI_MERGES = "bpe_simple_vocab_16e6.txt.gz", 49152 - 256 - 2
# Contractions, words, single digits, and runs of other characters. The names of special tokens are ordinary text.
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
STRAIGHT_QUOTES = str.maketrans(dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'") | dict.fromkeys("“”„‟", '"'))
BERT_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def clean(prompt: str) -> str:
    """Return a prompt in lower case with single spaces, HTML entities replaced, and characters composed (NFC).

    Curly quotes become straight, as `ftfy.fix_text` of OpenAI's tokenizer makes them. Its other repairs, such as those
    of wrongly decoded text, ligatures, full-width letters and control characters, are left out.
    """
    composed = unicodedata.normalize("NFC", prompt.translate(STRAIGHT_QUOTES))
    return " ".join(html.unescape(html.unescape(composed)).split()).lower()


@dataclass(frozen=True)
class CLIPTokenizer:
    """CLIP's byte-level BPE of cleaned prompts: begin, at most length - 2 tokens, end, and padding to the length."""

    library: hf.Tokenizer
    begin: int
    end: int
    pad: int
    length: int = 77

    def __call__(self, prompts: list[str]) -> Ids:
        """Return the ids [prompts, length]; longer prompts are cut before the end token."""
        ids = np.full((len(prompts), self.length), self.pad, np.int32)
        for row, encoding in zip(ids, self.library.encode_batch([clean(prompt) for prompt in prompts]), strict=True):
            tokens = [self.begin, *encoding.ids[: self.length - 2], self.end]
            row[: len(tokens)] = tokens
        return ids


class PromptTokens(NamedTuple):
    """Ids, and 1 for each that is not padding."""

    ids: Ids
    mask: Ids


@dataclass(frozen=True)
class BERTTokenizer:
    """BERT's uncased WordPiece: [CLS], at most length - 2 tokens, [SEP], and [PAD] to the length."""

    library: hf.Tokenizer
    begin: int
    end: int
    pad: int
    length: int = 35  # of ImageReward

    def __call__(self, prompts: list[str]) -> PromptTokens:
        """Return ids and mask [prompts, length]; longer prompts are cut before [SEP]."""
        ids = np.full((len(prompts), self.length), self.pad, np.int32)
        mask = np.zeros_like(ids)
        for index, encoding in enumerate(self.library.encode_batch(prompts, add_special_tokens=False)):
            tokens = [self.begin, *encoding.ids[: self.length - 2], self.end]
            ids[index, : len(tokens)], mask[index, : len(tokens)] = tokens, 1
        return PromptTokens(ids, mask)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = (line.split() for line in text.split("\n") if not line.startswith("#version"))
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _openai_files(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges; ids are those of bytes, bytes that end a word, merges, begin and end."""
    try:
        text = gzip.decompress(file.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"tokenizer: '{file}' cannot be read ({error}); download it again") from None
    pairs = _pairs("\n".join(text.split("\n")[1 : OPENAI_MERGES + 1]))  # after a header
    symbols = list(byte_alphabet())
    names = [*symbols, *(symbol + WORD_END for symbol in symbols), *map("".join, pairs), BEGIN, END]
    return {name: index for index, name in enumerate(names)}, pairs


def _hugging_face_files(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise ValueError(
                f"tokenizer: '{folder}' has no {name}; pass a folder with vocab.json and merges.txt, such as "
                f"'tokenizer' of a published model, or with {OPENAI_FILE}"
            )
    try:
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return vocabulary, _pairs((folder / "merges.txt").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"tokenizer: vocab.json or merges.txt of '{folder}' cannot be read ({error})") from None


def load_clip_tokenizer(folder: str | Path, pad: Literal["end", "zero"] = "end", length: int = 77) -> CLIPTokenizer:
    """Return the tokenizer of a folder with vocab.json and merges.txt, or with bpe_simple_vocab_16e6.txt.gz.

    Padding is the end token for CLIP ViT-L/14 in Stable Diffusion, and id 0 for its bigG encoder and for OpenCLIP, HPS
    and OpenAI's code. The ids at and before the first end token do not depend on it.

    Raises:
      ValueError: naming the folder and a file that is missing, damaged, or without an entry.
    """
    path = Path(folder).expanduser()
    openai = path / OPENAI_FILE
    vocabulary, pairs = _openai_files(openai) if openai.is_file() else _hugging_face_files(path)
    for name in (BEGIN, END):
        if name not in vocabulary:
            raise ValueError(f"tokenizer: vocab.json of '{path}' has no {name}; is it the tokenizer of CLIP?")
    try:
        model = hf.models.BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix=WORD_END, unk_token=END)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"tokenizer: merges of '{path}' do not fit its vocabulary ({error})") from None
    library = hf.Tokenizer(model)
    library.pre_tokenizer = hf.pre_tokenizers.Sequence(
        [
            hf.pre_tokenizers.Split(hf.Regex(PIECES), behavior="removed", invert=True),
            hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    end = vocabulary[END]
    return CLIPTokenizer(library, vocabulary[BEGIN], end, end if pad == "end" else 0, length)


def load_bert_tokenizer(folder: str | Path, length: int = 35) -> BERTTokenizer:
    """Return the tokenizer of a folder with vocab.txt of bert-base-uncased.

    Raises:
      ValueError: naming the folder, if the file is missing or has not the tokens [PAD], [UNK], [CLS] and [SEP].
    """
    path = Path(folder).expanduser()
    file = path / "vocab.txt"
    if not file.is_file():
        raise ValueError(f"tokenizer: '{path}' has no vocab.txt; pass a folder with that of bert-base-uncased")
    names = file.read_text(encoding="utf-8").split("\n")
    vocabulary = {name.rstrip("\r"): index for index, name in enumerate(names) if name}
    for name in BERT_NAMES:
        if name not in vocabulary:
            raise ValueError(f"tokenizer: '{file}' has no {name}; is it the vocabulary of bert-base-uncased?")
    library = hf.Tokenizer(hf.models.WordPiece(vocabulary, unk_token="[UNK]"))
    library.normalizer = hf.normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    pad, _, begin, end = (vocabulary[name] for name in BERT_NAMES)
    return BERTTokenizer(library, begin, end, pad, length)
