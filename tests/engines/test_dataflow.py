"""What Beam's Dataflow runner makes of a run, sent to a stand-in for the service that carries out what it was sent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_runs import ROOT, Samples, anchormix
from workers import background, free_port, ran, worker_pool

pytestmark = pytest.mark.engine

PARTS = ROOT / "engines" / "dataflow" / "parts"
BUCKET = "mixes"
STAGES = ["index", "edges", "fates", "plan", "mix"]
JOB_TYPE_BATCH, WORKER_IP_PRIVATE = 1, 2  # as numbers, which is how the client sends them


@pytest.fixture(scope="module")
def libraries() -> str:
    return ran([PARTS, "libraries"], {**os.environ, "PYTHON": sys.executable}).strip()


@pytest.fixture
def cloud(libraries: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Storage that knows one bucket, and the environment of who talks to it."""
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH: the stand-in for Cloud Storage is built with Go 1.25 or later")
    port, service = free_port(), free_port()
    buckets = tmp_path / "storage"
    (buckets / BUCKET).mkdir(parents=True)
    credentials = tmp_path / "credentials.json"
    kind = "external_account_authorized_user"  # of all kinds the one that asks nobody but the address given here
    address = f"http://localhost:{service}"
    secrets = {"client_id": "c", "client_secret": "s", "refresh_token": "r", "audience": "tests"}
    addresses = {"token_url": f"{address}/token", "token_info_url": f"{address}/info"}
    credentials.write_text(json.dumps({"type": kind, **secrets, **addresses}))
    storage = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"localhost:{port}"]
    storage += ["-external-url", f"http://localhost:{port}", "-filesystem-root", str(buckets)]
    with background([ran([PARTS, "storage"]).strip(), *storage], port, tmp_path, "storage"):
        yield {
            "STORAGE_EMULATOR_HOST": f"http://localhost:{port}",
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            "GOOGLE_CLOUD_PROJECT": "training",
            "PYTHONPATH": os.pathsep.join([str(ROOT), libraries]),
            "SERVICE_PORT": str(service),
        }


def test_a_whole_run_reaches_the_service_and_what_it_was_sent_makes_the_same_bytes(
    cloud: dict[str, str], samples: Samples, sdist: Path, worker: Path, kernels: Path, tmp_path: Path
) -> None:
    for name in ("shards", "custody", "keys"):
        shutil.copytree(samples.folder / name, tmp_path / "upload" / name)
    upload(tmp_path / "upload", "input", cloud)
    told = tmp_path / "told"
    told.mkdir()
    port = int(cloud["SERVICE_PORT"])
    alone = {**cloud, "PYTHONPATH": cloud["PYTHONPATH"].rpartition(os.pathsep)[2]}  # nothing of the project
    with worker_pool(worker, tmp_path, kernels, alone) as pool:
        program = [sys.executable, ROOT / "tests" / "dataflow_service.py", str(port), pool, told]
        with background(program, port, tmp_path, "service", alone) as address:
            beam = ["--runner=DataflowRunner", f"--dataflow_endpoint=http://{address}", f"--extra_package={sdist}"]
            anchormix("run", samples.config, [*beam, *WISHES], **cloud, DATA=f"gs://{BUCKET}/input")

    found = {path.name: path.read_bytes() for path in (tmp_path / "storage" / BUCKET / "input/out/mix/data").iterdir()}
    assert found == samples.expected
    jobs = [json.loads(path.read_text()) for path in sorted(told.glob("job-*.json"))]
    assert len(jobs) == len(STAGES)
    for job in jobs:
        assert_carried(job)
        assert_staged(Job.read(told, job), sdist)
    assert len({job["name"] for job in jobs}) == len(jobs)


WISHES = [
    "--project=training",
    "--region=europe-west4",
    f"--temp_location=gs://{BUCKET}/tmp",
    f"--staging_location=gs://{BUCKET}/staging",
    "--sdk_container_image=registry.example/anchormix:0.1.0",
    "--machine_type=n2-standard-8",
    "--num_workers=3",
    "--max_num_workers=20",
    "--disk_size_gb=75",
    "--number_of_worker_harness_threads=4",
    "--min_cpu_platform=Intel Haswell",
    "--no_use_public_ips",
    "--subnetwork=regions/europe-west4/subnetworks/quiet",
    "--service_account_email=mixer@training.example",
    "--labels=team=data",
    "--experiments=shuffle_mode=service",
    "--dataflow_service_options=enable_google_cloud_heap_sampling",
]


def assert_carried(job: Mapping[str, Any]) -> None:
    """Every wish stands where the service looks for it."""
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    assert (job["projectId"], job["location"], job["type"]) == ("training", "europe-west4", JOB_TYPE_BATCH)
    assert job["labels"] == {"team": "data"}
    assert environment["tempStoragePrefix"].startswith(f"storage.googleapis.com/{BUCKET}/tmp/")
    assert environment["serviceAccountEmail"] == "mixer@training.example"
    assert environment["serviceOptions"] == ["enable_google_cloud_heap_sampling"]
    assert {"shuffle_mode=service", "min_cpu_platform=Intel Haswell", "use_runner_v2"} <= {*environment["experiments"]}
    assert (pool["machineType"], pool["numWorkers"], pool["diskSizeGb"]) == ("n2-standard-8", 3, 75)
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 20
    assert pool["numThreadsPerWorker"] == 4
    assert pool["ipConfiguration"] == WORKER_IP_PRIVATE
    assert pool["subnetwork"] == "regions/europe-west4/subnetworks/quiet"
    images = {image["containerImage"] for image in pool["sdkHarnessContainerImages"]}
    assert images == {"registry.example/anchormix:0.1.0"}


@dataclass
class Job:
    graph: Any
    artifacts: Path
    packages: dict[str, str]  # what the service is told of them: name, location

    @classmethod
    def read(cls, told: Path, job: Mapping[str, Any]) -> Job:
        from apache_beam.portability.api import beam_runner_api_pb2

        graph = beam_runner_api_pb2.Pipeline.FromString((told / f"{job['id']}.pb").read_bytes())
        packages = job["environment"]["workerPools"][0]["packages"]
        return cls(graph, told / f"{job['id']}.artifacts", {each["name"]: each["location"] for each in packages})


def assert_staged(job: Job, sdist: Path) -> None:
    """Under the names that boot looks for, with the digests that it checks, and nothing that it has no use for."""
    from apache_beam.portability.api import beam_runner_api_pb2

    (environment,) = {each.SerializeToString(): each for each in job.graph.components.environments.values()}.values()
    docker = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
    assert docker.container_image == "registry.example/anchormix:0.1.0"
    names = {sdist.name, "extra_packages.txt", "submission_environment_dependencies.txt"}
    assert set(job.packages) == names
    assert {path.name for path in job.artifacts.iterdir()} == names
    assert (job.artifacts / "extra_packages.txt").read_text().split() == [sdist.name]
    for artifact in environment.dependencies:
        payload = beam_runner_api_pb2.ArtifactUrlPayload.FromString(artifact.type_payload)
        name = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload).staged_name
        content = (job.artifacts / name).read_bytes()
        assert payload.url.startswith(f"gs://{BUCKET}/staging/")
        assert job.packages[name].endswith(payload.url.removeprefix("gs:/"))
        assert payload.sha256 == hashlib.sha256(content).hexdigest()
    with tarfile.open(job.artifacts / sdist.name) as staged, tarfile.open(sdist) as built:
        assert staged.getnames() == built.getnames()


def upload(folder: Path, prefix: str, cloud: Mapping[str, str]) -> None:
    program = (
        "import sys, pathlib; from google.cloud import storage\n"
        "folder, bucket, prefix = pathlib.Path(sys.argv[1]), storage.Client().bucket(sys.argv[2]), sys.argv[3]\n"
        "for path in folder.rglob('*'):\n"
        "    if path.is_file(): bucket.blob(f'{prefix}/{path.relative_to(folder)}').upload_from_filename(str(path))\n"
    )
    ran([sys.executable, "-c", program, folder, BUCKET, prefix], {**os.environ, **cloud})
