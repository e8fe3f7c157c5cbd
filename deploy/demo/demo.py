#!/usr/bin/env python3
"""Runs one alert end to end: Prometheus, Alertmanager, scalebridge, a queue, the scaler, capacity.

`make demo` runs it. Three parts are not real: AWS is a local emulator, the pods are numbers in a
metric, and this program is a proxy between Alertmanager and the bridge, so that it can print the
notifications. All programs listen on 127.0.0.1 only, write to target/demo and stop with this one.
No AWS account is used.
"""

import argparse
import ctypes
import fcntl
import http.server
import json
import os
import pathlib
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import aws as local_aws

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
WORK = TARGET / "demo"
LOGS = WORK / "logs"
TOOLS = TARGET / "tools"

GROUP, QUEUE, FUNCTION = "workers", "scaling.fifo", "capacity-scaler"
BEFORE, OUT, IN = 2, 4, 3  # the group's capacity: initially, after the alert, after its resolve
PODS = [f"checkout-{letter}" for letter in "abc"]


class Failed(Exception):
    """A step of the demo failed; the text is for users."""


# --- Output -------------------------------------------------------------------------------

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
START = time.monotonic()


def step(title):
    line = f"{time.monotonic() - START:5.1f}s  {title}"
    print(f"\n\033[1m{line}\033[0m" if COLOUR else f"\n{line}", flush=True)


def show(name, value):
    print(f"        {name:<24}{value}", flush=True)


def show_json(file, text, alerts_shown):
    """Prints the document with its first alerts, and writes all of it to a file."""

    def shortened(value):
        if not isinstance(value, dict):
            return value
        value = {name: shortened(item) for name, item in value.items()}
        if (left_out := len(value.get("alerts", [])) - alerts_shown) > 0:
            more = f"… {left_out}{' more' * (alerts_shown > 0)}, see {WORK / file}"
            value["alerts"] = [*value["alerts"][:alerts_shown], more]
        return value

    (WORK / file).write_bytes(text.encode() if isinstance(text, str) else text)
    document = json.loads(text)
    for line in pretty(shortened(document), room=92).splitlines():
        print(f"        {line}", flush=True)
    return document


def pretty(value, room):
    """Formats JSON; values that fit on one line are on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= room or not isinstance(value, dict | list) or not value:
        return line
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {pretty(item, room - 2)}" for key, item in value.items()]
    else:
        items = [pretty(item, room - 2) for item in value]
    inner = ",\n".join(items).replace("\n", "\n  ")
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n  {inner}\n{closing}"


# --- The build ----------------------------------------------------------------------------


def build():
    """Builds bridge and scaler, unoptimized: that is faster, and the demo is not a measurement."""
    step("cargo build: the bridge and the scaler")
    tree = cargo("tree", "--edges=normal,build", "--prefix=none", "--no-dedupe", stdout=subprocess.PIPE)
    crates = len(set(tree.communicate()[0].splitlines()))
    started, done = time.monotonic(), {}
    building = cargo(
        "build", "--bins", "--quiet", "--message-format=json-render-diagnostics", stdout=subprocess.PIPE
    )

    def count():
        for line in building.stdout:
            message = json.loads(line)
            if message["reason"] == "compiler-artifact":
                done[message["package_id"]] = message["fresh"]

    counting = threading.Thread(target=count)
    counting.start()
    next_report = 1 if COLOUR else 20
    while counting.is_alive():
        counting.join(timeout=0.2)
        seconds = time.monotonic() - started
        if seconds >= next_report:
            next_report = seconds + (1 if COLOUR else 20)
            progress = f"        {len(done)} of {crates} crates after {seconds:.0f} s"
            print(f"\r{progress}  " if COLOUR else progress, end="" if COLOUR else "\n", flush=True)
    print("\r" if COLOUR else "", end="")
    if building.wait() != 0:
        raise Failed("cargo build failed, see above")
    is_fresh = all(done.values())
    show("built", "already" if is_fresh else f"in {time.monotonic() - started:.0f} s")


def cargo(command, *arguments, stdout):
    packages = ["--package=scalebridge", "--package=scalebridge-scaler"]
    command = ["cargo", command, "--locked", *packages, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=stdout, text=True)


# --- Ports and processes ------------------------------------------------------------------


def free_port(usual):
    """The usual port, or any free one, for example if a Prometheus is running already."""
    for port in [usual, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise Failed("no free port on 127.0.0.1")


class Processes:
    """The child processes. Each has its own log, and all are stopped with this program."""

    def __init__(self):
        self.running = {}

    def start(self, name, *command, env=None):
        with open(LOGS / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(
                [str(part) for part in command],
                cwd=WORK,
                env=local_aws.environment() | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Only this program gets Ctrl-C; it then stops the children in order.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def check(self):
        for name, child in self.running.items():
            if child.poll() is not None:
                raise Failed(f"{name} exited with code {child.returncode}")

    def stop(self):
        """Stops all in reverse order of their start, and returns those that failed."""
        failed = []
        for name, child in reversed(self.running.items()):
            child.terminate()
            try:
                code = child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                code = "none (killed after 30 s)"
            if name == "bridge" and code != 0:
                failed.append(f"{name} exited with code {code}")
            try:
                os.killpg(child.pid, signal.SIGKILL)  # its remaining child processes
            except ProcessLookupError:
                pass
        self.running.clear()
        return failed


def version_of(program):
    """Its name and version, as in `alertmanager, version 0.33.1 (branch: …)`."""
    command = [TOOLS / "bin" / program, "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    name, version = (output.stdout + output.stderr).partition(" (")[0].split(", version ")
    return f"{name.capitalize()} {version}"


def end_with_parent():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


# --- The demo's own servers ---------------------------------------------------------------


class Exporter(http.server.BaseHTTPRequestHandler):
    """Exports the metric of the pods in the format of kube-state-metrics."""

    waiting = False

    def do_GET(self):
        lines = ["# TYPE kube_pod_status_unschedulable gauge"]
        for pod in PODS:
            labels = f'asg="{GROUP}",namespace="shop",pod="{pod}"'
            lines.append(f"kube_pod_status_unschedulable{{{labels}}} {int(Exporter.waiting)}")
        answer(self, 200, "text/plain; version=0.0.4", "\n".join(lines).encode() + b"\n")

    def log_message(self, *_):
        pass


class Tap(http.server.BaseHTTPRequestHandler):
    """Forwards notifications to the bridge, and records them with the responses."""

    bridge = None
    seen = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = urllib.request.Request(Tap.bridge + self.path, body, dict(self.headers))
        try:
            with urllib.request.urlopen(request, timeout=10) as got:
                status, kind, text = got.status, got.headers["Content-Type"], got.read()
        except urllib.error.HTTPError as error:
            status, kind, text = error.code, error.headers["Content-Type"], error.read()
        except OSError as error:
            status, kind, text = 503, "text/plain", str(error).encode()
        answer(self, status, kind or "text/plain", text)
        Tap.seen.put((body, status, text))

    def log_message(self, *_):
        pass


def answer(handler, status, kind, body):
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def serve(handler, port):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


# --- The demo -----------------------------------------------------------------------------


class Demo:
    def __init__(self, bridge, scaler, processes):
        self.bridge = bridge
        self.scaler = scaler
        self.processes = processes
        # The addresses in the configuration files, and those in use.
        self.addresses = {
            f"127.0.0.1:{usual}": f"127.0.0.1:{free_port(usual)}"
            for usual in [4566, 9090, 9093, 9096, 9097, 9100]
        }
        self.tap_port = free_port(9098)

    def url(self, usual):
        return "http://" + self.addresses[f"127.0.0.1:{usual}"]

    def place(self, file, bridge_port=None):
        """Copies a configuration file into the working directory, with the addresses in use."""
        addresses = dict(self.addresses)
        if bridge_port:
            addresses["127.0.0.1:9096"] = f"127.0.0.1:{bridge_port}"
        text = (ROOT / file).read_text()
        for usual, used in addresses.items():
            text = text.replace(usual, used)
        copy = WORK / pathlib.Path(file).name
        copy.write_text(text)
        return copy

    def wait(self, what, poll, seconds=20):
        """Calls `poll` until it returns a value, and returns that value."""
        deadline = time.monotonic() + seconds
        while True:
            if found := poll():
                return found
            self.processes.check()
            if time.monotonic() > deadline:
                raise Failed(f"timed out after {seconds} s waiting for {what}")
            time.sleep(0.05)

    def wait_until_it_answers(self, name, url):
        def answers():
            try:
                with urllib.request.urlopen(url, timeout=2) as got:
                    return got.status == 200
            except OSError:
                return False

        self.wait(f"{name} at {url}", answers)

    # --- Steps ---

    def run(self):
        self.start_aws()
        self.start_bridge()
        self.start_prometheus_and_alertmanager()
        step("Three pods cannot be scheduled")
        Exporter.waiting = True
        show("metric", f'kube_pod_status_unschedulable{{asg="{GROUP}", pod="{PODS[0]}", …}} 1')
        self.watch_the_alert_fire()
        self.watch_one_event("scale_out", BEFORE, OUT, alerts_shown=1)
        step("Two more nodes: the pods are scheduled, and the alert resolves")
        Exporter.waiting = False
        show("metric", f'kube_pod_status_unschedulable{{asg="{GROUP}", pod="{PODS[0]}", …}} 0')
        self.watch_one_event("scale_in", OUT, IN, alerts_shown=0)
        self.show_metrics()
        self.ask_the_bridge()

    def start_aws(self):
        step("A local AWS emulator: a queue, the scaler as a function, an Auto Scaling group")
        url = self.url(4566)
        port = url.rpartition(":")[2]
        (WORK / "tmp").mkdir()
        self.processes.start(
            "aws",
            TOOLS / "venv/bin/python",
            "-m",
            "ministack",
            env={
                "BIND_HOST": "127.0.0.1",
                "MINISTACK_HOST": "127.0.0.1",
                "GATEWAY_PORT": port,
                "MINISTACK_REGION": local_aws.REGION,
                "TMPDIR": str(WORK / "tmp"),
                "LOG_LEVEL": "INFO",
            },
        )
        self.wait_until_it_answers("the local AWS", f"{url}/_ministack/health")
        self.aws = local_aws.Aws(url)
        self.queue_url = self.aws.create_queue(QUEUE)
        self.aws.create_scaler(FUNCTION, self.scaler, ROOT / "config/demo/scaler.yaml")
        self.aws.create_group(GROUP, 2, BEFORE, 10)
        show("queue", self.queue_url)
        show("function", f"{FUNCTION}, the scaler (config/demo/scaler.yaml)")
        self.show_capacity()

    def start_bridge(self):
        step("The bridge")
        if not self.bridge.exists():
            raise Failed(f"{self.bridge} not found")
        config = self.place("config/demo/scalebridge.yaml")
        self.place("config/demo/rules.yaml")
        self.processes.start(
            "bridge",
            self.bridge,
            "serve",
            "--config",
            config,
            env={
                "AWS_ENDPOINT_URL": self.url(4566),
                "SCALEBRIDGE__STORE__SQLITE__PATH": str(WORK / "scalebridge.db"),
            },
        )
        self.wait_until_it_answers("the bridge", self.url(9096) + "/-/ready")
        Tap.bridge = self.url(9096)
        serve(Tap, self.tap_port)
        show("configuration", "config/demo/scalebridge.yaml")
        show("rules", "config/demo/rules.yaml")
        show("webhook", self.url(9096) + "/webhook/demo")

    def start_prometheus_and_alertmanager(self):
        step("Prometheus and Alertmanager")
        show("version", ", ".join(version_of(name) for name in ["prometheus", "alertmanager"]))
        serve(Exporter, int(self.url(9100).rpartition(":")[2]))
        alertmanager = self.place("deploy/demo/alertmanager.yml", bridge_port=self.tap_port)
        self.processes.start(
            "alertmanager",
            TOOLS / "bin/alertmanager",
            f"--config.file={alertmanager}",
            f"--storage.path={WORK / 'alertmanager'}",
            f"--web.listen-address={self.url(9093).removeprefix('http://')}",
            f"--web.external-url={self.url(9093)}",
            "--cluster.listen-address=",
        )
        self.place("deploy/demo/alerts.yml")
        self.processes.start(
            "prometheus",
            TOOLS / "bin/prometheus",
            f"--config.file={self.place('deploy/demo/prometheus.yml')}",
            f"--storage.tsdb.path={WORK / 'prometheus'}",
            f"--web.listen-address={self.url(9090).removeprefix('http://')}",
            f"--web.external-url={self.url(9090)}",
            "--rules.alert.resend-delay=1s",
        )
        show("alert", "KubePodUnschedulable (deploy/demo/alerts.yml)")
        show("receiver", "a webhook (deploy/demo/alertmanager.yml)")
        self.wait_until_it_answers("Alertmanager", self.url(9093) + "/-/ready")
        self.wait_until_it_answers("Prometheus", self.url(9090) + "/-/ready")
        # Prometheus needs five seconds to start, which should not count as the alert's latency.
        self.wait("the first scrape", lambda: self.ask_prometheus("query?query=up==1")["result"])
        self.wait(
            "an active Alertmanager",
            lambda: self.ask_prometheus("alertmanagers")["activeAlertmanagers"],
        )
        show("", "Prometheus scrapes the metric and is connected to Alertmanager")

    def ask_prometheus(self, what):
        with urllib.request.urlopen(f"{self.url(9090)}/api/v1/{what}", timeout=5) as got:
            return json.load(got)["data"]

    def watch_the_alert_fire(self):
        def firing():
            alerts = self.ask_prometheus("alerts")["alerts"]
            return [alert for alert in alerts if alert["state"] == "firing"]

        alerts = self.wait("a firing alert", firing)
        step(f"Prometheus: {len(alerts)} alerts are firing")
        for alert in alerts:
            show(alert["labels"]["alertname"], alert["annotations"]["summary"])

    def watch_one_event(self, action, before, after, alerts_shown):
        try:
            body, status, answer = Tap.seen.get(timeout=20)
        except queue.Empty:
            raise Failed("no notification from Alertmanager within 20 s") from None
        step("Alertmanager notifies the bridge")
        show_json(f"{action}-notification.json", body, alerts_shown)
        step("The bridge has committed its decisions and answers")
        show(status, answer.decode().strip())
        if status != 200 or json.loads(answer).get("events") != 1:
            raise Failed("expected a 200 with one event from the bridge")

        message = self.wait("a message in the queue", lambda: self.aws.receive(self.queue_url))
        step(f"The message in the queue: attributes, and the {action} event as its body")
        for name in ["MessageGroupId", "MessageDeduplicationId"]:
            show(name, message["Attributes"][name])
        for name, value in sorted(message["MessageAttributes"].items()):
            show(name, value["StringValue"])
        event = show_json(f"{action}-event.json", message["Body"], alerts_shown)
        if event["data"]["action"] != action:
            raise Failed(f"expected a {action} event")

        capacity = self.wait("the scaler", lambda: self.aws.capacity_after(event["id"]))
        step(f"The scaler received the same event: capacity {before} → {capacity}")
        self.show_capacity()
        if capacity != after:
            raise Failed(f"expected a capacity of {after}")

    def show_capacity(self):
        group = self.aws.group(GROUP)
        instances = ", ".join(instance["InstanceId"] for instance in group["Instances"])
        bounds = f"min {group['MinSize']}, max {group['MaxSize']}"
        show("group", f"{GROUP}: desired {group['DesiredCapacity']} ({bounds})")
        show("instances", instances)

    def show_metrics(self):
        step("Metrics of the bridge")
        with urllib.request.urlopen(self.url(9097) + "/metrics", timeout=5) as got:
            for line in got.read().decode().splitlines():
                counted = line.partition("{")[0].removeprefix("scalebridge_")
                is_shown = counted in ["alerts_total", "decisions_total", "deliveries_total"]
                # All series exist from the start, at 0.
                if is_shown and not line.endswith(" 0"):
                    print(f"        {line}", flush=True)

    def ask_the_bridge(self):
        """Runs the commands with which an operator asks and stops the bridge."""
        step("Why did it scale?")
        self.operate("decisions")
        step("What would that notification do now? Nothing is sent")
        self.operate("explain", "--url", self.url(9097), "scale_out-notification.json")
        step("An operator stops scale-ins for ten minutes, and allows them again")
        reason = "the node image is being replaced"
        self.operate("pause", "--direction", "scale_in", "--for", "10m", "--reason", reason)
        self.operate("status")
        self.operate("resume", "--all")

    def operate(self, *arguments):
        """Runs a command of the CLI against the bridge, and shows it with its output."""
        print(f"        $ scalebridge {shlex.join(arguments)}", flush=True)
        command = [self.bridge, *arguments]
        environment = os.environ | {"SCALEBRIDGE_URL": self.url(9097)}
        got = subprocess.run(command, cwd=WORK, env=environment, capture_output=True, text=True)
        if got.returncode != 0:
            raise Failed(f"scalebridge {arguments[0]} exited with code {got.returncode}: {got.stderr}")
        for line in got.stdout.splitlines():
            print(f"          {line}".rstrip(), flush=True)

    def run_until_interrupted(self):
        step("Everything keeps running until Ctrl-C")
        show("Prometheus", self.url(9090))
        amtool = f"{TOOLS}/bin/amtool --alertmanager.url={self.url(9093)}"
        show("Alertmanager", f"{amtool} alert")
        show("the bridge's webhook", self.url(9096) + "/webhook/demo")
        show("the bridge's metrics", self.url(9097) + "/metrics")
        show("AWS, for its tools", f"export AWS_ENDPOINT_URL={self.url(4566)} \\")
        show("", f"  AWS_REGION={local_aws.REGION} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test")
        show("files, logs", WORK)
        show("a manual alert", f"{amtool} alert add KubePodUnschedulable \\")
        show("", f"  asg={GROUP} severity=warning pod=yours --annotation=value=1")
        while True:
            self.processes.check()
            try:
                body, status, text = Tap.seen.get(timeout=1)
            except queue.Empty:
                continue
            notification = json.loads(body)
            step(f"A notification with {len(notification['alerts'])} alerts, {notification['status']}")
            show(status, text.decode().strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="keep everything running until Ctrl-C")
    parser.add_argument("--bridge", type=pathlib.Path, help="a bridge to use instead of building one")
    parser.add_argument("--scaler", type=pathlib.Path, help="a scaler to use instead of building one")
    args = parser.parse_args()

    sys.stdout.reconfigure(errors="replace")
    WORK.mkdir(parents=True, exist_ok=True)
    lock = open(TARGET / "demo.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("another demo is already running in this checkout")
    shutil.rmtree(WORK)
    LOGS.mkdir(parents=True)

    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    for name in signals:
        signal.signal(name, signal.default_int_handler)
    print("One alert from Prometheus to an Auto Scaling group, all on 127.0.0.1.")
    processes, errors, is_kept = Processes(), [], False
    try:
        if args.bridge is None or args.scaler is None:
            build()
        bridge = (args.bridge or TARGET / "debug/scalebridge").resolve()
        scaler = (args.scaler or TARGET / "debug/scalebridge-scaler").resolve()
        demo = Demo(bridge, scaler, processes)
        demo.run()
        if is_kept := args.keep:
            demo.run_until_interrupted()
    except KeyboardInterrupt:
        if not is_kept:
            errors.append("interrupted")
    except Failed as error:
        errors.append(str(error))
    except Exception as error:
        errors.append(repr(error))
    finally:
        for name in signals:
            signal.signal(name, signal.SIG_IGN)
        failed = processes.stop()

    if errors := errors or failed:
        print("\nThe demo failed: " + "; ".join(errors), file=sys.stderr)
        for log in sorted(LOGS.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-5:]
            print("\n  ".join([f"{log} ends with", *lines]), file=sys.stderr)
        sys.exit(1)
    step("Done, everything is stopped")
    show("", "Next: change the rule in config/demo/rules.yaml and run this again.")


if __name__ == "__main__":
    main()
