"""Java libraries, collected once through Maven, behind one jar that names them all, for `java -jar`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from processes import EngineError


def prepared(what: str, pom: Path, settings: bytes, cache: Path, make: Callable[[Path], None]) -> Path:
    """The folder for this pom.xml and these settings, made if it is not there yet. Needs the network only then."""
    home = cache / hashlib.sha256(pom.read_bytes() + settings).hexdigest()[:12]
    if home.exists():
        return home
    print(f"collecting {what}'s libraries; the first time takes minutes", file=sys.stderr)
    building = cache / f"{home.name}.{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    make(building)
    try:
        building.rename(home)
    except OSError:
        if not home.exists():
            raise
        shutil.rmtree(building)  # someone else prepared it meanwhile
    return home


def collect(pom: Path, folder: Path) -> None:
    """Copy what a pom.xml depends on into a new folder."""
    if shutil.which("mvn") is None:
        raise EngineError(f"Maven (mvn) is not on PATH; it collects the libraries that {pom} names")
    folder.mkdir()
    command = ["mvn", "--batch-mode", "--quiet", "--file", str(pom), "package", f"-Dlibraries={folder}"]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if said.returncode:
        raise EngineError(f"`{' '.join(command)}` failed:\n{said.stdout.strip()[-2000:]}")


def write_jar(jar: Path, main_class: str, libraries: Path, opened: Iterable[str], files: Mapping[str, str]) -> None:
    """A jar without code: its manifest names the main class, the libraries, and what they need of the JDK."""
    entries = {
        "Manifest-Version": "1.0",
        "Main-Class": main_class,
        "Class-Path": " ".join(f"{libraries.name}/{library.name}" for library in sorted(libraries.glob("*.jar"))),
        "Add-Opens": " ".join(opened),
    }
    manifest = "".join(_wrapped(f"{name}: {value}") for name, value in entries.items())
    with zipfile.ZipFile(jar, "w") as archive:
        for name, content in {"META-INF/MANIFEST.MF": manifest, **files}.items():
            archive.writestr(name, content)


def _wrapped(line: str) -> str:
    """A manifest line has at most 72 bytes with its line end; it goes on in lines that start with a space."""
    pieces = [line[:70], *(" " + line[start : start + 69] for start in range(70, len(line), 69))]
    return "".join(piece + "\r\n" for piece in pieces)


def java(libraries: Path, opened: Iterable[str], main_class: str, heap: str, *flags: str) -> list[str]:
    """How another program than a jar's own is called: `java -jar` alone would open the JDK's packages."""
    opens = [f"--add-opens={package}=ALL-UNNAMED" for package in opened]
    return ["java", f"-Xmx{heap}", *flags, *opens, "-cp", str(libraries), main_class]
