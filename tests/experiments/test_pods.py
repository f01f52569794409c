"""`pods`: the script of each backend, and a table of two hosts on each, with stand-ins for the programs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from experiments.plan_files import read_plan
from experiments.pods import local, slurm
from experiments.pods.request import Request
from tests.experiments import stand_ins
from tests.experiments.conftest import ROOT, one_line, words_of

DEBUG = "--config=configs/quickstart.py:debug"
REMOTE = {
    "tpu-vm": ("--backend=tpu-vm", "--tpu_name=slice", "--zone=z", "--project=p"),
    "xpk": ("--backend=xpk", "--cluster=c", "--topology=v5e-16", "--zone=z", "--project=p"),
}


@pytest.fixture
def printed(succeed, monkeypatch, tmp_path):
    """Return `printed(*words)`, the script for the quickstart, which is valid and for which nothing was written."""

    def call(*words):
        monkeypatch.setattr("experiments.pods.command.check_plan", lambda jobs: None)  # slow, and tested elsewhere
        text, _ = succeed("pods", DEBUG, *words)
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert not (tmp_path / "runs" / "pods").exists()
        return text

    return call


def option(words, name):
    """The value of an option among words."""
    return next(word.partition("=")[2] for word in words if word.startswith(f"--{name}="))


def test_local_processes_share_a_coordinator_and_have_logs(printed, tmp_path):
    text = printed("--backend=local", "--hosts=3", "--config.data.path=a 'b' $c")
    commands = [shlex.split(line) for line in text.splitlines() if " run " in line]
    assert [option(words, "process") for words in commands] == ["0", "1", "2"]
    assert len({option(words, "coordinator") for words in commands}) == 1
    for index, words in enumerate(commands):
        assert "--config.data.path=a 'b' $c" in words and "--processes=3" in words
        assert f"{tmp_path}/runs/logs/$HOSTNAME-{index}.log" in " ".join(words)
    assert "--coordinator" not in printed("--backend=local")


@pytest.mark.parametrize(("failing", "status"), [(True, 3), (False, 143)])
def test_local_processes_end_together(tmp_path, failing, status):
    """All end when one of them fails, or when the script receives SIGTERM."""
    fails = '[[ "$*" == *--process=1* ]] && exit 3\n' if failing else ""
    (tmp_path / "launch.sh").write_text(f"touch started.$$\n{fails}exec sleep 60\n")
    request = Request("name", (), (), tmp_path / "runs", tmp_path, ("bash", "launch.sh"), hosts=3)
    begin, options = time.time(), dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script = subprocess.Popen(["bash", "-c", local.commands(request)], **options)
    while script.poll() is None and len(list(tmp_path.glob("started.*"))) < 3 and time.time() < begin + 30:
        time.sleep(0.02)
    if not failing:
        script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=40) == status
    for started in tmp_path.glob("started.*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.suffix[1:]), 0)


def arrays(text):
    """(options, number of the array) of every submission of a script, in order."""
    found = re.findall(r"^array(\d+)=\$\((sbatch .*)\)$", text, re.MULTILINE)
    return [(stand_ins.options(shlex.split(line)), int(number)) for number, line in found]


def test_slurm_jobs_wait_for_those_that_they_need(printed, succeed, tmp_path):
    """Each job is in one array, which waits for the elements of earlier arrays that are the jobs that it needs."""
    text = printed("--backend=slurm", "--hosts=2", "--options=--time=1:00:00 --comment='a b'")
    (tmp_path / "jobs.jsonl").write_text(succeed("plan", DEBUG)[0])
    jobs = read_plan(tmp_path / "jobs.jsonl")
    place = {}
    for given, number in arrays(text):
        for index in map(int, given["array"].split(",")):
            assert index not in place
            place[index] = number
            elements = re.findall(r"\$\{array(\d+)\}_(\d+)", given.get("dependency", ""))
            assert {jobs[int(element)].id for _, element in elements} == set(jobs[index].needs.values())
            assert all(place[int(element)] == int(array) for array, element in elements)
            assert ("kill-on-invalid-dep" in given) == bool(elements)
            assert given.get("dependency", "afterok").startswith("afterok")
            assert given.get("signal") == ("B:TERM@120" if jobs[index].verb == "train" else None)
            assert (given["time"], given["comment"]) == ("1:00:00", "a b")
    assert sorted(place) == list(range(len(jobs)))
    assert "#SBATCH --requeue\n" in text and "#SBATCH --nodes=2\n" in text and " --distributed " in text
    last = stand_ins.options(shlex.split(text.splitlines()[-1]))
    assert last["dependency"] == "afterany:" + ":".join(f"$array{number}" for number in sorted(set(place.values())))


def test_slurm_submits_what_is_not_done(printed, succeed, tmp_path):
    plan = [json.loads(line) for line in succeed("plan", DEBUG)[0].splitlines()]
    done = [number for number, job in enumerate(plan) if job["verb"] != "sample"]
    for number in done:
        folder = tmp_path / "runs" / "jobs" / plan[number]["id"]
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
    submitted = [given for given, _ in arrays(printed("--backend=slurm"))]
    assert submitted and not any("dependency" in given for given in submitted)
    indices = {int(index) for given in submitted for index in given["array"].split(",")}
    assert indices == set(range(len(plan))) - set(done)


WAITING = "trap 'exit 143' TERM; touch started; sleep 30 & wait"


@pytest.mark.parametrize(
    ("command", "limit", "status", "requeued"),
    [
        (WAITING, True, 0, True),  # training saved its state
        (WAITING.replace("143", "1"), True, 1, False),  # training failed while it stopped
        ("touch started; exit 3", False, 3, False),
        ("touch started", False, 0, False),
    ],
)
def test_slurm_jobs_return_to_the_queue_at_the_time_limit(tmp_path, command, limit, status, requeued):
    programs = tmp_path / "programs"
    programs.mkdir()
    environment = stand_ins.install(programs) | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    environment |= {"SLURM_JOB_ID": "10", "SLURM_JOB_NAME": "table", "SLURM_NNODES": "1"}
    run = shlex.join(["bash", "-c", command])
    (tmp_path / "job.sbatch").write_text(slurm.JOB.format(hosts=1, setup="export SET=1\n", logs="logs", run=run))
    job = subprocess.Popen(["bash", "job.sbatch"], cwd=tmp_path, env=environment)
    deadline = time.time() + 60
    while not (tmp_path / "started").exists() and time.time() < deadline:
        time.sleep(0.02)
    if limit:
        job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == status
    assert (["scontrol", "requeue", "7_3"] in stand_ins.calls(programs)) == requeued
    assert [path.name for path in (tmp_path / "logs" / "table-3").iterdir()] == ["node0-0.log"]


def on_host(backend, text):
    """The command of the script of a backend that each host runs, through all shells on the way."""
    words = shlex.split(next(line for line in text.splitlines() if line.startswith(("gcloud", "xpk"))))
    assert {"--zone=z", "--project=p"} < set(words)
    command = option(words, "command")
    if backend == "tpu-vm":
        assert words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice"] and "--worker=all" in words
        *tmux, session = shlex.split(command)
        assert tmux[:4] == ["tmux", "new-session", "-d", "-s"] and "." not in tmux[4]
        *shell, command = shlex.split(session)
        assert shell == ["bash", "-c"]
    return words, command


@pytest.mark.parametrize("backend", REMOTE)
def test_hosts_of_a_slice_get_the_command_as_it_is_quoted(printed, backend, tmp_path):
    """What the last shell executes has the words of the command line, after the setup and with a log."""
    path = "--config.data.path=a 'b' \"$c\""
    text = printed(*REMOTE[backend], path, "--setup=cd code && . env", "--options=--quiet")
    words, command = on_host(backend, text)
    assert "--quiet" in words
    subprocess.run(["bash", "-n"], input=command, text=True, check=True)
    start = command[command.index("exec ") :].partition(" > >(")[0]
    assert shlex.split(start) == [
        *("exec", "python", "launch.py", "run", DEBUG, path),
        *(f"--workdir={tmp_path / 'runs'}", "--distributed"),
    ]
    assert "cd code && . env && mkdir -p" in command and 'logs/"$HOSTNAME-${TPU_WORKER_ID:-0}.log"' in command


def test_a_workload_names_the_slice_as_the_cloud_does_and_restarts(printed):
    words, _ = on_host("xpk", printed(*REMOTE["xpk"]))
    assert {"--tpu-type=v5litepod-16", "--restart-on-user-code-failure"} < set(words)
    assert int(option(words, "max-restarts")) > 0
    assert re.fullmatch("[a-z]([-a-z0-9]{,38}[a-z0-9])?", option(words, "workload"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--backend=cloud",), ("--backend", "local, slurm, tpu-vm, xpk")),
        ((), ("--backend", "missing")),
        (("--backend=tpu-vm",), ("--tpu_name", "missing")),
        (("--backend=xpk", "--cluster=c"), ("--topology", "missing")),
        (("--backend=xpk", "--cluster=c", "--topology=v5e:4x4"), ("--topology", "v5e-16")),
        (("--backend=local", "--zone=z"), ("--zone", "tpu-vm, xpk")),
        (("--backend=slurm", "--hosts=0"), ("--hosts", "1 or more")),
        (("--backend=slurm", "--options='"), ("--options", "quotation")),
        (("--backend=slurm", "--config.process.schedule=wavy"), ("process.schedule", "log_linear")),
        (("--backend=slurm", "--go"), ("--go", "sbatch", "not installed")),
        (("--backend=local", "--profile=2"), ("--profile", "run and train")),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_input_is_one_line(cli, monkeypatch, tmp_path, words, parts):
    monkeypatch.setenv("PATH", str(tmp_path))
    one_line(cli("pods", DEBUG, *words), *parts)
    assert not (tmp_path / "runs" / "pods").exists()


def test_slices_need_a_folder_that_all_hosts_see():
    words = ("pods", DEBUG, "--backend=tpu-vm", "--tpu_name=slice", "--workdir=runs")
    done = subprocess.run([sys.executable, "launch.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("launch.py: --workdir: runs is relative")


TABLE = """
from configs.quickstart import TABLE, get_config, rows as all_rows

def rows(config):
    return [row for row in all_rows(config) if row["name"] in ("AR", "MDLM", "MDLM, ancestral, 2 steps")]
"""


@pytest.fixture(scope="module")
def table(fields, tmp_path_factory):
    """Return words that run a small table with dependencies: a file of rows of the quickstart, and small data."""
    file = tmp_path_factory.mktemp("table") / "a table.py"
    file.write_text(TABLE)
    settings = {name: value for name, value in fields.items() if name != "judge.name"}
    return (f"--config={file}:debug", *words_of(settings))


def launched(*words, environment=os.environ):
    """Run launch.py, with one device in each process."""
    options = dict(cwd=ROOT, env=environment | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}, timeout=1800)
    done = subprocess.run([sys.executable, "launch.py", *words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def rows_of(workdir):
    """The rows of the table by job."""
    lines = (workdir / "tables" / "quickstart.debug" / "rows.jsonl").read_text().splitlines()
    return {row["job"]: row for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def expected(table, tmp_path_factory):
    """Return the rows of the table of one process."""
    workdir = tmp_path_factory.mktemp("one")
    launched("run", *table, f"--workdir={workdir}")
    return rows_of(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "slurm", "tpu-vm", "xpk"])
def test_two_hosts_make_the_table_of_one_process(expected, table, tmp_path, backend):
    """From a plan in an empty work directory to the table, with processes on loopback that the programs start."""
    programs, workdir = tmp_path / "programs", tmp_path / "a folder"
    programs.mkdir()
    setup = f"cd {ROOT} && export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH"
    where = (*REMOTE[backend], f"--setup={setup}") if backend in REMOTE else (f"--backend={backend}", "--hosts=2")
    launched("pods", *where, "--go", *table, f"--workdir={workdir}", environment=stand_ins.install(programs))
    found = rows_of(workdir)
    assert found.keys() == expected.keys()
    for job, row in found.items():
        assert row["processes"] == 2
        for name, value in expected[job]["metrics"].items():
            if isinstance(value, float) and not name.startswith("seconds"):
                assert row["metrics"][name] == pytest.approx(value, rel=2e-2, abs=1e-3), (job, name)
    logs = [path for path in (workdir / "logs").rglob("*-[01].log") if path.stat().st_size]
    assert len({path.name for path in logs}) == 2, logs
