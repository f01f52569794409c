"""Verbs, flags and sweeps in any mixture."""

from hypothesis import strategies as st

import launch
from tests.fuzz import values
from tests.fuzz.commands import ROOT, case, checked, holds, lanes

TEXT = "".join(f"the {number} words of the line that is read\n" for number in range(300))
SMALL = f"{ROOT}/tests/fuzz/small_table.py"
# Config files, and what stands in those of the case.
CONFIGS = [f"{SMALL}:debug"] * 40 + [f"{SMALL}:huge", f"{SMALL}:", SMALL, f"{SMALL}:debug:x", f"{ROOT}/configs/base.py"]
CONFIGS += [
    "",
    ":",
    "none.py:debug",
    ".",
    "text.txt",
    "broken.py",
    "empty.py",
    "raises.py",
    "rowless.py:debug",
    "é.py:é",
]
FILES = {
    "text.txt": TEXT,
    "broken.py": "def get_config(:",
    "empty.py": "",
    "raises.py": "def get_config(variant=''):\n    return {}['a\\nb']\n",
    "rowless.py": "from configs.base import defaults\ndef get_config(name=''):\n    return defaults('t', name)\n",
    "lines.jsonl": '{"id": 1}\n',
    "folder/file": "",
}
PLACES = ["runs", "", ".", "folder", "text.txt", "none", "none/x", "text.txt/x", "folder/", "é", "x" * 300, "ftp://x"]
NUMBERS = ["0", "1", "2", "-1", "99", "x", "", "1.5", "nan", "9" * 30]
ROWS = ["AR", "MDLM, 4 steps", "Text", "Nobody", "", "é", "MDLM"]
FLAGS = {
    "row": ROWS,
    "index": NUMBERS,
    "profile": NUMBERS,
    "population": NUMBERS,
    "redo": ROWS,
    "pivot": ["bits_per_byte:min", "bits_per_byte:max", "bits_per_byte", "x:min", ":", "", ":min"],
    "sweep": ["", "x", "=", "optimizer.learning_rate=1", "seeds=2", "é=1", "data.path=a,b"],
    "topology": ["", "v5e:4x4", "x", "v5e-16", ":"],
    "backend": ["", "local", "slurm", "tpu-vm", "xpk", "x"],
    "options": ["", "'", "--a --b", "é"],
    "setup": ["", "cd x", "'", "\n"],
    "from": ["", "mdlm", "prime", "gstar", "gpt2", "diffusers", "clip", "image_reward", "x"],
    "lora_scale": NUMBERS,
    "detector": ["", "random", "none"],
    "clip": ["", "random", "none"],
    "coordinator": ["", "127.0.0.1:9", "x", ":"],
    "flagfile": ["", "none", "text.txt"],
    "verbosity": ["x", "0"],
    "undefok": ["", "x"],
    "é": ["x"],
    "rows": ["AR"],
}
FLAGS |= dict.fromkeys(("hosts", "heads", "processes", "process"), NUMBERS)
FLAGS |= dict.fromkeys(("jobs", "join", "migrate", "checkpoint", "lora", "unet", "tokenizer", "denoiser"), PLACES)
FLAGS |= dict.fromkeys(("images", "prompts", "baseline", "tpu_name", "zone", "project", "cluster"), PLACES)
SWEEPS = [
    "optimizer.learning_rate=1e-3,3e-3",
    "optimizer.learning_rate=",
    "optimizer.learning_rate",
    "sample.steps=2,4",
]
SWEEPS += [
    "sample.steps=2,2",
    "sample.steps=a",
    "seeds=2",
    "seeds=0",
    "seeds=x",
    "seeds=1,2",
    f"seeds={10**12}",
    "seed=1,2",
]
SWEEPS += [
    "=",
    "",
    ".=1",
    "data=1",
    "data.path=a,b",
    "model.hidden=0,-1",
    "optimizer.learning_rate=nan,inf",
    "é=1",
    "x.y=1",
]
SWEEPS += ["model.causal=true,false", "table=a,b", "seeds=" + "9" * 5000, "optimizer.clip=1e999", "train.steps=1.5"]
SWITCHES = [
    "trace",
    "watch",
    "publish",
    "results",
    "go",
    "distributed",
    "carry_over",
    "nocarry_over",
    "nogo",
    "notrace",
]
LOOSE = ["", "-", "--", "---", "=", "--=", "-x", "text.txt", "--helpshort", "--helpxml", "--help=x", "run", "-row=AR"]
VERBS = [*launch.VERBS, *launch.VERBS, "", "paint", "é", "--row=AR", "Run"]


@st.composite
def commands(draw):
    """Return the words of a command, with a config more often than not."""
    words = [draw(st.sampled_from(VERBS))]
    if draw(st.integers(0, 9)):
        words.append(f"--config={draw(st.sampled_from(CONFIGS))}")
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.integers(0, 9))
        if kind < 5:
            name = draw(st.sampled_from(sorted(FLAGS)))
            words += [f"--{name}={draw(st.sampled_from(FLAGS[name]))}"] * draw(st.sampled_from((1, 1, 1, 2)))
        elif kind < 7:
            words.append(f"--sweep.{draw(st.sampled_from(SWEEPS))}")
        elif kind < 8:
            words.append(f"--{draw(st.sampled_from(SWITCHES))}{draw(st.sampled_from(('', '', '=x', '=true')))}")
        elif kind < 9:
            words += draw(values.overrides(1))
        else:
            words.append(draw(st.sampled_from(LOOSE)))
    return words


@lanes(fast=15, slow=350)
def test_words(count, base):
    def check(words):
        with case(base) as place:
            for name, text in FILES.items():
                (place / name).parent.mkdir(exist_ok=True)
                (place / name).write_text(text)
            checked(place, *words)

    holds(check, commands(), count)
