"""Drives the demo: starts the cluster, loads, writes, kills, compares.

Reads the lake with DuckDB through `tests/readers/lake.py`, which shares no code
with the writer. Exit code 1 unless every document is where it should be.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNAPSHOT_WAIT_S = 150
DELIVERY_WAIT_S = 120
# Of each log, when it goes wrong.
LAST_LINES = 8


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


class Demo:
    def __init__(self, args):
        self.args = args
        self.folder = Path(args.folder)
        self.bin = Path(args.bin)
        self.running = {}
        self.stop_writing = threading.Event()
        self.written = 0

    # ---- processes ----

    def spawn(self, name, *command):
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
        self.running[name] = process
        return process

    def start_node(self, number):
        join = ["--bootstrap"] if number == 1 else ["--join", self.address(1)]
        self.spawn(
            f"node{number}",
            self.bin / "tidegated", "run",
            "--data", self.folder / f"node{number}", "--name", f"node{number}",
            "--listen", self.address(number),
            "--metrics-listen", self.metrics(number), *join,
        )

    def address(self, number):
        return f"127.0.0.1:{self.args.port + number}"

    def metrics(self, number):
        return f"127.0.0.1:{self.args.port + 3 + number}"

    def documents_endpoint(self):
        return f"http://127.0.0.1:{self.args.port}"

    def endpoints(self):
        return ",".join(f"http://{self.address(number)}" for number in (1, 2, 3))

    def cli(self, *command, documents=False, check=True, **options):
        endpoint = self.documents_endpoint() if documents else self.endpoints()
        command = [str(self.bin / "tidegate"), "--endpoint", endpoint, *map(str, command)]
        return subprocess.run(command, check=check, capture_output=True, text=True, **options)

    def json(self, *command, **options):
        return json.loads(self.cli("--output", "json", *command, **options).stdout)

    def wait(self, what, done, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if done():
                    return
            except (subprocess.CalledProcessError, ValueError, KeyError):
                pass  # a node that is not there yet
            for name, process in self.running.items():
                if process.poll() is not None:
                    self.give_up(f"{name} ended with code {process.returncode}, waiting until {what}")
            time.sleep(0.3)
        self.give_up(f"gave up after {seconds} s waiting until {what}")

    def give_up(self, why):
        for path in sorted(self.folder.glob("*.log")):
            for line in path.read_text(errors="replace").splitlines()[-LAST_LINES:]:
                print(f"{path.name}: {line}", file=sys.stderr)
        raise SystemExit(f"{why}; above is the end of {self.folder}/*.log")

    # ---- load ----

    def order(self, number, version):
        rng = random.Random(number * 1000003 + version)
        cents = rng.randrange(100, 10_000_000)
        return {
            "id": f"order-{number:07d}",
            "version": version,
            "customer": f"customer-{rng.randrange(20000):05d}",
            "total": f"@{cents // 100}.{cents % 100:02d}@",
            "status": rng.choice(["new", "paid", "packed", "sent", "returned"]),
            "items": [{"sku": f"sku-{rng.randrange(5000)}", "n": rng.randrange(1, 9)} for _ in range(2)],
        }

    def line(self, order):
        # The total stays a decimal: it never is a float here either.
        return json.dumps(order).replace('"@', "").replace('@"', "") + "\n"

    def load(self):
        path = self.folder / "orders.jsonl"
        with open(path, "w") as file:
            for number in range(self.args.documents):
                file.write(self.line(self.order(number, 0)))
        self.cli("docs", "import", "orders", path, "--key", "id", documents=True)

    def write(self):
        """Updates, inserts and deletes for as long as the demo wants."""
        rng = random.Random(7)
        version = 0
        while not self.stop_writing.is_set():
            version += 1
            path = self.folder / "changes.jsonl"
            with open(path, "w") as file:
                for _ in range(400):
                    number = rng.randrange(int(self.args.documents * 1.05))
                    file.write(self.line(self.order(number, version)))
            self.cli("docs", "import", "orders", path, "--key", "id", documents=True)
            self.written += 400
            for _ in range(5):
                number = rng.randrange(self.args.documents)
                key = f"order-{number:07d}"
                self.cli("--yes", "docs", "delete", "orders", key, documents=True, check=False)
                self.written += 1

    # ---- the story ----

    def run(self):
        args = self.args
        self.spawn("documents", self.bin / "tidegated", "documents", "--data", self.folder / "store",
                   "--listen", f"127.0.0.1:{args.port}")
        self.start_node(1)
        self.wait("node 1 answers", lambda: self.json("status"), 30)
        self.start_node(2)
        self.start_node(3)
        self.wait("three nodes are up", lambda: self.up() == 3, 30)
        say("three nodes are up; metrics at " + "  ".join(
            f"http://{self.metrics(number)}/metrics" for number in (1, 2, 3)))
        self.wait("the document store answers", lambda: self.count() == 0, 30)
        say(f"loading {args.documents} documents")
        started = time.monotonic()
        self.load()
        say(f"loaded in {time.monotonic() - started:.1f} s")
        writer = threading.Thread(target=self.write, daemon=True)
        writer.start()
        self.apply()
        feed = self.follow()
        say("export applied, a feed client follows, writes go on")
        self.wait("the snapshot is half way", lambda: self.snapshot() >= 0.3, SNAPSHOT_WAIT_S)
        self.kill_the_busiest()
        self.wait("the snapshot is complete", lambda: self.snapshot() >= 1, SNAPSHOT_WAIT_S)
        say(f"snapshot complete; {self.written} changes written meanwhile; stopping the writes")
        self.stop_writing.set()
        writer.join()
        self.wait("everything is delivered", self.settled, DELIVERY_WAIT_S)
        say("everything is delivered; comparing store, lake and feed")
        return self.verify(feed)

    def up(self):
        status = self.json("status")
        return sum(1 for node in status["nodes"] if node["state"] == "up")

    def count(self):
        return self.json("docs", "count", documents=True)["documents"]

    def apply(self):
        text = (ROOT / "deploy" / "orders.toml").read_text()
        text = text.replace("http://127.0.0.1:7390", self.documents_endpoint())
        text = text.replace("/tmp/tidegate-demo", str(self.folder))
        # Slow enough to be killed half way.
        pace = max(500, self.args.documents // 50)
        text = text.replace("rows-per-second = 0", f"rows-per-second = {pace}")
        path = self.folder / "orders.toml"
        path.write_text(text)
        self.cli("--yes", "apply", "-f", path)

    def follow(self):
        out = open(self.folder / "feed.jsonl", "wb")
        command = [self.bin / "tidegate", "--endpoint", self.endpoints(), "feed", "tail", "orders",
                   "--from", "earliest", "--format", "json"]
        log = open(self.folder / "feed.log", "ab")
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=log)
        self.running["feed"] = process
        return process

    def shards(self):
        return self.json("shard", "list", "orders")["shards"]

    def snapshot(self):
        shards = self.shards()
        if not shards:
            return 0
        return sum(shard["snapshot"]["share"] for shard in shards) / len(shards)

    def kill_the_busiest(self):
        owned = {}
        for shard in self.shards():
            owned[shard["reader"]] = owned.get(shard["reader"], 0) + 1
        busiest = max(owned, key=owned.get)
        number = int(busiest.removeprefix("node"))
        say(f"kill -9 node{number}, which owns {owned[busiest]} of {sum(owned.values())} shards")
        killed = self.running.pop(f"node{number}")
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        self.wait("its shards run elsewhere",
                  lambda: all(shard["reader"] != busiest for shard in self.shards()), 30)
        say(f"its shards run elsewhere, snapshot at {self.snapshot():.0%}; restart node{number}")
        self.start_node(number)

    def settled(self):
        revision = self.json("docs", "count", documents=True)["revision"]
        for shard in self.shards():
            if int(shard["captured"]["position"].rsplit(":", 1)[1]) < revision:
                return False
            if any(sink["behind"] for sink in shard["sinks"]):
                return False
        return True

    # ---- proof ----

    def verify(self, feed):
        expected = {}
        listing = self.cli("docs", "export", documents=True).stdout
        for line in listing.splitlines():
            row = json.loads(line, parse_float=str, parse_int=str)
            expected[row["key"]] = row["document"]
        time.sleep(2)  # what is under way to the feed client
        feed.terminate()
        feed.wait()
        bad = self.compare("feed", expected, self.feed_state())
        bad += self.compare("lake", expected, self.lake_state())
        return bad

    def feed_state(self):
        state = {}
        with open(self.folder / "feed.jsonl") as file:
            for line in file:
                change = json.loads(line, parse_float=str, parse_int=str)
                key = change["key"]
                if change["operation"] == "delete":
                    state.pop(key, None)
                else:
                    state[key] = change["document"]
        return state

    def lake_state(self):
        out = self.folder / "latest.jsonl"
        reader = [sys.executable, str(ROOT / "tests" / "readers" / "lake.py"),
                  str(self.folder / "lake"), "orders", "--latest", str(out)]
        subprocess.run(reader, check=True, stdout=sys.stderr)
        state = {}
        with open(out) as file:
            for line in file:
                row = json.loads(line, parse_float=str, parse_int=str)
                state[row["key"]] = row["document"]
        return state

    def compare(self, what, expected, found):
        missing = [key for key in expected if key not in found]
        extra = [key for key in found if key not in expected]
        different = [key for key in expected if key in found and expected[key] != found[key]]
        line = (f"{len(expected)} documents, {len(missing)} missing, "
                f"{len(extra)} extra, {len(different)} different")
        bad = len(missing) + len(extra) + len(different)
        if what == "lake":
            self.last_line = f"verified: {line}"
        say(f"{what}: {line}")
        for name, keys in (("missing", missing), ("extra", extra), ("different", different)):
            if keys:
                say(f"  {name} in the {what}, for example: {', '.join(sorted(keys)[:3])}")
        return bad

    def close(self):
        self.stop_writing.set()
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                process.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--bin", required=True)
    demo = Demo(parser.parse_args())
    try:
        bad = demo.run()
    finally:
        demo.close()
    if bad:
        say("what is above does not agree; the logs are in " + str(demo.folder))
        sys.exit(1)
    print(demo.last_line, flush=True)


if __name__ == "__main__":
    main()
