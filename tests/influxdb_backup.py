"""What `influx backup` and `influx restore --full` do, by the requests that influx-cli 2.7 sends.

For tests: no public Go module has that program.
"""

import email.parser
import gzip
import json
import urllib.request
from email.policy import HTTP
from pathlib import Path

__all__ = ["back_up", "restore"]


def back_up(url: str, token: str, to: Path) -> None:
    """Write everything that an InfluxDB has to the folder `to`, which must not exist."""
    to.mkdir(parents=True)
    with _asked(f"{url}/api/v2/backup/metadata", token) as answer:
        kind = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=HTTP).parsebytes(kind + answer.read())
    for part in message.iter_parts():
        name = part["Content-Disposition"].params["name"]
        (to / name).write_bytes(part.get_content())
    for shard in _shards(to):
        with _asked(f"{url}/api/v2/backup/shards/{shard}", token) as answer:
            (to / f"{shard}.tar").write_bytes(answer.read())


def restore(url: str, token: str, source: Path) -> None:
    """Replace everything that an InfluxDB has by what `back_up` wrote."""
    with _asked(f"{url}/api/v2/restore/kv", token, source / "kv") as answer:
        token = json.load(answer)["token"]
    _asked(f"{url}/api/v2/restore/sql", token, source / "sql").close()
    for shard in _shards(source):
        _asked(f"{url}/api/v2/restore/shards/{shard}", token, source / f"{shard}.tar").close()


def _shards(folder: Path) -> list[int]:
    buckets = json.loads((folder / "buckets").read_text())
    return [
        shard["id"]
        for bucket in buckets
        for policy in bucket["retentionPolicies"]
        for group in policy["shardGroups"]
        for shard in group["shards"]
        if not group.get("deletedAt")
    ]


def _asked(url: str, token: str, file: Path | None = None) -> "urllib.request._UrlopenRet":
    headers, body = {"Authorization": f"Token {token}"}, None
    if file is not None:
        headers |= {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
        body = gzip.compress(file.read_bytes())
    return urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60)
