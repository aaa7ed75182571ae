"""Measures relays between two sockets, and prints a table; see relay-bench.sh."""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

MIB = int(sys.argv[1])
ROUNDS = 5
BLOCK = bytes(range(256)) * 4096
TOOL = os.environ["SOCKPIPE"]
TOLD = subprocess.DEVNULL


def listen(address):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    server = socket.socket(family)
    server.bind(address)
    server.listen(128)
    return server


def connect(address):
    deadline = time.monotonic() + 10
    while True:
        client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            client.connect(address)
            return client
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def child(work):
    """Runs `work` in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def bulk(front, server):
    """Returns the MiB a second from a client of `front` to this process, which accepts at `server`."""

    def send():
        client = connect(front)
        for _ in range(MIB):
            client.sendall(BLOCK)
        client.close()

    pid = child(send)
    stream, _ = server.accept()
    room = bytearray(1 << 20)
    got, started = 0, time.perf_counter()
    while count := stream.recv_into(room):
        got += count
    took = time.perf_counter() - started
    os.waitpid(pid, 0)
    if got != MIB << 20:
        sys.exit(f"{got} bytes arrived of {MIB << 20}")
    return MIB / took


def echo(server):
    """Answers each connection in turn until it ends."""
    while True:
        stream, _ = server.accept()
        while data := stream.recv(4096):
            stream.sendall(data)
        stream.close()


def with_echo(measure):
    def run(front, server):
        pid = child(lambda: echo(server))
        try:
            return measure(front)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    return run


def connections(front):
    """Returns the connections a second, each with one byte there and back."""
    connect(front).close()
    count, started = 500, time.perf_counter()
    for _ in range(count):
        with connect(front) as client:
            client.sendall(b"x")
            if client.recv(1) != b"x":
                sys.exit("no echo")
    return count / (time.perf_counter() - started)


def latency(front):
    """Returns the median round trip of 64 bytes, in microseconds."""
    taken = []
    with connect(front) as client:
        for _ in range(5000):
            started = time.perf_counter()
            client.sendall(b"x" * 64)
            client.recv(64)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e6


def socat(front, behind):
    def end(address, listens):
        if isinstance(address, str):
            return f"UNIX-LISTEN:{address},fork" if listens else f"UNIX-CONNECT:{address}"
        host, port = address
        if listens:
            return f"TCP-LISTEN:{port},bind={host},fork,reuseaddr,backlog=128,nodelay"
        return f"TCP-CONNECT:{host}:{port},nodelay"

    return ["socat", "-b", "65536", end(front, True), end(behind, False)]


def ours(*options):
    def command(front, behind):
        def end(address):
            return address if isinstance(address, str) else f"tcp:{address[0]}:{address[1]}"

        return [TOOL, "-q", "relay", *options, end(front), end(behind)]

    return command


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()


def measure(kinds, relay, work):
    with tempfile.TemporaryDirectory() as directory:
        names = {"unix": lambda end: f"{directory}/{end}.sock", "tcp": lambda _: free_port()}
        behind = names[kinds[1]]("behind")
        server = listen(behind)
        if relay is None:
            return work(behind, server)
        front = names[kinds[0]]("front")
        process = subprocess.Popen(relay(front, behind), stderr=TOLD)
        try:
            return work(front, server)
        finally:
            process.terminate()
            process.wait()


def main():
    relays = {"direct": None, "socat": socat, "relay": ours(), "bare": ours("--no-descriptors")}
    rows = [
        ("unix → unix, MiB/s", ("unix", "unix"), bulk, relays, True),
        ("unix → tcp, MiB/s", ("unix", "tcp"), bulk, relays, True),
        ("tcp → unix, MiB/s", ("tcp", "unix"), bulk, relays, True),
        ("connections a second", ("unix", "unix"), with_echo(connections), relays, True),
        ("round trip, µs", ("unix", "unix"), with_echo(latency), relays, False),
    ]
    bars = {
        ("unix → unix, MiB/s", "relay"): (0.95, 0.35),
        ("unix → unix, MiB/s", "bare"): (1.5, 0.5),
        ("unix → tcp, MiB/s", "relay"): (1.0, 0),
        ("tcp → unix, MiB/s", "relay"): (1.0, 0),
        ("connections a second", "relay"): (2.5, 0),
    }
    print("| | direct | `socat -b 65536` | `relay` | to socat | to direct "
          "| `--no-descriptors` | to socat | to direct |")
    print("|---|---|---|---|---|---|---|---|---|")
    short = []
    for name, kinds, work, programs, more_is_better in rows:
        taken = {program: [] for program in programs}
        for _ in range(ROUNDS):
            for program, command in programs.items():
                taken[program].append(measure(kinds, command, work))
        # Takes the round that other work on this machine has disturbed least.
        best = max if more_is_better else min
        figures = {program: best(values) for program, values in taken.items()}
        cells = [f"{figures['direct']:.0f}", f"{figures['socat']:.0f}"]
        for program in ("relay", "bare"):
            ratios = [figures[program] / figures[other] for other in ("socat", "direct")]
            cells += [f"{figures[program]:.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
            for ratio, bar in zip(ratios, bars.get((name, program), (0, 0))):
                if more_is_better and ratio < bar:
                    short.append(f"{name}, {program}: {ratio:.2f} where {bar} is the bar")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if short:
        sys.exit("\n".join(short))


main()
