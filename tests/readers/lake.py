#!/usr/bin/env python3
"""An independent reader of a lake: no code of Tidegate, only the manifests and DuckDB.

    lake.py ROOT EXPORT                        check the chains and the files
    lake.py ROOT EXPORT --latest OUT.jsonl     and write each key's latest document
    lake.py ROOT EXPORT --select SQL           and run SQL over the view `lake`

ROOT is a folder. Exits with 1 and says why if anything does not hold.

What is checked, for every shard: manifests are dense from 1 and linked by hash
(if the module `blake3` is installed), epochs never fall, ranges tile without
hole or overlap (recorded losses are printed), and every file has the size, the
hash, the rows and exactly the sequences that its manifest claims.

Documents are written as Tidegate writes JSON: numbers exactly and without zeros
at their end, bytes as {"$binary"}, points in time as {"$timestamp"}, doubles
that are not finite as {"$double"}. They are taken from DuckDB as typed values,
not through its own JSON, which would lose the difference between bytes and text.
"""

import argparse
import base64
import datetime
import decimal
import json
import math
import os
import sys
import types


class Utc(datetime.tzinfo):
    """As much of pytz as DuckDB asks for. All times in a lake are UTC."""

    def utcoffset(self, _):
        return datetime.timedelta(0)

    def dst(self, _):
        return datetime.timedelta(0)

    def localize(self, moment):
        return moment.replace(tzinfo=datetime.timezone.utc)


try:
    import pytz
except ImportError:
    sys.modules["pytz"] = types.SimpleNamespace(timezone=lambda _: Utc(), utc=Utc())

import duckdb

try:
    from blake3 import blake3
except ImportError:
    blake3 = None

FORMAT = 1
OPERATIONS = {"insert", "update", "delete", "snapshot", "upsert", "gap"}


class Broken(Exception):
    """The lake is not what it promises to be."""


def need(holds, what):
    if not holds:
        raise Broken(what)


# ---- manifests ----


def read_chain(folder):
    """The manifests of one shard, in order, each checked against the one before."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    chain, previous = [], None
    for number, name in enumerate(names, start=1):
        need(name == f"{number:020}.json", f"{folder}: manifest {number} is missing, {name} is there")
        with open(os.path.join(folder, name), "rb") as file:
            stored = file.read()
        manifest = json.loads(stored)
        check_link(manifest, number, chain[-1] if chain else None, f"{folder}/{name}")
        if blake3:
            need(manifest["previous"] == previous, f"{folder}/{name}: is linked to another manifest")
            previous = blake3(stored).hexdigest()
        chain.append(manifest)
    return chain


def check_link(manifest, number, before, where):
    need(manifest["format"] == FORMAT, f"{where}: format {manifest['format']}")
    need(manifest["number"] == number, f"{where}: says it is number {manifest['number']}")
    epoch, to, records = (before["epoch"], before["to"], before["records"]) if before else (0, 0, 0)
    need(manifest["epoch"] >= epoch, f"{where}: epoch falls from {epoch}")
    need((manifest["previous"] is None) == (before is None), f"{where}: link to the one before")
    skipped = manifest["skipped"]
    if skipped:
        need(skipped["from"] == to + 1 <= skipped["to"], f"{where}: skipped range does not follow {to}")
        to = skipped["to"]
    need(manifest["from"] == to + 1, f"{where}: begins at {manifest['from']}, behind {to}")
    rows = manifest["to"] + 1 - manifest["from"]
    need(manifest["records"] == records + rows, f"{where}: total of records")
    need(set(manifest["operations"]) <= OPERATIONS, f"{where}: operations")
    need(sum(manifest["operations"].values()) == rows, f"{where}: counts by operation")
    need(sum(file["rows"] for file in manifest["files"]) == rows, f"{where}: rows of its files")
    if manifest["kind"] == "fence":
        need(rows == 0 and not manifest["files"], f"{where}: a fence with changes")
        need(manifest["progress"] == (before or {}).get("progress"), f"{where}: progress of a fence")
    else:
        need(manifest["kind"] == "commit" and rows > 0, f"{where}: kind {manifest['kind']}")


def read_export(root, export):
    """All chains of an export, by shard."""
    folder = os.path.join(root, export, "manifest")
    chains = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        chain = read_chain(os.path.join(folder, name))
        need(chain, f"{folder}/{name}: no manifest")
        shards = {manifest["shard"] for manifest in chain}
        need(len(shards) == 1, f"{folder}/{name}: manifests of {len(shards)} shards")
        chains[shards.pop()] = chain
    return chains


# ---- files ----


def open_lake(root, chains):
    """A DuckDB connection with the listed files as view `lake`, or without one if there are none."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        "CREATE TABLE file (filename VARCHAR, collection VARCHAR, shard VARCHAR, number UBIGINT,"
        " first UBIGINT, last UBIGINT, commit_from UBIGINT, commit_to UBIGINT, rows UBIGINT)"
    )
    listed = []
    for shard, chain in chains.items():
        for manifest in chain:
            for file in manifest["files"]:
                path = os.path.join(root, file["path"])
                check_bytes(path, file)
                listed.append(
                    (path, file["collection"], shard, manifest["number"], file["from"], file["to"],
                     manifest["from"], manifest["to"], file["rows"])
                )
    need(len({row[0] for row in listed}) == len(listed), "a file is listed twice")
    if not listed:
        return connection, False
    connection.executemany("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", listed)
    paths = ", ".join("'" + row[0].replace("'", "''") + "'" for row in listed)
    connection.execute(
        "CREATE VIEW lake AS SELECT file.collection, data.* EXCLUDE (filename) FROM"
        f" read_parquet([{paths}], filename = true, hive_partitioning = false) data"
        " JOIN file USING (filename)"
    )
    connection.execute(
        f"CREATE VIEW stored AS SELECT * FROM"
        f" read_parquet([{paths}], filename = true, hive_partitioning = false)"
    )
    return connection, True


def check_bytes(path, file):
    need(os.path.isfile(path), f"{path}: is listed and not there")
    need(os.path.getsize(path) == file["bytes"], f"{path}: has another size than listed")
    if blake3:
        with open(path, "rb") as stored:
            need(blake3(stored.read()).hexdigest() == file["blake3"], f"{path}: has another hash")


def check_rows(connection):
    """Every file has its rows, and every commit each of its sequences once."""
    wrong = connection.execute(
        "SELECT file.filename FROM file LEFT JOIN (SELECT filename, count(*) AS rows,"
        " min(sequence) AS first, max(sequence) AS last, min(shard) AS one, max(shard) AS other"
        " FROM stored GROUP BY filename) seen USING (filename)"
        " WHERE seen.rows IS DISTINCT FROM file.rows OR seen.first <> file.first"
        " OR seen.last <> file.last OR seen.one <> file.shard OR seen.other <> file.shard"
    ).fetchall()
    need(not wrong, f"files whose rows are not as listed: {wrong}")
    wrong = connection.execute(
        "SELECT shard, number FROM (SELECT file.shard, number, any_value(commit_from) AS first,"
        " any_value(commit_to) AS last, count(DISTINCT sequence) AS sequences, count(*) AS rows,"
        " min(sequence) AS low, max(sequence) AS high"
        " FROM stored JOIN file USING (filename) GROUP BY ALL)"
        " WHERE rows <> sequences OR low <> first OR high <> last OR rows <> last + 1 - first"
    ).fetchall()
    need(not wrong, f"commits without each of their sequences once: {wrong}")
    wrong = connection.execute(
        "SELECT count(*) FROM lake WHERE (operation = 'delete') <> (document IS NULL)"
        " OR (document IS NULL) <> (content_hash IS NULL)"
    ).fetchone()[0]
    need(wrong == 0, f"{wrong} rows have a document and should not, or the other way round")


# ---- documents ----


def exact(value):
    """A value of DuckDB as JSON text, without losing anything."""
    if value is None or isinstance(value, (bool, int, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, decimal.Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(value)
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return '{"$double":"%s"}' % name
    if isinstance(value, (bytes, bytearray)):
        return '{"$binary":"%s"}' % base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        moment = value.astimezone(datetime.timezone.utc)
        return '{"$timestamp":"%s"}' % moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(exact(item) for item in value) + "]"
    if isinstance(value, dict):
        fields = sorted(value.items(), key=lambda field: field[0].encode())
        escape = len(fields) == 1 and looks_tagged(fields[0][0])
        return "{" + ",".join(
            json.dumps(("$" if escape else "") + name, ensure_ascii=False) + ":" + exact(item)
            for name, item in fields
        ) + "}"
    raise Broken(f"a value of type {type(value).__name__} in a document")


def looks_tagged(name):
    return name.startswith("$") and name.lstrip("$") in ("binary", "timestamp", "double")


LATEST = """
    WITH newest AS (
        SELECT collection, key_bytes, shard, arg_max(
            {'key': key, 'operation': operation, 'clock': clock, 'sequence': sequence}, sequence
        ) AS change
        FROM lake WHERE operation <> 'gap' GROUP BY collection, key_bytes, shard
    ), alive AS (
        SELECT collection, key_bytes, arg_max(shard, change.clock) AS shard,
            arg_max(change, change.clock) AS change
        FROM newest GROUP BY collection, key_bytes
    )
    SELECT alive.collection, alive.change.key, lake.document
    FROM alive JOIN lake ON lake.shard = alive.shard AND lake.sequence = alive.change.sequence
    WHERE alive.change.operation <> 'delete'
    ORDER BY alive.collection, alive.key_bytes
"""


def write_latest(connection, path):
    """Each key's newest document, one JSON object a line: by sequence within a shard; if a key
    was in several shards, by clock."""
    rows = connection.execute(LATEST)
    count = 0
    with open(path, "w", encoding="utf-8") as out:
        while some := rows.fetchmany(1000):
            for collection, key, document in some:
                name = json.dumps(collection, ensure_ascii=False)
                out.write(f'{{"collection":{name},"key":{key},"document":{exact(document)}}}\n')
            count += len(some)
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root")
    parser.add_argument("export")
    parser.add_argument("--latest", metavar="OUT", help="write each key's latest document here")
    parser.add_argument("--select", metavar="SQL", help="run this over the view `lake`")
    options = parser.parse_args()
    chains = read_export(options.root, options.export)
    connection, has_rows = open_lake(options.root, chains)
    if has_rows:
        check_rows(connection)
    shards = []
    for shard, chain in chains.items():
        lost = [manifest["skipped"] for manifest in chain if manifest["skipped"]]
        operations = {}
        for manifest in chain:
            for name, count in manifest["operations"].items():
                operations[name] = operations.get(name, 0) + count
        last = chain[-1]
        shards.append({
            "shard": shard, "epoch": last["epoch"], "to": last["to"], "records": last["records"],
            "manifests": len(chain), "files": sum(len(manifest["files"]) for manifest in chain),
            "operations": operations, "skipped": lost,
        })
    report = {"export": options.export, "shards": shards,
              "records": sum(shard["records"] for shard in shards), "hashes_checked": bool(blake3)}
    if options.latest:
        if has_rows:
            report["keys"] = write_latest(connection, options.latest)
        else:
            open(options.latest, "w").close()
            report["keys"] = 0
    print(json.dumps(report))
    if options.select:
        need(has_rows, "the lake has no files to select from")
        for row in connection.execute(options.select).fetchall():
            print("[" + ",".join(exact(value) for value in row) + "]")


if __name__ == "__main__":
    try:
        main()
    except Broken as broken:
        print(f"broken: {broken}", file=sys.stderr)
        sys.exit(1)
