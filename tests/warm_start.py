"""Runs Python programs as copies of one process that has imported torch and the library already.

Importing them takes seconds, for every process that a test starts. A copy made by `fork` is a process of its own like
any other: with its own memory, arguments, environment, folder, output, signals and exit code. What it shares with
other copies is the seed of hashes.

Run as a program this file is the process that is copied. It listens on a socket for requests: one line of JSON, and
the three files that the program reads and prints to. It answers with the number of the process, and with its exit
code at the end. Whoever hangs up kills the program. It lives as long as somebody holds a connection without a request.
`WarmStart` starts programs so itself, and has an executable, `WarmStart.python`, that takes the place of
`sys.executable`.
"""

import atexit
import gc
import itertools
import json
import os
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

PRELOADED = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.launcher.api",
    "safetensors.torch",
    "scipy.ndimage",
    "fluid_core.commands.program",
    "fluid_core.data.shapes.judge",
    "fluid_core.pipeline",
    "fluid_core.training.sharding.building",
    "fluid_core.training.tokenizers.trainer",
    "fluid_core.training.trainer",
    "fluid_core.study.measuring",
)

# Runs without site packages, so it starts in a few hundredths of a second.
EXECUTABLE = """#!{python} -IS
import os, signal, sys
arguments = sys.argv[1:]
while arguments[:1] == ["-u"]:
    del arguments[0]
if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-m", "-c")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
import array, json, socket
line = json.dumps({{"arguments": arguments, "cwd": os.getcwd(), "environment": dict(os.environ)}}) + "\\n"
came, process = [], 0
def forward(number, frame):
    came.append(number)
    if process:
        os.kill(process, number)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, forward)
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [line.encode()[:1]], [0, 1, 2])
server.sendall(line.encode()[1:])
answers = server.makefile()
process = int(answers.readline())
for number in came:
    os.kill(process, number)
code = int(answers.readline() or -9)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Program:
    """A program that was started."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile()
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; nothing while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once it has ended. Raises `TimeoutError`."""
        code = self._ended(timeout)
        if code is None:
            raise TimeoutError(f"process {self.pid} did not end in {timeout} s")
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode


class WarmStart:
    """Starts programs from a process that is kept for all tests.

    Whoever uses the same folder uses the same process, as long as one of them does.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            place = folder / str(number)
            self.python, self._address = str(place / "python"), str(place / "socket")
            assert len(self._address) < 100, (
                f"no socket can have a path as long as {self._address}: choose a --basetemp"
            )
            with suppress(FileExistsError):
                place.mkdir()
                self._start_process(place)
            if self._hold():
                break

    def close(self) -> None:
        """Without anybody else who uses it the process ends, and with it whatever is still running."""
        self._held.close()

    def _start_process(self, place: Path) -> None:
        Path(self.python).write_text(EXECUTABLE.format(python=sys.executable, address=self._address))
        Path(self.python).chmod(0o755)
        with (place / "printed.txt").open("wb") as printed:
            subprocess.Popen(
                [sys.executable, __file__, self._address, self.python],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def _hold(self) -> bool:
        """Whether the process is there and will stay."""
        ends = time.monotonic() + 200.0
        while not Path(self._address).exists():
            assert time.monotonic() < ends, f"nobody listens at {self._address}; see printed.txt beside it"
            time.sleep(0.02)
        self._held = socket.socket(socket.AF_UNIX)
        try:
            self._held.connect(self._address)
            self._held.sendall(b"\n")
            return self._held.recv(1) == b"\n"
        except OSError:
            return False

    def start(
        self,
        arguments: Sequence[object],
        *,
        output: IO[Any],
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> Program:
        """Start what `python ARGUMENTS` would: a script, `-m` and a module, or `-c` and a text, and arguments of it.

        It prints to the file `output`. `environment` is added to that of this process. Unlike a process that was
        started as `WarmStart.python`, this one is gone once it was killed and waited for.
        """
        request = {
            "arguments": [str(one) for one in arguments],
            "cwd": str(cwd or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        line = (json.dumps(request) + "\n").encode()
        with open(os.devnull) as nothing:
            socket.send_fds(connection, [line[:1]], [nothing.fileno(), output.fileno(), output.fileno()])
        connection.sendall(line[1:])
        return Program(connection)


def serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Copy this process as often as it is asked to. Returns in copies alone: what they shall do, and their files."""
    running: dict[int, socket.socket] = {}
    held: set[socket.socket] = set()
    ready, woken = socket.socketpair()
    for one in (ready, woken):
        one.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)

    with selectors.DefaultSelector() as selector:
        for one in (listener, ready):
            selector.register(one, selectors.EVENT_READ)
        while True:
            events = [key.fileobj for key, _ in selector.select()]
            if ready in events:
                ready.recv(4096)
            for process in list(running):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    connection = running.pop(process)
                    selector.unregister(connection)
                    with suppress(OSError):
                        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                    connection.close()
            for process, connection in running.items():
                if connection in events:
                    # Nobody says anything to a program that runs: this is the end of the connection.
                    os.kill(process, signal.SIGKILL)
            for connection in held.intersection(events):
                selector.unregister(connection)
                held.remove(connection)
                if not held:
                    for process in running:
                        os.kill(process, signal.SIGKILL)
                    os._exit(0)
            if listener in events:
                connection, _ = listener.accept()
                text, files, *_ = socket.recv_fds(connection, 1, 3)
                if not files:
                    connection.sendall(text)
                    held.add(connection)
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                with connection.makefile("rb") as lines:
                    request = json.loads(text + lines.readline())
                process = os.fork()
                if process == 0:
                    listener.close()
                    return request, files
                for file in files:
                    os.close(file)
                connection.sendall(f"{process}\n".encode())
                running[process] = connection
                selector.register(connection, selectors.EVENT_READ)


def become(request: dict[str, Any], files: list[int], executable: str) -> NoReturn:
    """Be the program that was asked for, to its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.executable = executable
    # What was drawn at random before the copy was made must not be the same in all of them.
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        run(*request["arguments"])
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
        code = 0 if code is None else code if isinstance(code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    else:
        code = 0
    # What an interpreter does at its end, but for taking everything apart that the original made.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


def run(first: str, *others: str) -> None:
    """Run a program in this process as `python FIRST OTHERS` does."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[:1] = [os.getcwd() if first in ("-m", "-c") else str(Path(first).resolve().parent), *paths]
    if first == "-m":
        sys.argv = list(others)
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *others[1:]]
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for name in PRELOADED:
        __import__(name)
    address, executable = sys.argv[1:]
    assert sys.platform != "linux" or len(os.listdir("/proc/self/task")) == 1, "copies would lose threads"
    gc.collect()
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address + ".new")
    listening.listen(64)
    os.rename(address + ".new", address)
    become(*serve(listening), executable)
