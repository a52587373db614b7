"""What is made before anything runs: the programs in C, and a certificate."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

from benchmarks.processes import BenchError

HERE = Path(__file__).resolve().parent
SOURCES = {
    "load": sorted(HERE.glob("load/*.c")),
    "floor": [HERE / "floor.c", HERE / "sockets.c"],
    "fan": [HERE / "fan.c", HERE / "sockets.c"],
    "network": [HERE / "network.c", HERE / "heap.c", HERE / "sockets.c"],
}
CERTIFICATE_DAYS = 30


def build(directory: Path) -> None:
    """Compiles the programs in C that are older than their sources. Raises BenchError if one cannot be."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, sources in SOURCES.items():
        program = directory / name
        parts = {path for source in sources for path in source.parent.glob("*.[ch]")}
        if program.exists() and program.stat().st_mtime > max(path.stat().st_mtime for path in parts):
            continue
        compiler = shlex.split(os.environ.get("CC", "gcc"))
        made = directory / f".{name}.{os.getpid()}"  # so that nobody runs, or is given, half a program
        options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-o", str(made)]
        libraries = ["-lm"]
        if any("#include <openssl/" in path.read_text() for path in parts):
            libraries += ["-lssl", "-lcrypto"]
        command = [*compiler, *options, *map(str, sources), *libraries]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            raise BenchError(f"no C compiler: {compiler[0]}: {error.strerror}") from error
        if done.returncode:
            raise BenchError(f"{name} does not compile: {(done.stderr.splitlines() or ['?'])[0]}")
        made.replace(program)


def certificate(directory: Path) -> tuple[Path, Path]:
    """The files of a certificate for this machine's loopback and of its key; made anew when it is old.

    Raises BenchError if it cannot be made."""
    made = directory / "certificate.pem", directory / "key.pem"
    if all(path.exists() and time.time() - path.stat().st_mtime < CERTIFICATE_DAYS * 86400 / 2 for path in made):
        return made
    directory.mkdir(parents=True, exist_ok=True)
    command = [
        *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
        *["-days", str(CERTIFICATE_DAYS), "-subj", "/CN=localhost", "-out", str(made[0]), "-keyout", str(made[1])],
        *["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
    ]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise BenchError(f"no certificate: openssl: {error.strerror} (apt-get install openssl)") from error
    if done.returncode:
        raise BenchError(f"no certificate: {(done.stderr.splitlines() or ['?'])[-1]}")
    return made
