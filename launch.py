"""Train, evaluate, sample and table diffusion models, from one config file per table.

    python launch.py VERB --config=FILE[:VARIANT] [--config.key=value ...] [--workdir=DIR]

Every table has four variants: `paper` (the published recipe), `gpu` (one accelerator), `local` (two CPU cores) and
`debug` (seconds). A command that was interrupted goes on where it stopped when it is given again.

  run       everything a table needs: train what is missing, evaluate, sample, write the table and its plots
              python launch.py run --config=configs/quickstart.py
              python launch.py run --jobs=jobs.jsonl --index=3          # one job of a plan, on a cluster
              python launch.py run --config=configs/quickstart.py --redo=MDLM    # its jobs again, repeatable
              python launch.py run --config=configs/quickstart.py --sweep.optimizer.learning_rate=1e-3,3e-3
              python launch.py run --config=configs/quickstart.py --sweep.seeds=8 --population=8    # as one program
              python launch.py run --config=configs/quickstart.py --profile=5    # traces 5 steps of each training
  train     train one row of a table (--row=NAME; without it the first that has a network)
              python launch.py train --config=configs/quickstart.py:local --row=MDLM --config.train.steps=500
  evaluate  the likelihood of one row's model
              python launch.py evaluate --config=configs/quickstart.py:local --row=MDLM --config.evaluate.draws=4
  sample    print samples of one row's model
              python launch.py sample --config=configs/quickstart.py:local --row=MDLM --config.sample.prompt="import "
              python launch.py sample --config=configs/quickstart.py:local --row=MDLM --trace    # and trace.html
  table     write a table again from the rows that are there (--results: the committed ones)
              python launch.py table --config=configs/quickstart.py:local
              python launch.py table --config=configs/quickstart.py --join=runs_a --join=runs_b    # of several machines
  status    which jobs are done, running, failed or waiting; all of the work directory without --config or --jobs
              python launch.py status --config=configs/quickstart.py:local --watch
  report    one HTML page of a work directory: tables, loss curves, samples, provenance, warnings
              python launch.py report --config=configs/quickstart.py:local
  plan      print the jobs of a table as JSON lines, for `run --jobs`
              python launch.py plan --config=configs/quickstart.py:local > jobs.jsonl
              python launch.py plan --migrate=runs                      # new ids for jobs of an earlier version
  pods      print the script that runs a table on several hosts, of this machine, Slurm or a TPU; --go runs it
              python launch.py pods --backend=slurm --hosts=2 --config=configs/mdlm_owt.py:paper --workdir=/mnt/nfs/runs
  compile   compile the training step and the sampler ahead of time, for a TPU slice or for the devices here
              python launch.py compile --config=configs/mdlm_owt.py:paper --topology=v5e:4x4
  convert   public PyTorch weights (MDLM, MDM-Prime, G-Star, GPT-2, pipelines of diffusers, rewards) into a folder
              python launch.py convert --from=mdlm --checkpoint=mdlm-owt --tokenizer=gpt2 --workdir=weights/mdlm
              python launch.py convert --from=diffusers --checkpoint=FOLDER --lora=FILE --workdir=weights/with_lora
  geneval   GenEval's scores of a folder of images, with a detector in PyTorch and CLIP; --baseline adds a difference
              python launch.py geneval --images=FOLDER --detector=mask2former --clip=clip --baseline=OTHER

`--sweep.FIELD=a,b,c` (repeatable) repeats the rows that read a field for each value, `--sweep.seeds=3` has three
seeds, and --pivot=COLUMN:min or :max adds a pivot table. `sample --trace` writes a page that plays the steps of the
first samples of masked and uniform-state diffusion, or of images from prompts. Paths of the work directory, data,
checkpoints, weights and plans are local, or gs://BUCKET/NAME and s3://BUCKET/NAME, which need the packages gcsfs and
s3fs.

Exit status: 0 done; 1 a training diverged or a job failed; 2 bad input, named in one line; 143 stopped by a signal.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

WITH_PLACE = warnings.formatwarning
VERBS = "run train evaluate sample table status report plan pods compile convert geneval".split()
# Flags that go with some verbs alone, and what they do.
OF_VERBS = {
    "trace": (("sample",), "shows the steps of samples"),
    "profile": (("run", "train"), "traces steps of trainings"),
    "population": (("run",), "trains several jobs as one program"),
    "redo": (("run",), "runs the jobs of a row again"),
    "migrate": (("plan",), "renames jobs"),
    "join": (("table",), "adds the rows of other work directories"),
    "watch": (("status",), "shows the states of jobs again and again"),
    "backend": (("pods",), "is where a table runs"),
    "go": (("pods",), "runs the script"),
}

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file and variant, FILE[:VARIANT].")
WORKDIR = flags.DEFINE_string("workdir", "runs", "Folder for jobs, caches and tables; may be gs:// or s3://.")
ROW = flags.DEFINE_string("row", "", "Row of the table (train, evaluate, sample).")
TRACE = flags.DEFINE_boolean("trace", False, "Also write trace.html, which plays the steps (sample).")
JOBS = flags.DEFINE_string("jobs", "", "File of JSON lines written by `plan` (run, status).")
INDEX = flags.DEFINE_integer("index", None, "Which job of --jobs to run, from 0 (run); all of them without it.")
SWEEP = flags.DEFINE_multi_string("sweep", [], "--sweep.FIELD=a,b,c: values of a field (run, plan, table); repeatable.")
PIVOT = flags.DEFINE_multi_string("pivot", [], "Pivot table of a sweep, COLUMN:min or COLUMN:max (run, table).")
PROFILE = flags.DEFINE_integer("profile", 0, "Steps of each training to trace with the profiler (run, train).")
POPULATION = flags.DEFINE_integer("population", None, "Trainings of one program to run at a time (run).", lower_bound=1)
REDO = flags.DEFINE_multi_string("redo", [], "Row whose jobs, and those that need them, run again (run); repeatable.")
JOIN = flags.DEFINE_multi_string("join", [], "Work directory with further rows of the table (table); repeatable.")
WATCH = flags.DEFINE_boolean("watch", False, "Show the states of jobs again every few seconds (status).")
MIGRATE = flags.DEFINE_string("migrate", "", "Work directory of an earlier version, whose jobs get new ids (plan).")
PUBLISH = flags.DEFINE_boolean("publish", False, "Also write rows and tables to experiments/ (run, table).")
RESULTS = flags.DEFINE_boolean("results", False, "Use the committed rows of experiments/results (table).")
TOPOLOGY = flags.DEFINE_string("topology", "", "TPU slices, v5e:4x4 or 2xv5e:4x4 (compile), or a type, v5e-16 (pods).")
BACKEND = flags.DEFINE_string("backend", "", "Where the table runs: local, slurm, tpu-vm or xpk (pods).")
HOSTS = flags.DEFINE_integer("hosts", None, "Processes for each job (pods --backend=local or slurm).")
TPU_NAME = flags.DEFINE_string("tpu_name", "", "Name of the TPU VM (pods --backend=tpu-vm).")
ZONE = flags.DEFINE_string("zone", "", "Zone of the TPU (pods).")
PROJECT = flags.DEFINE_string("project", "", "Google Cloud project of the TPU (pods).")
CLUSTER = flags.DEFINE_string("cluster", "", "Kubernetes cluster (pods --backend=xpk).")
SETUP = flags.DEFINE_string("setup", "", "Shell commands that each host runs first, such as 'cd DIR; . ENV' (pods).")
OPTIONS = flags.DEFINE_string("options", "", "Further options of sbatch, gcloud or xpk, in one string (pods).")
GO = flags.DEFINE_boolean("go", False, "Run the script instead of printing it (pods).")
LAYOUTS = ["mdlm", "prime", "gstar", "gpt2", "diffusers", "clip", "image_reward"]
FROM = flags.DEFINE_enum("from", None, LAYOUTS, "Layout of the checkpoint (convert).")
CHECKPOINT = flags.DEFINE_string("checkpoint", "", "File or folder of PyTorch weights, .safetensors or .pt (convert).")
LORA = flags.DEFINE_string("lora", "", "File of a LoRA that is added to the U-Net (convert --from=diffusers).")
LORA_SCALE = flags.DEFINE_float("lora_scale", None, "Factor of the LoRA, 1 by default (convert).")
UNET = flags.DEFINE_string("unet", "", "File or folder of another U-Net (convert --from=diffusers).")
HEADS = flags.DEFINE_integer("heads", None, "Number of heads, where a file of a transformer does not say (convert).")
TOKENIZER = flags.DEFINE_string("tokenizer", "", "Folder of the tokenizer of a language model (convert).")
DENOISER = flags.DEFINE_string("denoiser", "", "File of another denoiser for a predictor (convert --from=gstar).")
CARRY_OVER = flags.DEFINE_boolean("carry_over", None, "Trained with the carry-over filter (convert --from=prime).")
IMAGES = flags.DEFINE_string("images", "", "Folder of images with 00000/samples/0000.png (geneval).")
PROMPTS = flags.DEFINE_string("prompts", "", "File of GenEval's prompts that the images must be of (geneval).")
DETECTOR = flags.DEFINE_string("detector", "", "Folder of Mask2Former for COCO's instances, or random (geneval).")
CLIP = flags.DEFINE_string("clip", "", "Folder of CLIP ViT-L/14, which names colors, or random (geneval).")
BASELINE = flags.DEFINE_string("baseline", "", "Another folder of images, or its results.jsonl (geneval).")
DISTRIBUTED = flags.DEFINE_boolean("distributed", False, "Join the other hosts of this Cloud TPU pod or cluster.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, for several processes without a cluster.")
PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes, with --coordinator.")
PROCESS = flags.DEFINE_integer("process", None, "Index of this process, with --coordinator.")


class BadInput(SystemExit):
    """One line on standard error, and exit status 2."""

    def __init__(self, message: object):
        lines = str(message).strip().splitlines() or [type(message).__name__]
        from diffusion.storage import as_given

        print(f"launch.py: {as_given(lines[0])}", file=sys.stderr)
        super().__init__(2)


def parse(argv: list[str]) -> list[str]:
    """Read the flags; whatever is wrong with them is said in one line."""
    if len(argv) < 2 or {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(__doc__)
        raise SystemExit(0 if len(argv) > 1 else 2)
    if wrong := [word for word in argv if word.encode("utf-8", "ignore").decode() != word]:
        raise BadInput(f"{wrong[0]!r}: is not UTF-8 text; rename what it names")
    if argv[1] not in VERBS:
        raise BadInput(f"unknown verb {argv[1]!r}; known: {', '.join(VERBS)}")
    try:
        # The fields of a sweep are values of one flag, because absl refuses flags that it does not know.
        words = flags.FLAGS([f"--sweep={each[8:]}" if each.startswith("--sweep.") else each for each in argv])
    except Exception as error:
        raise BadInput(explain(error)) from None
    if words[2:]:
        raise BadInput(f"{words[2]!r}: is no flag; write --FLAG=VALUE, and a value with spaces in quotes")
    return words


def explain(error: Exception) -> str:
    """absl and ml_collections say what is wrong in several styles; this puts field and remedy in one line."""
    # A config file's own complaint comes wrapped in the flag's, with a traceback.
    text = " ".join(str(error).rpartition("ValueError: ")[2].split())
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"--{error.flagname}: {text}; `launch.py --help` lists what there is"
    if "before a value for --config" in text:
        return f"--config: comes after its fields ({text}); pass it before them"
    if isinstance(error, (AttributeError, KeyError)) or "Attempting to lookup" in text:
        return f"--config: no such field ({text}); the fields are in configs/base.py"
    if not isinstance(error, (ValueError, flags.Error)) or "No such file" in text:
        return f"--config: cannot load the file ({text}); give FILE[:VARIANT], such as configs/quickstart.py:local"
    return text


def dispatch(verb: str) -> None:
    """Hand over to the verb; imports are here so that a mistake on the command line is answered at once."""
    from diffusion.storage import cache_of, fetched_text, path_of

    try:
        workdir = path_of(WORKDIR.value)
    except ValueError as error:
        raise ValueError(f"--workdir: {error}") from None
    for name, (verbs, purpose) in OF_VERBS.items():
        if flags.FLAGS[name].value and verb not in verbs:
            known = " and ".join(verbs)
            raise ValueError(f"--{name}: {purpose}, and goes with {known}, not with {verb}; leave it out")
    if verb == "compile" and TOPOLOGY.value:
        # The topology's compiler runs on the host: accelerators that happen to be there are left alone.
        os.environ["JAX_PLATFORMS"] = "cpu"
        # Without a TPU libtpu would ask the network who it is, and complain about the answer.
        os.environ |= {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-16"}
    from experiments.benchmarks.allocator import keep_freed_memory

    keep_freed_memory()
    if verb == "convert":  # before the work directory, which it writes, holds compiled programs
        from experiments.convert import command

        options = (LORA, LORA_SCALE, UNET, HEADS, TOKENIZER, DENOISER, CARRY_OVER)
        return command.run(FROM.value, CHECKPOINT.value, workdir, **{each.name: each.value for each in options})
    import jax

    if verb not in ("plan", "status") and (verb != "pods" or GO.value):
        from experiments import layout

        layout.check_writable(workdir)
    jax.config.update("jax_compilation_cache_dir", str((cache_of(workdir) / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if verb == "geneval":
        from experiments.geneval import command

        return command.run(IMAGES.value, PROMPTS.value, DETECTOR.value, CLIP.value, BASELINE.value)
    if MIGRATE.value:
        from experiments import migrate

        return migrate.run(path_of(MIGRATE.value))
    config, flag = CONFIG.value, flags.FLAGS["config"]
    from experiments.config_files import load_table

    module = load_table(flag.config_filename) if config is not None else None  # pyright: ignore[reportAttributeAccessIssue]
    from experiments import devices, plan, plan_files, sweep

    sweep.check_flags(verb, SWEEP.value, PIVOT.value, JOBS.value, PUBLISH.value, RESULTS.value)
    if module is not None and config is not None:
        module = sweep.swept(module, config, SWEEP.value, PIVOT.value)
    if verb in ("status", "report"):
        # No device is touched, which may be busy with the jobs.
        from experiments import report, status

        if verb == "report":
            return report.run(module, config, workdir)
        listed = plan_files.read_plan(Path(fetched_text(JOBS.value))) if JOBS.value else None
        planned = plan.plan(list(module.rows(config)), config) if module is not None and config is not None else None
        return status.run(listed or planned, workdir, WATCH.value)
    if verb == "run" and JOBS.value:
        chosen = plan_files.read_plan(Path(fetched_text(JOBS.value)), INDEX.value)
        devices.split_cpu(max(job.config.get("cpu_devices", 1) for job in chosen))
        devices.start_processes(COORDINATOR.value, PROCESSES.value, PROCESS.value, DISTRIBUTED.value)
        from experiments import run

        return run.run_plan(chosen, workdir, REDO.value, PROFILE.value, POPULATION.value or 1)
    if verb != "pods":  # it leaves the accelerators to the processes that it starts
        devices.split_cpu(config.cpu_devices if config is not None and verb != "compile" else 1)
        devices.start_processes(COORDINATOR.value, PROCESSES.value, PROCESS.value, DISTRIBUTED.value)
    if module is None or config is None:
        raise ValueError("--config: missing; give FILE[:VARIANT], such as --config=configs/quickstart.py:local")
    if verb == "plan":
        from experiments import checks, settings

        settings.check_keys(module, config)
        jobs = plan.plan(list(module.rows(config)), config)
        checks.check_plan(jobs)
        print(plan_files.write_plan(jobs), end="")
        return
    if verb == "pods":
        from experiments.pods import command

        file, overrides = flag.config_filename, config_flags.get_override_values(flag)  # pyright: ignore[reportAttributeAccessIssue]
        options = (HOSTS, TOPOLOGY, TPU_NAME, ZONE, PROJECT, CLUSTER, SETUP, OPTIONS)
        given = {each.name: each.value for each in options}
        return command.run(module, config, file, overrides, workdir, BACKEND.value, GO.value, **given)
    from experiments import run, table

    overrides = config_flags.get_override_values(flag)
    if verb == "run":
        run.run_table(module, config, workdir, PUBLISH.value, REDO.value, PROFILE.value, POPULATION.value or 1)
    elif verb == "table":
        table.regenerate(module, config, workdir, RESULTS.value, PUBLISH.value, JOIN.value)
    elif verb == "compile":
        from experiments import compile as ahead_of_time

        ahead_of_time.run(module, config, ROW.value, TOPOLOGY.value, workdir, overrides)
    else:
        run.run_row(module, config, verb, ROW.value, overrides, workdir, TRACE.value, PROFILE.value)


def one_line(message: Warning | str, category: type[Warning], *place: Any) -> str:
    """What is said of the user's files and fields, as one line; other warnings keep their place in the code."""
    return f"warning: {message}\n" if category is UserWarning else WITH_PLACE(message, category, *place)


def main(argv: list[str]) -> None:
    """Run a verb; bad input ends in one line and status 2."""
    logging.set_verbosity(logging.WARNING)
    warnings.formatwarning = one_line
    try:
        dispatch(argv[1])
    except Exception as error:
        from experiments import devices, disk_errors

        if disk_errors.says_full(error):
            raise BadInput(disk_errors.FULL.format(WORKDIR.value)) from None
        if os.environ.get("DIFFUSION_TRACEBACK"):
            raise
        refused, lost = disk_errors.refused_path(error), devices.lost(error)
        if refused or (isinstance(error, ValueError) and not lost):
            raise BadInput(refused or error) from None
        problem = lost or disk_errors.unread(error) or (str(error) if type(error).__name__ == "Diverged" else "")
        if not problem:
            raise
        print(f"launch.py: {problem}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    from experiments import disk_errors

    disk_errors.hide_from_threads()
    app.run(main, flags_parser=parse)
