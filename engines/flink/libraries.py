"""Flink and Beam's runner on it: their libraries, collected once through Maven, behind one jar that names them all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

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
    name = hashlib.sha256(POM.read_bytes() + settings).hexdigest()[:12]
    folder = CACHE / name
    jar = folder / "job-server.jar"
    if jar.exists():
        return jar
    if shutil.which("mvn") is None:
        raise EngineError(f"Maven (mvn) is not on PATH; it collects the libraries that {POM} names")
    building = CACHE / f"{name}.{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    (building / "lib").mkdir(parents=True)
    print("collecting Flink's libraries; the first time takes minutes", file=sys.stderr)
    command = ["mvn", "--batch-mode", "--quiet", "--file", str(POM), "package", f"-Dlibraries={building / 'lib'}"]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if said.returncode:
        raise EngineError(f"`{' '.join(command)}` failed:\n{said.stdout.strip()[-2000:]}")
    with zipfile.ZipFile(building / jar.name, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", manifest(sorted((building / "lib").glob("*.jar"))))
        archive.writestr("simplelogger.properties", LOGGING)
    (building / "flink-conf.yaml").write_text(EMBEDDED_CONF)
    try:
        building.rename(folder)
    except OSError:
        if not jar.exists():
            raise
        shutil.rmtree(building)  # someone else prepared it meanwhile
    return jar


def java(jar: Path, main_class: str, heap: str, *flags: str) -> list[str]:
    """How another of the jar's programs than its own is called: `java -jar` alone would open the JDK's packages."""
    opened = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENED]
    return ["java", f"-Xmx{heap}", *flags, *opened, "-cp", str(jar), main_class]


def manifest(libraries: Iterable[Path]) -> str:
    entries = {
        "Manifest-Version": "1.0",
        "Main-Class": JOB_SERVER,
        "Class-Path": " ".join(f"lib/{library.name}" for library in libraries),
        "Add-Opens": " ".join(OPENED),
    }
    return "".join(wrapped(f"{name}: {value}") for name, value in entries.items())


def wrapped(line: str) -> str:
    """A manifest line has at most 72 bytes with its line end; it goes on in lines that start with a space."""
    pieces = [line[:70], *(" " + line[start : start + 69] for start in range(70, len(line), 69))]
    return "".join(piece + "\r\n" for piece in pieces)
