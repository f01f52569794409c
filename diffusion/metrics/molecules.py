"""Validity, uniqueness, novelty and rings of generated SMILES by RDKit, as in UDLM (arXiv 2412.10193)."""

import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.types import Symbols


def chemistry() -> ModuleType:
    """RDKit's `Chem`, imported on demand.

    Raises:
      ValueError: when RDKit, or a system library that it needs for drawing, is missing.
    """
    try:
        from rdkit import Chem
        from rdkit.Chem import QED, Crippen, Draw  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"data.source: molecules are measured with RDKit, which cannot be imported ({error}); pip install rdkit, "
            "and apt-get install libxrender1 libxext6 libexpat1 where a system library is named"
        ) from None
    return Chem


def parse(smiles: Sequence[str]) -> list[Any]:
    """RDKit's molecule of each string; None for an invalid one: not parsed, not sanitized, or empty.

    RDKit accepts the empty string as a molecule without atoms, and text after a space as a name; neither is valid here.
    RDKit's messages are silenced during this call.
    """
    chem = chemistry()
    from rdkit import rdBase

    with rdBase.BlockLogs():
        return [chem.MolFromSmiles(text) if text.split() == [text] else None for text in smiles]


def canonical(smiles: Iterable[str]) -> list[str | None]:
    """RDKit's canonical SMILES of each string, equal if and only if the molecules are; None for an invalid string."""
    chem = chemistry()
    # One at a time: the molecules of a training set would take gigabytes.
    return [None if molecule is None else chem.MolToSmiles(molecule) for text in smiles for molecule in parse([text])]


def canonical_set(smiles: Iterable[str], folder: Path | None = None) -> frozenset[str]:
    """Canonical SMILES of a training set, cached as a text file under `folder` by content and RDKit's version.

    The 120,000 molecules of QM9 take 8 to 20 s without and 0.2 s with the cache. Invalid strings are omitted, and a
    warning has their number when they are not read from the cache.
    """
    chemistry()
    import rdkit

    smiles = sorted(set(smiles))
    content = hashlib.sha256("\n".join([rdkit.__version__, *smiles]).encode("utf-8", "surrogatepass")).hexdigest()
    path = None if folder is None else folder / f"canonical-{content[:16]}.txt"
    if path is not None and path.exists():
        return frozenset(path.read_text().split())
    names = canonical(smiles)
    if invalid := names.count(None):
        warnings.warn(
            f"data.path: RDKit cannot parse {invalid} of {len(names)} different training molecules, such as "
            f"{smiles[names.index(None)]!r}; they are trained on, but no molecules for `novel`",
            stacklevel=2,
        )
    known = frozenset(text for text in names if text is not None)
    if folder is not None and path is not None:
        folder.mkdir(parents=True, exist_ok=True)
        # A unique name: several processes may write the same set at once.
        handle, partial = tempfile.mkstemp(dir=folder, prefix=path.stem)
        with os.fdopen(handle, "w") as file:
            file.write("\n".join(sorted(known)) + "\n")
        os.replace(partial, path)
    return known


def molecule_scores(
    samples: Sequence[str], known: Collection[str], known_strings: Collection[str] | None = None
) -> dict[str, float]:
    """Counts of N samples with their rates, and mean properties of the novel molecules.

    `valid`: samples that RDKit parses. `unique`: distinct molecules among them. `novel`: molecules that are not in
    `known`, the canonical SMILES of the training set. `valid_rate` is relative to N, `unique_rate` to valid samples,
    `novel_rate` to the unique molecules. The public code compares strings instead of molecules, so that two spellings
    of a molecule count twice and another spelling of a training molecule counts as novel: `unique_strings` and
    `novel_strings` are its counts, the latter relative to `known_strings` (default: `known`).

    `qed`, `rings` (see `ring_counts`) and `logp` (Crippen) are means over the novel molecules, and `valid_rings` is the
    mean number of rings over valid samples; they are absent when there are none.

    Raises:
      ValueError: when there is no sample.
    """
    if not samples:
        raise ValueError("sample.count: no molecule to measure")
    molecules = {text: molecule for text, molecule in zip(samples, parse(samples), strict=True) if molecule is not None}
    names = dict(zip(molecules, canonical(molecules), strict=True))
    valid = sum(text in molecules for text in samples)
    unique = {name for name in names.values() if name is not None}
    novel = unique.difference(known)
    scores = {
        "samples": len(samples),
        "valid": valid,
        "unique": len(unique),
        "novel": len(novel),
        "valid_rate": valid / len(samples),
        "unique_rate": len(unique) / max(valid, 1),
        "novel_rate": len(novel) / max(len(unique), 1),
        "unique_strings": len(molecules),
        "novel_strings": len(molecules.keys() - set(known if known_strings is None else known_strings)),
    }
    counts = ring_counts([text for text in samples if text in molecules])
    scores |= {"valid_rings": float(counts.mean())} if valid else {}
    return scores | properties(sorted(novel))


def properties(smiles: Sequence[str]) -> dict[str, float]:
    """Mean drug-likeness QED in [0, 1], number of rings, and logP of valid molecules; empty without molecules."""
    chem = chemistry()
    from rdkit.Chem import QED, Crippen

    log_p = Crippen.MolLogP  # pyright: ignore[reportAttributeAccessIssue]  (defined at import)
    rows = [(QED.qed(molecule), len(chem.GetSymmSSSR(molecule)), log_p(molecule)) for molecule in parse(smiles)]
    means = np.mean(rows, axis=0) if rows else ()
    return {name: float(mean) for name, mean in zip(("qed", "rings", "logp"), means, strict=False)}


def ring_counts(smiles: Sequence[str]) -> Float[np.ndarray, " N"]:
    """Number of rings of each molecule, RDKit's symmetrized smallest set of smallest rings; 0 for an invalid string."""
    chem = chemistry()
    counts = [0 if molecule is None else len(chem.GetSymmSSSR(molecule)) for molecule in parse(smiles)]
    return np.array(counts, np.float32)


def ring_labels(symbols: Sequence[str]) -> Float[np.ndarray, "K G"]:
    """Which of the G ring labels (1, %10, %(100), ...) of a SMILES vocabulary each of its K symbols is, if any."""
    label = re.compile(r"[0-9]|%[0-9]{2}|%\([0-9]{3,5}\)")
    numbers = [int(symbol.strip("%()")) if label.fullmatch(symbol) else None for symbol in symbols]
    known = sorted({number for number in numbers if number is not None})
    return np.array([[number == label for label in known] for number in numbers], np.float32).reshape(-1, len(known))


def label_pairs(tokens: Symbols, labels: Float[Array | np.ndarray, "K G"]) -> Float[Array, " B"]:
    """Count pairs of equal labels in each sequence, sum_g floor(n_g / 2), for tokens with the labels [K, G].

    With `ring_labels` it is the number of ring closures of a SMILES string: bonds - atoms + 1, which is the size of the
    smallest set of smallest rings. `ring_counts` symmetrizes that set, and has more for a tenth of QM9's molecules
    (1.74 against 1.61 on average). It needs no valid string.
    """
    counts = jnp.sum(jnp.asarray(labels)[tokens], axis=1)
    return jnp.sum(jnp.floor(counts / 2), axis=-1)


def molecule_grid(samples: Sequence[str], shown: int = 24, columns: int = 6) -> np.ndarray | None:
    """Grid of drawings of the first valid molecules with their SMILES, uint8 [H, W, 3]; None when there are none."""
    chemistry()
    from rdkit.Chem import Draw

    pairs = [(text, molecule) for text, molecule in zip(samples, parse(samples), strict=True) if molecule is not None]
    if not pairs:
        return None
    texts, molecules = zip(*pairs[:shown], strict=True)
    image = Draw.MolsToGridImage(molecules, molsPerRow=columns, subImgSize=(200, 160), legends=texts)
    return np.asarray(image.convert("RGB"))
