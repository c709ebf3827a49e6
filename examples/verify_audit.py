#!/usr/bin/env python3
"""Checks a Legation audit log: python3 verify_audit.py DIRECTORY

Needs nothing but Python. It checks the chain (docs/audit.md), not the signatures; how to check
those with openssl is described there.
"""
import hashlib, json, pathlib, re, sys

def broken(path, line, seq, what):
    sys.exit(f"BROKEN: {path.name}:{line}: record {seq}: {what}")

def main(directory):
    segments = sorted(p for p in pathlib.Path(directory).iterdir() if re.fullmatch(r"\d{20}\.jsonl", p.name))
    seq, prev, first, removed = None, None, None, set()
    for path in segments:
        if seq is not None and int(path.stem) != seq + 1:
            broken(path, 1, seq + 1, "a segment is missing, or out of place")
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            due = int(path.stem) if seq is None else seq + 1
            body, mark, end = line[:-75] + b"}", line[-75:-66], line[-66:]
            try:
                record = json.loads(line)
            except ValueError:
                broken(path, number, due, "not a record")
            if mark != b',"hash":"' or record.get("seq") != due:
                broken(path, number, due, "another record stands here")
            if seq is None:
                first, prev = due, record["prev"]
                begin = (due - 1, prev)
            if number == 1 and record.get("prev") != prev:
                broken(path, number, due, "the segment is bound to another one")
            if end != hashlib.sha256(prev.encode() + body).hexdigest().encode() + b'"}':
                broken(path, number, due, "its hash does not fit")
            if record["event"] == "system.removed":
                removed.add((record["last_seq"], record["last_hash"]))
            seq, prev = due, record["hash"]
    if first is None:
        sys.exit("there is no audit log here")
    if first != 1 and begin not in removed:
        sys.exit(f"BROKEN: records 1 to {first - 1} are missing, and no record says they were removed")
    print(f"whole: records {first} to {seq}, last hash {prev}")

main(sys.argv[1])
