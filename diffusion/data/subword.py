"""Subword tokenizers of the `tokenizers` library: trained BPE, GPT-2, WordPiece, and any tokenizer.json."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers as hf

from diffusion.data.pieces import Document, regular
from diffusion.data.tokenizers import END_TEXT, EncodedText, Tokenizer, digest, piece_spans, utf8_widths

SAMPLE_CHARACTERS = 8_000_000
"""Characters of the training split, from its start, on which a BPE is trained."""

END_NAMES = (END_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
BEGIN_NAMES = ("<|begin_of_text|>", "<s>", "<bos>", "[CLS]")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable symbol of each byte: printable Latin-1 is itself, other bytes follow from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def byte_level(name: str, library: hf.Tokenizer, vocab_size: int, end: int) -> Tokenizer:
    """Wraps a byte-level BPE; decodes and counts by the bytes of each token, hence exactly."""
    alphabet = byte_alphabet()
    vocabulary = library.get_vocab()
    pieces = [b""] * vocab_size
    for token, index in vocabulary.items():
        if index != end:
            pieces[index] = bytes(alphabet[symbol] for symbol in token)
    widths, starts = piece_spans(pieces)

    def encode_spans(texts: Sequence[str]) -> list[EncodedText]:
        results = []
        for encoding in library.encode_batch_fast(list(texts), add_special_tokens=False):
            ids = np.array(encoding.ids, np.int32)
            results.append(EncodedText(ids, starts[ids], widths[ids]))
        return results

    def decode_text(ids: np.ndarray) -> str:
        return b"".join(pieces[index] for index in np.asarray(ids)).decode("utf-8", errors="replace")

    content = library.to_str()
    fingerprint = digest(name, json.dumps(json.loads(content)["model"], sort_keys=True), str(end))
    arguments = {"name": name, "library": content, "vocab_size": vocab_size, "end": end}
    counted = {"token_characters": starts, "token_bytes": widths, "divides": "words"}
    return Tokenizer(name, vocab_size, end, end, fingerprint, encode_spans, decode_text, **counted, arguments=arguments)


def byte_level_of(name: str, library: str, vocab_size: int, end: int) -> Tokenizer:
    """`byte_level` of the text of a tokenizer.json."""
    return byte_level(name, hf.Tokenizer.from_str(library), vocab_size, end)


def with_offsets(name: str, library: hf.Tokenizer, end: int | None, begin: int | None) -> Tokenizer:
    """Wraps any other tokenizer; a token covers the text from the end of its predecessor to its own end."""
    arguments = {"name": name, "library": library.to_str(), "end": end, "begin": begin}
    size = 1 + max(library.get_vocab(with_added_tokens=True).values())
    if end is None:
        end, size = size, size + 1
    begin = end if begin is None else begin

    def encode_spans(texts: Sequence[str]) -> list[EncodedText]:
        results = []
        for text, encoding in zip(texts, library.encode_batch(list(texts), add_special_tokens=False), strict=True):
            ids = np.array(encoding.ids, np.int32)
            if (special := np.isin(ids, (end, begin))).any():
                start, stop = encoding.offsets[int(np.argmax(special))]
                raise ValueError(
                    f"data.tokenizer_path: {text[start:stop]!r} in a text is the start or the end of a document to "
                    f"tokenizer {name!r}; pass another one"
                )
            ends = np.array([stop for _, stop in encoding.offsets], np.int64)
            if len(ends):
                ends = np.maximum.accumulate(ends)
                ends[-1] = len(text)
            codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            before = np.concatenate([[0], np.cumsum(utf8_widths(codes))])
            characters = np.diff(ends, prepend=0).astype(np.int32)
            results.append(EncodedText(ids, characters, np.diff(before[ends], prepend=0).astype(np.int32)))
        return results

    def decode_text(ids: np.ndarray) -> str:
        return library.decode([int(index) for index in ids], skip_special_tokens=False)

    fingerprint = digest(name, json.dumps(json.loads(arguments["library"]), sort_keys=True), str(end))
    # Without a split into words a token may depend on all of its text.
    divides = "words" if library.pre_tokenizer else "nowhere"
    return Tokenizer(
        name, size, end, begin, fingerprint, encode_spans, decode_text, divides=divides, arguments=arguments
    )


def with_offsets_of(name: str, library: str, end: int | None, begin: int | None) -> Tokenizer:
    """`with_offsets` of the text of a tokenizer.json, to which the names of special tokens are text."""
    read = hf.Tokenizer.from_str(library)
    read.encode_special_tokens = True
    return with_offsets(name, read, end, begin)


def unreachable(library: hf.Tokenizer, names: Sequence[str]) -> hf.Tokenizer:
    """The tokenizer with other names for those special tokens of which the model reads the name as the token.

    A vocabulary of pieces (Unigram) or words holds the names like any other, whatever `encode_special_tokens` says.
    """
    known = library.get_vocab(with_added_tokens=True)

    def reached(name: str) -> bool:
        texts = [name, f"a {name}", f"a{name}", f"{name} {name}"]
        return any(known[name] in each.ids for each in library.encode_batch(texts, add_special_tokens=False))

    renamed = {name: f"\uffff{name}" for name in names if reached(name)}  # no character of a text
    if not renamed:
        return library
    content = json.loads(library.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in renamed]
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {renamed.get(piece, piece): index for piece, index in model["vocab"].items()}
    else:
        model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in model["vocab"]]
    return hf.Tokenizer.from_str(json.dumps(content))


def _byte_level_library(model: hf.models.BPE) -> hf.Tokenizer:
    library = hf.Tokenizer(model)
    library.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = hf.decoders.ByteLevel()
    return library


def trained_bpe(documents: Iterable[Document], vocab_size: int, file: Path) -> Tokenizer:
    """Byte-level BPE of `vocab_size` tokens (the last is EOS) trained on a bounded prefix of the documents.

    Saved as `file` (tokenizer.json), which is reused when it is there and whole. Sources order their documents
    by hash where order has no meaning, so that the prefix is a fair sample. A small text may yield fewer tokens.
    """
    try:
        library = hf.Tokenizer.from_file(str(file))
    except Exception:  # the library raises bare Exception; a damaged file is replaced, as a missing one is written
        library = _byte_level_library(hf.models.BPE())
        trainer = hf.trainers.BpeTrainer(
            vocab_size=vocab_size - 1, initial_alphabet=sorted(byte_alphabet()), show_progress=False
        )
        library.train_from_iterator(_prefix(documents), trainer)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(library.to_str())
        os.replace(partial, file)
    size = library.get_vocab_size() + 1
    return byte_level("bpe", library, size, size - 1)


def _prefix(documents: Iterable[Document]) -> Iterable[str]:
    left = SAMPLE_CHARACTERS
    for document in documents:
        # Pieces bound the memory of pre-tokenization when the corpus is one long line.
        for piece in regular(document, 100_000):
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return


def _locate(field_value: str, names: Sequence[str], tokenizer: str, where: str) -> Path:
    folder = Path(field_value).expanduser()
    for candidate in (folder, *(folder / name for name in names)):
        if field_value and candidate.is_file():
            return candidate
    raise ValueError(f"data.tokenizer_path: {tokenizer} expects {' or '.join(names)} in {field_value!r}; {where}")


@contextlib.contextmanager
def undamaged(files: object, remedy: str) -> Iterator[None]:
    """Converts errors of files that hold no vocabulary to a ValueError about `data.tokenizer_path`."""
    try:
        yield
    except Exception as error:  # the library raises bare Exception
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"data.tokenizer_path: {files} cannot be read ({reason}); {remedy}") from None


def gpt2(path: str) -> Tokenizer:
    """GPT-2's byte-level BPE from a folder with vocab.json (encoder.json) and merges.txt (vocab.bpe)."""
    where = "both files are at https://huggingface.co/openai-community/gpt2"
    folder = str(Path(path).expanduser().parent) if path and Path(path).expanduser().is_file() else path
    vocabulary_file = _locate(folder, ("vocab.json", "encoder.json"), "gpt2", where)
    merges_file = _locate(folder, ("merges.txt", "vocab.bpe"), "gpt2", where)
    with undamaged(vocabulary_file, where):
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        missing = END_TEXT not in vocabulary
    if missing:
        raise ValueError(f"data.tokenizer_path: {vocabulary_file} has no {END_TEXT}; {where}")
    with undamaged(f"{vocabulary_file} or {merges_file.name}", where):
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        library = _byte_level_library(hf.models.BPE(vocab=vocabulary, merges=pairs))
        return byte_level("gpt2", library, max(vocabulary.values()) + 1, vocabulary[END_TEXT])


def wordpiece(path: str) -> Tokenizer:
    """BERT's uncased WordPiece from vocab.txt, with [CLS] as BOS and [SEP] as EOS. Decoding does not restore case."""
    where = "it is at https://huggingface.co/google-bert/bert-base-uncased"
    file = _locate(path, ("vocab.txt",), "wordpiece", where)
    with undamaged(file, where):
        lines = file.read_text(encoding="utf-8").split("\n")
    vocabulary = {token: index for index, token in enumerate(lines) if token}
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
    if missing:
        raise ValueError(f"data.tokenizer_path: {file} has no {missing[0]}; {where}")
    library = hf.Tokenizer(hf.models.WordPiece(vocabulary, unk_token="[UNK]"))
    library.normalizer = hf.normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    library.decoder = hf.decoders.WordPiece()
    return with_offsets("wordpiece", library, vocabulary["[SEP]"], vocabulary["[CLS]"])


def from_file(path: str) -> Tokenizer:
    """Any Hugging Face tokenizer.json, with EOS and BOS by their usual names, or an EOS after its vocabulary."""
    file = _locate(path, ("tokenizer.json",), "file", "pass a Hugging Face tokenizer.json or its folder")
    try:
        library = hf.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"data.tokenizer_path: {file} is not a tokenizer.json ({error})") from None
    library.no_padding()
    library.no_truncation()
    library.encode_special_tokens = True  # the text of a document must not be able to end it
    known = library.get_vocab(with_added_tokens=True)
    names = [next((name for name in group if name in known), None) for group in (END_NAMES, BEGIN_NAMES)]
    end, begin = (None if name is None else known[name] for name in names)
    content = unreachable(library, [name for name in names if name is not None]).to_str()
    return with_offsets_of("file", content, end, begin)
