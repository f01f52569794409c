"""Tokenizers of molecules and genomes, whose end and padding are tokens that a model predicts like any other."""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tokenizers as hf
from jaxtyping import Int, Integer, UInt8

from diffusion.data.tokenizers import EncodedText, Tokenizer, digest, one_document

SMILES = r"\[[^\]]+\]|Br|Cl|B|C|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>|\*|\$|%[0-9]{2}|[0-9]"
SMILES += r"|%\([0-9]{3,5}\)"
"""Tokens of a SMILES string: atoms (in brackets or not), bonds, branches, ring closures (arXiv 1811.02633).

Ring closures from 100 on, such as %(100), are those of OpenSMILES.
"""

NUCLEOTIDES, RNA = "ACGTN", "ACGUN"
AMBIGUOUS = "RYSWKMBDHVX"
"""Ambiguous letters of the IUPAC code, which become N."""
GAPS = ".-"
"""Gaps of alignments, which become N."""
N = NUCLEOTIDES.index("N")


def document_tokenizer(
    name: str, symbols: Sequence[str], encode_ids: Callable[[Sequence[str]], list[Int[np.ndarray, " N"]]], begin: bool
) -> Tokenizer:
    """Tokenizer of `symbols` in id order, then <bos> (if `begin`), <eos> and <pad>.

    A sequence is one document: its text ends at the first <eos>, and <bos> and <pad> decode to the empty string.
    """
    bos = len(symbols) if begin else None
    eos, filler = len(symbols) + begin, len(symbols) + begin + 1
    table = np.array([*symbols, *[""] * (2 + begin)])
    characters = np.array([len(symbol) for symbol in table], np.int32)
    widths = np.array([len(symbol.encode()) for symbol in table], np.int32)

    def encode_spans(texts: Sequence[str]) -> list[EncodedText]:
        return [EncodedText(ids, characters[ids], widths[ids]) for ids in encode_ids(texts)]

    def decode_text(ids: Integer[np.ndarray, " N"]) -> str:
        return "".join(table[one_document(np.asarray(ids), eos, bos, filler)])

    size = filler + 1
    fingerprint = digest(name, str(size), *symbols)
    return Tokenizer(name, size, eos, bos, fingerprint, encode_spans, decode_text, characters, widths, filler_id=filler)


def word_level(vocabulary: dict[str, int]) -> hf.Tokenizer:
    """Library that splits text into SMILES tokens."""
    library = hf.Tokenizer(hf.models.WordLevel(vocabulary, unk_token="<unk>"))
    library.pre_tokenizer = hf.pre_tokenizers.Split(hf.Regex(SMILES), "isolated")
    return library


def smiles_vocabulary(molecules: Iterable[str]) -> list[str]:
    """Sorted tokens of SMILES strings; includes pieces that are not SMILES tokens unchanged."""
    library = word_level({})
    trainer = hf.trainers.WordLevelTrainer(vocab_size=2**31, min_frequency=0, show_progress=False, special_tokens=[])
    library.train_from_iterator(molecules, trainer)
    return sorted(library.get_vocab())


def pieces(molecule: str) -> list[str]:
    """Text of a SMILES string between, before and after its tokens."""
    return re.split(SMILES, molecule)


def is_smiles_token(piece: str) -> bool:
    """Whether `SMILES` matches the whole piece."""
    return re.fullmatch(SMILES, piece) is not None


def smiles(symbols: Sequence[str]) -> Tokenizer:
    """Tokenizer of SMILES tokens in the order of `symbols`, then <bos>, <eos> and <pad>.

    Raises: ValueError on encoding a token outside `symbols`.
    """
    encode = smiles_ids(symbols)

    def encode_ids(texts: Sequence[str]) -> list[Int[np.ndarray, " N"]]:
        encoded = encode(texts)
        for text, ids in zip(texts, encoded, strict=True):
            if (ids == len(symbols)).any():
                raise ValueError(f"data.tokenizer: {text!r} has SMILES tokens that the training molecules lack")
        return encoded

    return document_tokenizer("smiles", symbols, encode_ids, begin=True)


def smiles_ids(symbols: Sequence[str]) -> Callable[[Sequence[str]], list[Int[np.ndarray, " N"]]]:
    """Encoder of batches of SMILES strings; tokens outside `symbols` become `len(symbols)`."""
    vocabulary = {symbol: index for index, symbol in enumerate([*symbols, "<unk>"])}
    library = word_level(vocabulary)

    def encode(texts: Sequence[str]) -> list[Int[np.ndarray, " N"]]:
        encoded = []
        for start in range(0, len(texts), 1024):  # one batch of all texts takes twice as long
            batch = list(texts[start : start + 1024])
            encodings = library.encode_batch_fast(batch, add_special_tokens=False)
            encoded += [np.array(encoding.ids, np.int32) for encoding in encodings]
        return encoded

    return encode


def nucleotide_table() -> UInt8[np.ndarray, "256"]:
    """Token of each byte: A C G T N in either case, U as T, N for ambiguous letters, 255 for other characters."""
    table = np.full(256, 255, np.uint8)
    ids = dict.fromkeys(AMBIGUOUS + GAPS, N) | {
        letter: index for letters in (NUCLEOTIDES, RNA) for index, letter in enumerate(letters)
    }
    for letter, index in ids.items():
        table[[ord(letter), ord(letter.lower())]] = index
    return table


NUCLEOTIDE_IDS = nucleotide_table()


class NotANucleotide(ValueError):
    """Error for the character of a text at a position."""

    def __init__(self, text: str, position: int):
        super().__init__(f"{text[position]!r} is not a nucleotide")
        self.position = position


def nucleotide_ids(text: str) -> UInt8[np.ndarray, " N"]:
    """Tokens of a sequence.

    Raises: NotANucleotide for the first character that is not one.
    """
    ids = NUCLEOTIDE_IDS[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]
    if (ids == 255).any():
        raise NotANucleotide(text, int(np.argmax(ids == 255)))
    return ids


def nucleotides(begin: bool = False, rna: bool = False) -> Tokenizer:
    """Tokenizer of A, C, G, T, N (0 .. 4), then <bos> (if `begin`), <eos> and <pad>; ambiguous letters become N.

    T and U are one token, which is the text U of `rna` and else T.
    Raises: ValueError on encoding a character that is not a nucleotide.
    """

    def encode_ids(texts: Sequence[str]) -> list[Int[np.ndarray, " N"]]:
        try:
            return [nucleotide_ids(text).astype(np.int32) for text in texts]
        except ValueError as error:
            raise ValueError(f"data.tokenizer: {error}; 'nucleotides' reads A, C, G, T and N") from None

    return document_tokenizer("nucleotides", RNA if rna else NUCLEOTIDES, encode_ids, begin)
