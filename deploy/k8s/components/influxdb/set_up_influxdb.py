"""Sets InfluxDB up and gives out tokens that can do only what they must; runs as a Job.

InfluxDB gets its administrator, organisation and two buckets: one for what the influx-writer
writes, and one for sums of five minutes that InfluxDB makes of it by a task and keeps longer. And
two tokens: one that can only write to the first, one that can only read both. They go to the Secret
`flowverdict-influxdb`, or to files in OUTPUT_FOLDER if that is set. What exists is kept, what
InfluxDB has lost is made again: it is safe to run any number of times. It never prints a secret.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import requests
from kubernetes import client, config

NAME = "flowverdict-influxdb"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
ORGANISATION = BUCKET = "flowverdict"
ROLLUP = f"{BUCKET}_rollup"
"""The dashboard History reads long ranges from it."""
TASK = "Flowverdict: sums of five minutes"
FLUX = f"""option task = {{name: "{TASK}", every: 5m, offset: 1m}}

// Three of them each time, so that what is up to ten minutes late is in them.
from(bucket: "{BUCKET}")
  |> range(start: -15m)
  |> filter(fn: (r) => r._measurement == "flow")
  |> group(columns: ["_measurement", "_field",
       "src_namespace", "src_workload", "src_pod", "src_node", "src_zone", "src_labels",
       "dst_namespace", "dst_workload", "dst_pod", "dst_node", "dst_zone", "dst_labels"])
  |> aggregateWindow(every: 5m, fn: sum, createEmpty: false, timeSrc: "_start")
  |> to(bucket: "{ROLLUP}")
"""
TOKENS = {"write": "write-token", "read": "read-token"}
WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", "900"))

Json = dict[str, Any]


class Refused(RuntimeError):
    """InfluxDB refuses a request; the message says which and why."""


class InfluxDB:
    """An InfluxDB 2 server and the token of its administrator (docs.influxdata.com, API)."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v2"
        self._token = token
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Token {token}"

    def _request(self, method: str, path: str, **arguments: Any) -> Json:
        answer = self._session.request(method, self._url + path, timeout=10, **arguments)
        if answer.status_code >= 500 or answer.status_code == 429:
            raise requests.ConnectionError(f"{self._url}{path} returned {answer.status_code}")
        if not answer.ok:
            hint = ""
            if answer.status_code == 401:
                hint = ": it was set up with another token than flowverdict-credentials has"
            raise Refused(f"{method} {path} returned {answer.status_code}{hint}")
        return dict(answer.json()) if answer.content else {}

    def _bucket(self, name: str) -> Json | None:
        """The bucket, if it exists. If asked for by name, a missing one would be an error."""
        query = {"org": ORGANISATION, "limit": 100}
        found = self._request("GET", "/buckets", params=query)["buckets"]
        return next((dict(each) for each in found if each["name"] == name), None)

    def set_up(self, password: str, keep_days: float) -> bool:
        """Create administrator, organisation and bucket in a new InfluxDB; False if it has them."""
        if not self._request("GET", "/setup")["allowed"]:
            return False
        first = {
            "username": "admin",
            "password": password,
            "token": self._token,
            "org": ORGANISATION,
            "bucket": BUCKET,
            "retentionPeriodSeconds": int(keep_days * 86400),
        }
        self._request("POST", "/setup", json=first)
        return True

    def bucket(self, name: str, keep_days: float) -> Json:
        """A bucket, created again if somebody has deleted it."""
        if found := self._bucket(name):
            return found
        (organisation,) = self._request("GET", "/orgs", params={"org": ORGANISATION})["orgs"]
        rule = {"type": "expire", "everySeconds": int(keep_days * 86400)}
        wanted = {"orgID": organisation["id"], "name": name, "retentionRules": [rule]}
        return self._request("POST", "/buckets", json=wanted)

    def task(self, organisation: str) -> bool:
        """Have InfluxDB make sums of five minutes; False if it does."""
        found = self._request("GET", "/tasks", params={"name": TASK, "orgID": organisation})
        for each in found.get("tasks", []):
            if each["flux"] == FLUX and each["status"] == "active":
                return False
            self._request("DELETE", f"/tasks/{each['id']}")
        wanted = {"orgID": organisation, "flux": FLUX, "status": "active"}
        self._request("POST", "/tasks", json=wanted)
        return True

    def token(self, action: str, buckets: list[Json]) -> tuple[str, bool]:
        """The token that can only `action` these buckets, and whether it is new."""
        organisation, description = buckets[0]["orgID"], f"Flowverdict: {action} {BUCKET}"
        query = {"orgID": organisation}
        for each in self._request("GET", "/authorizations", params=query)["authorizations"]:
            if each["description"] != description:
                continue
            allowed = {
                (may["action"], may["resource"]["type"], may["resource"].get("id"))
                for may in each["permissions"]
            }
            wanted_now = {(action, "buckets", bucket["id"]) for bucket in buckets}
            right = allowed == wanted_now and each["status"] == "active"
            # Later versions of InfluxDB show a token only once.
            if right and each.get("token"):
                return str(each["token"]), False
            self._request("DELETE", f"/authorizations/{each['id']}")
        wanted = {
            "orgID": organisation,
            "description": description,
            "permissions": [
                {
                    "action": action,
                    "resource": {"type": "buckets", "id": bucket["id"], "orgID": organisation},
                }
                for bucket in buckets
            ],
        }
        return str(self._request("POST", "/authorizations", json=wanted)["token"]), True


def set_up(
    influxdb: InfluxDB, password: str, keep_days: float, keep_rollup_days: float
) -> dict[str, str]:
    """Set InfluxDB up as far as it is not; returns the tokens by the names of their keys."""
    if influxdb.set_up(password, keep_days):
        print("InfluxDB was new and has been set up")
    raw, rollup = influxdb.bucket(BUCKET, keep_days), influxdb.bucket(ROLLUP, keep_rollup_days)
    new = influxdb.task(raw["orgID"])
    print(f"task that sums five minutes into {ROLLUP}: {'created' if new else 'kept'}")
    tokens = {}
    for action, key in TOKENS.items():
        buckets = [raw] if action == "write" else [raw, rollup]
        tokens[key], new = influxdb.token(action, buckets)
        print(f"bucket {BUCKET}, token that can only {action}: {'created' if new else 'kept'}")
    return tokens


def write_files(tokens: dict[str, str], folder: Path) -> None:
    """Write each token to its own file, which is never seen half-written."""
    for key, token in tokens.items():
        path = folder / f"influxdb-{key}"
        new = path.with_suffix(".new")
        new.write_text(token)
        new.chmod(0o444)  # in a volume that only the services mount, each with a user of its own
        new.rename(path)


def write_secret(tokens: dict[str, str]) -> None:
    """Create or update the Secret in this pod's own namespace."""
    config.load_config()
    namespace = NAMESPACE_FILE.read_text() if NAMESPACE_FILE.exists() else "flowverdict"
    core = client.CoreV1Api()
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name=NAME), string_data=tokens)
    try:
        core.create_namespaced_secret(namespace, secret)
    except client.ApiException as error:
        if error.status != 409:
            raise
        core.patch_namespaced_secret(NAME, namespace, {"stringData": tokens})


def main() -> int:
    """Wait for InfluxDB and set it up; returns the exit status."""
    url, folder = os.environ["INFLUXDB_URL"], os.environ.get("OUTPUT_FOLDER")
    influxdb = InfluxDB(url, secret_of("INFLUXDB_ADMIN_TOKEN"))
    password = secret_of("INFLUXDB_ADMIN_PASSWORD")
    keep_days = float(os.environ.get("RETENTION_DAYS", "30"))
    keep_rollup_days = float(os.environ.get("ROLLUP_RETENTION_DAYS", "366"))
    deadline, reason = time.monotonic() + WAIT_SECONDS, ""
    while True:
        try:
            tokens = set_up(influxdb, password, keep_days, keep_rollup_days)
            if folder:
                write_files(tokens, Path(folder))
            else:
                write_secret(tokens)
        except requests.RequestException as error:
            why = f"InfluxDB at {url} does not answer ({type(error).__name__})"
            if time.monotonic() > deadline:
                print(why, file=sys.stderr)
                return 1
            if why != reason:
                print(f"{why}, waiting", flush=True)
            reason = why
            time.sleep(1)
        except Refused as error:
            print(f"InfluxDB at {url}: {error}", file=sys.stderr)
            return 1
        except client.ApiException as error:
            print(f"secret {NAME}: {error.status} {error.reason}", file=sys.stderr)
            return 1
        else:
            return 0


def secret_of(name: str) -> str:
    """The variable `name`, or the content of the file that `name`_FILE names."""
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text().strip() if file else os.environ[name]


if __name__ == "__main__":
    sys.exit(main())
