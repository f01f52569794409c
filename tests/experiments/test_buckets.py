"""Tables in buckets, on emulators of object stores in this process; and work directories that hosts do not share."""

import http
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from diffusion import storage
from diffusion.storage import paths
from experiments.pods.local import free_port
from tests.experiments.conftest import ROOT

DEBUG = "--config=configs/quickstart.py:debug"


def launched(*words):
    """Start launch.py in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    options = dict(cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "launch.py", *words], **options)


def finished(process, status=0):
    """Return standard output and error of a process, which must end with a status."""
    out, err = process.communicate(timeout=900)
    assert process.returncode == status, err
    return out, err


def google(port):
    """Start an emulator of Google's store; return how to stop it, and the environment of its clients."""
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    keep_conditions(emulator)
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    url = f"http://localhost:{port}"
    # TensorStore would look for the credentials of a virtual machine, and gcsfs for features of the real store.
    rest = {"GCE_METADATA_ROOT": "localhost:1", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    return server.stop, {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url, **rest}


def keep_conditions(emulator):
    """Let the emulator tell the generation of what is read, and refuse writes on another one, as the store does.

    TensorStore and leases rely on both.
    """
    objects = emulator.objects
    if "conditional" in objects.insert.__name__:
        return
    plain_insert, plain_download = objects.insert, objects.download

    def generation(storage, bucket, name):
        known = storage.objects.get(bucket, {}).get(name)
        return known["generation"] if known else "0"

    def conditional_insert(request, response, storage):
        wanted, name = request.query.get("ifGenerationMatch"), request.query.get("name")
        name = name[0] if name else request.data["meta"]["name"]
        if wanted and wanted[0] != generation(storage, request.params["bucket_name"], name):
            response.status = http.HTTPStatus.PRECONDITION_FAILED
            return
        plain_insert(request, response, storage)

    def download(request, response, storage):
        found = generation(storage, request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found
        plain_download(request, response, storage)

    objects.insert, objects.download = conditional_insert, download
    for _, handlers in emulator.HANDLERS:
        for method, handler in handlers.items():
            handlers[method] = {plain_insert: conditional_insert, plain_download: download}.get(handler, handler)


def amazon(port):
    """Start an emulator of Amazon's store, as `google`."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"

    def stop():
        """Forget the buckets too, which the emulator keeps for the process."""
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        server.stop()

    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    return stop, {"AWS_ENDPOINT_URL": url, **keys}


@pytest.fixture(params=["gs", "s3"])
def bucket(request, monkeypatch, tmp_path):
    """Return the bucket of an emulator, which processes that are launched see too."""
    stop, environment = {"gs": google, "s3": amazon}[request.param](free_port())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths.filesystem.cache_clear()
    found = storage.path_of(f"{request.param}://bucket")
    type(found.store).clear_instance_cache()
    paths.filesystem.cache_clear()
    if request.param == "s3":
        found.store.mkdir("bucket")
    yield found
    stop()


@pytest.mark.slow
def test_a_table_in_a_bucket(bucket, sources):
    """Data, jobs and tables lie in the bucket; another command finds them, and ids are those of local data."""
    storage.upload(sources, bucket / "data")
    workdir = bucket / "runs"
    words = ("run", DEBUG, f"--config.data.path={bucket}/data", f"--workdir={workdir}")
    out, err = finished(launched(*words))
    assert f"wrote {workdir}/tables/quickstart.debug/table.md" in out and "done before" not in err
    names = {name.strip("/") for name in workdir.files()}
    assert {"README.md"} | {f"tables/quickstart.debug/{name}" for name in ("loss.png", "samples.md")} <= names
    assert not [name for name in names if name.startswith(("cache/", "locks/", ".")) or "partial" in name]
    results = [json.loads(file.read_text()) for file in workdir.glob("jobs/*/result.json")]
    for row in results:
        if row["verb"] == "train":
            lines = (workdir / "jobs" / row["job"] / "metrics.jsonl").read_text().splitlines()
            assert json.loads(lines[-1])["step"] == row["step"] and row["history"]
    assert finished(launched(*words))[1].count("done before") == len(results)
    planned = finished(launched("plan", DEBUG, f"--config.data.path={sources}"))[0].splitlines()
    assert {json.loads(line)["id"] for line in planned} == {row["job"] for row in results}
    storage.atomic_write(bucket / "jobs.jsonl", "\n".join(planned))
    again = launched("run", f"--jobs={bucket}/jobs.jsonl", "--index=0", f"--workdir={workdir}", "--redo=AR")
    assert "the old one is in" in finished(again)[1]
    assert list(workdir.glob("redone/train-*/result.json"))
    _, err = finished(launched("run", DEBUG, f"--workdir={str(bucket).replace('bucket', 'nobucket')}/runs"), 2)
    assert err.startswith("launch.py: --workdir: cannot write to") and err.count("\n") == 1


@pytest.mark.slow
def test_a_killed_training_goes_on_elsewhere(bucket, sources, monkeypatch, tmp_path):
    """On another machine, which has no copies, from the last checkpoint in the bucket; the lease of the first ends."""
    words = ("train", DEBUG, "--row=AR", f"--config.data.path={sources}", f"--workdir={bucket}/runs")
    words += ("--config.train.steps=80", "--config.train.checkpoint_every=10", "--config.train.log_every=10")
    process, deadline = launched(*words), time.time() + 300
    complete = "jobs/*/checkpoints/[0-9]*/_CHECKPOINT_METADATA"
    while not list((bucket / "runs").glob(complete)) and time.time() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list((bucket / "runs").glob(complete)) and not list(bucket.glob("runs/jobs/*/result.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    _, err = finished(launched(*words))
    assert "another command is at it" in err
    (metrics,) = bucket.glob("runs/jobs/*/metrics.jsonl")
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(10, 81, 10))
    assert "cannot be read" not in err


@pytest.mark.slow
def test_separate_work_directories_are_noticed(tmp_path):
    address = f"--coordinator=127.0.0.1:{free_port()}"
    words = ("train", DEBUG, "--row=AR", address, "--processes=2")
    pair = [launched(*words, f"--process={index}", f"--workdir={tmp_path / str(index)}") for index in range(2)]
    for process in pair:
        _, err = process.communicate(timeout=300)
        assert "--workdir: process 1 does not see the files of process 0" in err, err
    assert not list(tmp_path.glob("*/.seen-*"))
