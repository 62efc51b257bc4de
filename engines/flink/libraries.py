"""Flink and Beam's runner on it: their libraries, collected once through Maven, behind one jar that names them all."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all engines share

import maven
from processes import EngineError

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
CACHE = HERE.parent.parent / ".cache" / "flink"

JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
# What Flink and its serializers reach into by reflection; closed by default since Java 16.
OPENED = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
    "java.base/sun.net.util",
    "java.base/sun.nio.ch",
]
# Of the embedded Flink. It listens on every interface by default, and its memory defaults are those of a process that
# runs nothing big.
EMBEDDED_CONF = """\
jobmanager.bind-host: localhost
taskmanager.bind-host: localhost
taskmanager.host: localhost
rest.bind-address: localhost
taskmanager.memory.managed.size: 1g
taskmanager.memory.network.min: 256m
taskmanager.memory.network.max: 256m
"""
# Flink warns of every operator whose name is long, and Beam makes long names.
LOGGING = """\
org.slf4j.simpleLogger.defaultLogLevel=warn
org.slf4j.simpleLogger.log.org.apache.flink.metrics=error
org.slf4j.simpleLogger.showDateTime=true
org.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS
"""


def prepare() -> Path:
    """The jar for this pom.xml and these settings, built if it is not there yet. Needs the network only then."""
    if shutil.which("java") is None:
        raise EngineError("java is not on PATH; Flink needs Java 11 or later")
    settings = json.dumps([JOB_SERVER, OPENED, EMBEDDED_CONF, LOGGING]).encode()
    return maven.prepared("Flink", POM, settings, CACHE, _make) / "job-server.jar"


def _make(folder: Path) -> None:
    maven.collect(POM, folder / "lib")
    maven.write_jar(folder / "job-server.jar", JOB_SERVER, folder / "lib", OPENED, {"simplelogger.properties": LOGGING})
    (folder / "flink-conf.yaml").write_text(EMBEDDED_CONF)


def java(jar: Path, main_class: str, heap: str, *flags: str) -> list[str]:
    """How another of the jar's programs than its own is called."""
    return maven.java(jar, OPENED, main_class, heap, *flags)
