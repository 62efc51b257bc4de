"""The job service of Dataflow, as far as Beam's runner talks to it, and an honest account of what it was told.

It answers on the loopback, writes every job it is given to a folder, fetches the graph and the packages that the runner
put into Cloud Storage, and has Beam's portable runner carry the graph out. Workers come from a pool whose program is
that of Beam's images: it gets what was staged, and nothing else. What differs from the service: one job at a time, no
shuffle service, no autoscaling, no containers.

    python dataflow_service.py PORT POOL FOLDER
"""

from __future__ import annotations

import json
import re
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

JOBS = re.compile(
    r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(/(?P<id>[^/:?]+))?(?P<rest>[^?]*)"
)
AT_ONCE_SECONDS = 30
"""How long the creation of a job waits for its end; the runner looks again every five seconds otherwise."""


class Service:
    def __init__(self, pool: str, folder: Path) -> None:
        self.pool = pool
        self.folder = folder
        self.jobs: dict[str, dict[str, Any]] = {}

    def create(self, project: str, region: str, job: dict[str, Any]) -> dict[str, Any]:
        name = f"job-{len(self.jobs)}"
        job |= {"id": name, "projectId": project, "location": region, "currentState": "JOB_STATE_RUNNING"}
        self.jobs[name] = job
        (self.folder / f"{name}.json").write_text(json.dumps(job))
        work = threading.Thread(target=self.carry_out, args=(job,), daemon=True)
        work.start()
        work.join(AT_ONCE_SECONDS)
        return job

    def carry_out(self, job: dict[str, Any]) -> None:
        try:
            state = self.run(job)
        except Exception:
            (self.folder / f"{job['id']}.error").write_text(traceback.format_exc())
            state = "FAILED"
        job["currentState"] = f"JOB_STATE_{state}"

    def run(self, job: dict[str, Any]) -> str:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.portability.api import beam_provision_api_pb2, beam_runner_api_pb2
        from apache_beam.runners.job.utils import dict_to_struct
        from apache_beam.runners.portability.fn_api_runner import fn_runner

        said = job["environment"]["sdkPipelineOptions"]["options"]
        FileSystems.set_options(PipelineOptions([f"--project={said['project']}"]))
        with FileSystems.open(said["pipelineUrl"]) as graph:
            pipeline = beam_runner_api_pb2.Pipeline.FromString(graph.read())
        (self.folder / f"{job['id']}.pb").write_bytes(pipeline.SerializeToString())
        for environment in pipeline.components.environments.values():
            self.move_to_pool(environment, self.folder / f"{job['id']}.artifacts")
        provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=dict_to_struct(said))
        runner = fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(provision, None, job["name"]))
        return str(runner.run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish())

    def move_to_pool(self, environment: Any, folder: Path) -> None:
        """Where Dataflow would start a container on a machine, and fetch the packages for it."""
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.portability import common_urns
        from apache_beam.portability.api import beam_runner_api_pb2, endpoints_pb2

        folder.mkdir(exist_ok=True)
        for artifact in environment.dependencies:
            url = beam_runner_api_pb2.ArtifactUrlPayload.FromString(artifact.type_payload).url
            path = folder / url.rpartition("/")[2]
            with FileSystems.open(url, compression_type=CompressionTypes.UNCOMPRESSED) as source:
                path.write_bytes(source.read())
            artifact.type_urn = common_urns.artifact_types.FILE.urn
            artifact.type_payload = beam_runner_api_pb2.ArtifactFilePayload(path=str(path)).SerializeToString()
        environment.urn = common_urns.environments.EXTERNAL.urn
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=self.pool)
        environment.payload = beam_runner_api_pb2.ExternalPayload(endpoint=endpoint).SerializeToString()


class Handler(BaseHTTPRequestHandler):
    service: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = JOBS.match(self.path)
        if self.path == "/token":  # what credentials are exchanged for
            self.answer({"access_token": "of-a-test", "expires_in": 3600, "token_type": "Bearer"})
        elif asked and not asked["id"]:
            self.answer(self.service.create(asked["project"], asked["region"], json.loads(body)))
        else:
            self.answer({"error": {"code": 404, "message": self.path}}, 404)

    def do_GET(self) -> None:
        asked = JOBS.match(self.path)
        job = self.service.jobs.get(asked["id"]) if asked else None
        if job is None or asked is None:
            self.answer({"error": {"code": 404, "message": self.path}}, 404)
        elif asked["rest"] == "/messages":
            self.answer({"jobMessages": self.messages(job["id"])})
        elif asked["rest"] == "/metrics":
            self.answer({"metrics": []})
        else:
            self.answer(job)

    def messages(self, name: str) -> list[dict[str, Any]]:
        error = self.service.folder / f"{name}.error"
        if not error.exists():
            return []
        text = error.read_text()
        time = "2026-01-01T00:00:00Z"
        return [{"id": "1", "time": time, "messageText": text, "messageImportance": "JOB_MESSAGE_ERROR"}]

    def answer(self, content: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    port, pool, folder = sys.argv[1:]
    Handler.service = Service(pool, Path(folder))
    ThreadingHTTPServer(("localhost", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
