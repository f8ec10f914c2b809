"""What deploy/k8s gives to a cluster: valid, complete in itself, and with the least rights."""

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml

from conftest import load_program
from flowverdict_contracts import subjects
from flowverdict_contracts.signals import METRICS
from flowverdict_exporter.family import Family
from flowverdict_exporter.settings import ExporterSettings
from flowverdict_runtime.settings import load
from tests.test_compose import SETTINGS

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "deploy/k8s"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
VERSIONS = [
    version
    for version in kubernetes_validate.utils.all_versions()
    if tuple(map(int, version.split(".")[:2])) >= (1, 31)
]
FOREIGN = {
    "monitoring.coreos.com/v1": {"ServiceMonitor", "PrometheusRule"},
    "monitoring.coreos.com/v1alpha1": {"AlertmanagerConfig"},
    "security.openshift.io/v1": {"SecurityContextConstraints"},
    "external-secrets.io/v1": {"ExternalSecret"},
    "cert-manager.io/v1": {"Issuer", "Certificate"},
}
"""Kinds of operators, whose schemas the validator does not know."""

Object = dict[str, Any]

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is missing, and it builds the overlays"
)


@functools.cache
def built(overlay: str) -> list[Object]:
    argv = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # deprecations
    return list(yaml.safe_load_all(done.stdout))


def name_of(thing: Object) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    return [thing for thing in built(overlay) if thing["kind"] in kinds]


def find(overlay: str, kind: str, name: str) -> Object:
    return next(each for each in of_kind(overlay, kind) if each["metadata"]["name"] == name)


def pods(overlay: str) -> Iterator[tuple[str, Object]]:
    """Name and template of all that makes pods."""
    for thing in built(overlay):
        if thing["kind"] in ("Deployment", "DaemonSet", "StatefulSet", "Job"):
            yield name_of(thing), thing["spec"]["template"]
        elif thing["kind"] == "CronJob":
            yield name_of(thing), thing["spec"]["jobTemplate"]["spec"]["template"]
        elif thing["kind"] == "Pod":
            yield name_of(thing), thing


def containers(template: Object) -> list[Object]:
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def labels(template: Object) -> dict[str, str]:
    found: dict[str, str] = template["metadata"].get("labels", {})
    return found


def selects(selector: Object, found: dict[str, str]) -> bool:
    """A label selector, as Kubernetes reads it."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if found.get(expression["key"]) not in expression["values"]:
            return False
    return all(found.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def test_the_documented_patch_changes_the_port_of_the_api_server_for_all(tmp_path: Path) -> None:
    page = (ROOT / "docs/install.md").read_text()
    section = page.split("### An API server on another port")[1]
    documented = section.split("```yaml\n")[1].split("```")[0]
    shutil.copytree(ROOT / "deploy", tmp_path / "flowverdict/deploy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(documented)
    argv = ["kubectl", "kustomize", str(tmp_path / "mine")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6443" not in done.stdout
    assert "port: 7443" in done.stdout


def test_apply_without_an_overlay_is_the_default_one() -> None:
    argv = ["kubectl", "kustomize", str(KUBERNETES)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert list(yaml.safe_load_all(done.stdout)) == built("default")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_every_kubernetes_from_1_31_on(version: str) -> None:
    seen = set()
    for overlay in OVERLAYS:
        for thing in built(overlay):
            text = json.dumps(thing, sort_keys=True)
            if text in seen:
                continue
            seen.add(text)
            if thing["kind"] in FOREIGN.get(thing["apiVersion"], ()):
                continue
            kubernetes_validate.validate(thing, version, strict=True)


def test_the_validator_refuses_what_kubernetes_would() -> None:
    thing = json.loads(json.dumps(find("default", "Deployment", "rca")))
    thing["spec"]["template"]["spec"]["containers"][0]["resources"]["limit"] = {}
    with pytest.raises(kubernetes_validate.utils.ValidationError):
        kubernetes_validate.validate(thing, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace_and_named_once(overlay: str) -> None:
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}
    cluster_wide |= {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    cluster_wide.add("SecurityContextConstraints")
    names = []
    for thing in built(overlay):
        if thing["kind"] in cluster_wide:
            assert "namespace" not in thing["metadata"]
        elif overlay != "experiment":
            assert thing["metadata"]["namespace"] == "flowverdict", name_of(thing)
        names.append((name_of(thing), thing["metadata"].get("namespace")))
    assert len(set(names)) == len(names)


def references(template: Object) -> Iterator[tuple[str, str, str]]:
    """Kind, name and key of each secret and config map that a pod needs; a key may be empty."""
    for container in containers(template):
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"], ""
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source and not source["secretKeyRef"].get("optional"):
                yield "Secret", source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]
    for volume in template["spec"].get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"], ""
        yield from secrets_of(volume)


def secrets_of(volume: Object) -> Iterator[tuple[str, str, str]]:
    for source in volume.get("projected", {}).get("sources", []):
        for item in source["secret"]["items"]:
            yield "Secret", source["secret"]["name"], item["key"]
    if "secret" in volume:
        for item in volume["secret"].get("items", [{"key": ""}]):
            yield "Secret", volume["secret"]["secretName"], item["key"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_passwords_are_files_of_which_each_pod_has_only_its_own(overlay: str) -> None:
    """But for NATS, which reads them from its environment, and a token that may not exist."""
    for owner, template in pods(overlay):
        for container in containers(template):
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    assert variable["name"].startswith("NATS_PASSWORD_") or variable["valueFrom"][
                        "secretKeyRef"
                    ].get("optional"), (owner, variable["name"])
            files = {
                variable["value"]
                for variable in container.get("env", [])
                if variable.get("value", "").startswith("/run/credentials/")
            }
            given = {
                f"/run/credentials/{item['path']}"
                for volume in template["spec"].get("volumes", [])
                if volume["name"] == "credentials"
                for source in (volume, *volume.get("projected", {}).get("sources", []))
                for item in source.get("secret", {}).get("items", [])
            }
            assert files == given, owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_and_config_maps_that_pods_name_exist_with_their_keys(overlay: str) -> None:
    keys = {
        make_credentials().NAME: set(make_credentials().PASSWORDS),
        set_up_influxdb().NAME: set(set_up_influxdb().TOKENS.values()),
    }
    maps = {each["metadata"]["name"] for each in of_kind(overlay, "ConfigMap")}
    given = {each["metadata"]["name"] for each in of_kind(overlay, "Secret")}
    given |= {each["spec"]["target"]["name"] for each in of_kind(overlay, "ExternalSecret")}
    given |= {each["spec"]["secretName"] for each in of_kind(overlay, "Certificate")}
    told = (KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text()
    given |= set(re.findall(r"create secret generic (\S+)", told))
    jobs = {name for name, _ in pods(overlay)}
    for job, program in (
        ("Job/make-credentials", make_credentials()),
        ("Job/set-up-influxdb", set_up_influxdb()),
    ):
        if job in jobs:
            given.add(program.NAME)
    used: dict[str, set[str]] = {name: set() for name in keys}
    for owner, template in pods(overlay):
        for kind, name, key in references(template):
            assert name in (maps if kind == "ConfigMap" else given), (owner, name)
            if name in keys:
                used[name].add(key)
    for name, made in keys.items():
        assert used[name] <= made
        if overlay == "default":
            assert used[name] == made, "a password or token that nobody uses"
    for each in of_kind(overlay, "ExternalSecret"):
        text = (KUBERNETES / "components/external-secrets/external-secret.yaml").read_text()
        named = set(re.findall(r"(?:nats|influxdb|grafana)-[a-z-]*[a-z]", text))
        assert named >= keys[make_credentials().NAME], each


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_volumes_service_accounts_and_priority_classes_that_pods_name_exist(overlay: str) -> None:
    accounts = {each["metadata"]["name"] for each in of_kind(overlay, "ServiceAccount")}
    classes = {each["metadata"]["name"] for each in of_kind(overlay, "PriorityClass")}
    claims = {
        name_of(each): {claim["metadata"]["name"] for claim in each["spec"]["volumeClaimTemplates"]}
        for each in of_kind(overlay, "StatefulSet")
    }
    for owner, template in pods(overlay):
        spec = template["spec"]
        volumes = {each["name"] for each in spec.get("volumes", [])} | claims.get(owner, set())
        mounted = {
            mount["name"] for each in containers(template) for mount in each.get("volumeMounts", [])
        }
        assert mounted == volumes, owner
        if overlay != "experiment" or not owner.startswith("Pod/"):
            assert spec["serviceAccountName"] in accounts, owner
        assert spec.get("priorityClassName") in {*classes, None}, owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_and_ports_lead_to_pods(overlay: str) -> None:
    templates = list(pods(overlay))

    def with_port(selector: Object, port: int | str) -> bool:
        return any(
            port in (each.get("name"), each["containerPort"])
            for _, template in templates
            if selects(selector, labels(template))
            for container in containers(template)
            for each in container.get("ports", [])
        )

    for thing in built(overlay):
        spec = thing.get("spec", {})
        if thing["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
            assert selects(spec["selector"], labels(spec["template"])), name_of(thing)
        if thing["kind"] == "StatefulSet":
            assert find(overlay, "Service", spec["serviceName"])
        if thing["kind"] == "PodDisruptionBudget":
            assert any(selects(spec["selector"], labels(each)) for _, each in templates)
        if thing["kind"] == "Service":
            for port in spec["ports"]:
                assert with_port({"matchLabels": spec["selector"]}, port["targetPort"]), name_of(
                    thing
                )


def test_each_service_monitor_finds_its_services_port() -> None:
    services = of_kind("kube-prometheus-stack", "Service")
    monitors = of_kind("kube-prometheus-stack", "ServiceMonitor")
    assert {each["metadata"]["name"] for each in monitors} == {"flowverdict", "influxdb"}
    for monitor in monitors:
        chosen = [each for each in services if selects(monitor["spec"]["selector"], labels(each))]
        ports = {port["name"] for each in chosen for port in each["spec"]["ports"]}
        assert {each["port"] for each in monitor["spec"]["endpoints"]} == ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_and_topology_spread_name_what_is_there(overlay: str) -> None:
    for owner, template in pods(overlay):
        for container in containers(template):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    asks = container[probe]
                    port = (asks.get("httpGet") or asks["tcpSocket"])["port"]
                    assert port in {each["name"] for each in container["ports"]}, owner
        for spread in template["spec"].get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], labels(template)), owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_urls_in_settings_lead_to_services(overlay: str) -> None:
    ports = {
        (each["metadata"]["name"], port["port"])
        for each in of_kind(overlay, "Service")
        for port in each["spec"]["ports"]
    }
    texts = [json.dumps(template) for _, template in pods(overlay)]
    texts += [json.dumps(each["data"]) for each in of_kind(overlay, "ConfigMap")]
    for text in texts:
        for host, port in re.findall(r"(?:http|nats|tls)://([a-z0-9-]+):(\d+)", text):
            assert (host, int(port)) in ports, f"{host}:{port}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_is_one_and_its_value_is_taken(overlay: str) -> None:
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(overlay, "ConfigMap")}
    seen = set()
    for owner, template in pods(overlay):
        (container,) = containers(template)
        classes = SETTINGS.get(container["name"])
        if classes is None:
            continue
        seen.add(container["name"])
        environ: dict[str, str] = {}
        for source in container.get("envFrom", []):
            environ |= maps[source["configMapRef"]["name"]]
        for variable in container["env"]:
            name = variable["name"].removesuffix("_FILE")
            given = variable["name"] == name and variable.get("value")
            environ[name] = given or "psecret"
        known = {f"FLOWVERDICT_{each.upper()}" for each in classes.__dataclass_fields__}
        assert set(environ) <= known, owner
        load(classes, environ)
    assert seen >= set(SETTINGS) - {"provisioner"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_has_a_version_and_ours_have_our_own(overlay: str) -> None:
    for owner, template in pods(overlay):
        for container in containers(template):
            image, _, tag = container["image"].partition(":")
            assert re.fullmatch(r"v?\d+\.\d+\.\d+(-alpine)?", tag), (owner, container["image"])
            if image.startswith("flowverdict/"):
                folder = ROOT / "services" / image.removeprefix("flowverdict/")
                if image == "ghcr.io/flowverdict/experiment":
                    folder = ROOT / "lab"
                assert f'version = "{tag}"' in (folder / "pyproject.toml").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_pods_but_the_collector_keep_to_the_restricted_pod_security_standard(
    overlay: str,
) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, and a read-only root."""
    for owner, template in pods(overlay):
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), owner
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        allowed = {"configMap", "secret", "projected", "emptyDir"}
        if owner == "DaemonSet/collector":
            allowed.add("hostPath")
            paths = [each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each]
            assert paths == ["/sys/fs/bpf"]
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= allowed, owner
        for container in containers(template):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, owner
            assert security["readOnlyRootFilesystem"] is True, owner
            assert not security.get("privileged"), owner
            assert security["capabilities"]["drop"] == ["ALL"], owner
            added = security["capabilities"].get("add", [])
            if owner == "DaemonSet/collector":
                assert sorted(added) == ["BPF", "PERFMON"]
            else:
                assert not added, owner
                assert spec["securityContext"]["runAsNonRoot"] is True, owner
                if overlay == "openshift":  # the platform chooses one that is not root
                    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(spec["securityContext"])
                else:
                    assert spec["securityContext"]["runAsUser"] > 0, owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_who_asks_the_api_has_a_token_and_only_for_what_it_reads(overlay: str) -> None:
    with_token = {
        owner
        for owner, template in pods(overlay)
        if template["spec"]["automountServiceAccountToken"]
    }
    expected = {
        "DaemonSet/collector",
        "Deployment/enricher",
        "CronJob/doctor",
        "Job/make-credentials",
        "Job/set-up-influxdb",
        "StatefulSet/prometheus",
    }
    assert with_token <= expected
    rules = {
        name_of(each): [
            (tuple(rule["resources"]), tuple(rule.get("resourceNames", ())), tuple(rule["verbs"]))
            for rule in each["rules"]
        ]
        for each in of_kind(overlay, "Role", "ClusterRole")
    }
    reading = ("get", "list", "watch")
    allowed = {
        "ClusterRole/flowverdict-enricher": [
            (("pods", "services", "nodes"), (), reading),
            (("endpointslices",), (), reading),
            (("jobs",), (), reading),
        ],
        "Role/collector": [
            (("daemonsets",), ("collector",), ("get",)),
            (("namespaces",), ("flowverdict",), ("get",)),
        ],
        "Role/make-credentials": [
            (("secrets",), ("flowverdict-credentials",), ("get", "patch")),
            (("secrets",), (), ("create",)),
        ],
        "Role/set-up-influxdb": [
            (("secrets",), ("flowverdict-influxdb",), ("patch",)),
            (("secrets",), (), ("create",)),
        ],
        "Role/prometheus": [(("pods",), (), reading)],
    }
    for name, found in rules.items():
        assert found == allowed[name], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_requests_a_memory_limit_probes_and_a_grace_period(overlay: str) -> None:
    for owner, template in pods(overlay):
        kind = owner.split("/")[0]
        for container in containers(template):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, owner
            assert "memory" in container["resources"]["limits"], owner
            if kind in ("Deployment", "DaemonSet", "StatefulSet"):
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), owner
        if kind in ("Deployment", "DaemonSet", "StatefulSet"):
            assert template["spec"]["terminationGracePeriodSeconds"] >= 30, owner
    budgets = {each["metadata"]["name"] for each in of_kind(overlay, "PodDisruptionBudget")}
    lasting = of_kind(overlay, "Deployment", "StatefulSet")
    assert {each["metadata"]["name"] for each in lasting} == budgets


def test_every_node_has_a_collector_that_is_not_pushed_off() -> None:
    spec = find("default", "DaemonSet", "collector")["spec"]["template"]["spec"]
    assert {"operator": "Exists"} in spec["tolerations"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert find("default", "PriorityClass", spec["priorityClassName"])["value"] >= 1_000_000


def test_production_has_three_nats_servers_apart_and_speaks_tls() -> None:
    nats = find("production", "StatefulSet", "nats")["spec"]
    assert nats["replicas"] == 3
    affinity = nats["template"]["spec"]["affinity"]["podAntiAffinity"]
    apart = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [each["topologyKey"] for each in apart] == ["kubernetes.io/hostname"]
    settings = {
        name: value
        for each in of_kind("production", "ConfigMap")
        for name, value in each["data"].items()
    }
    assert settings["FLOWVERDICT_NATS_URL"].startswith("tls://")
    assert settings["FLOWVERDICT_STREAM_REPLICAS"] == "3"
    for owner, template in pods("production"):
        if labels(template).get("flowverdict.io/uses-nats"):
            mounts = [m["mountPath"] for c in containers(template) for m in c["volumeMounts"]]
            assert "/etc/nats-ca" in mounts, owner


def test_an_installation_with_one_nats_server_refuses_each_object_of_production() -> None:
    for overlay in OVERLAYS:
        servers = find(overlay, "StatefulSet", "nats")["spec"]["replicas"]
        policies = of_kind(overlay, "ValidatingAdmissionPolicy")
        assert len(policies) == (servers == 1), overlay
        for policy in policies:
            refused = policy["spec"]["matchConstraints"]["objectSelector"]["matchLabels"]
            for thing in built("production"):
                assert refused.items() <= thing["metadata"]["labels"].items(), name_of(thing)


def test_the_nats_volume_holds_the_streams() -> None:
    wanted = sum(int(config.max_bytes or 0) for config in subjects.STREAMS.values())
    for overlay in OVERLAYS:
        (conf,) = (
            each["data"]["nats.conf"]
            for each in of_kind(overlay, "ConfigMap")
            if "nats.conf" in each["data"]
        )
        stored = int(re.findall(r"max_file_store: (\d+)GB", conf)[0]) * 1_000_000_000
        assert wanted < stored, overlay
        (nats,) = (
            each for each in of_kind(overlay, "StatefulSet") if each["metadata"]["name"] == "nats"
        )
        (claim,) = nats["spec"]["volumeClaimTemplates"]
        size = claim["spec"]["resources"]["requests"]["storage"]
        assert int(size.removesuffix("Gi")) << 30 >= stored, overlay


def test_the_influx_writer_knows_how_large_the_volume_of_influxdb_is() -> None:
    for overlay in OVERLAYS:
        writers = [
            e for e in of_kind(overlay, "Deployment") if e["metadata"]["name"] == "influx-writer"
        ]
        for writer in writers:
            (container,) = containers(writer["spec"]["template"])
            told = {each["name"]: each.get("value") for each in container["env"]}
            claims = find(overlay, "StatefulSet", "influxdb")["spec"]["volumeClaimTemplates"]
            size = claims[0]["spec"]["resources"]["requests"]["storage"]
            assert (
                int(told["FLOWVERDICT_INFLUX_VOLUME_BYTES"]) == int(size.removesuffix("Gi")) << 30
            )
    assert writers, "in the last overlay at least"


@pytest.mark.parametrize("overlay", ["default", "production"])
def test_what_the_exporters_budget_admits_fits_in_the_memory_of_prometheus(overlay: str) -> None:
    """At the bytes a series that `script/bench prometheus` measured, with a quarter to spare."""
    (exporter,) = containers(find(overlay, "Deployment", "exporter")["spec"]["template"])
    told = {each["name"]: each.get("value") for each in exporter["env"]}
    given = told.get("FLOWVERDICT_SERIES_BUDGET")
    budget = int(given) if given else load(ExporterSettings, {}).series_budget
    by_pair = [Family(signals) for signals in METRICS.values()]
    by_sender = [Family(s, shows_buckets=True) for s in METRICS.values() if s[0].sender_metric]
    shown = sum(budget // each.series * each.series for each in (*by_pair, *by_sender))
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/flows.yaml").read_text())
    recorded = sum("record" in rule for group in rules["groups"] for rule in group["rules"])
    (prometheus,) = containers(find(overlay, "StatefulSet", "prometheus")["spec"]["template"])
    limit = int(prometheus["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    assert (shown + recorded * budget) * 6900 < 0.75 * limit


def test_the_overlay_for_kube_prometheus_stack_is_what_its_generator_writes() -> None:
    folder = KUBERNETES / "overlays/kube-prometheus-stack"
    generate = load_program(folder / "generate.py")
    for path, text in generate.files().items():
        assert path.read_text() == text, f"run {folder / 'generate.py'}"
    boards = {each.name for each in (folder / "dashboards").glob("*.json")}
    held = {
        name for each in of_kind("kube-prometheus-stack", "ConfigMap") for name in each["data"]
    } & boards
    assert held == boards


def set_up_influxdb() -> Any:
    """The program of the Job `set-up-influxdb`, as a module."""
    return load_program(KUBERNETES / "components/influxdb/set_up_influxdb.py")


def make_credentials() -> Any:
    return load_program(KUBERNETES / "components/credentials/make_credentials.py")


# Policies ----------------------------------------------------------------------------------------


def peers(rule: Object, side: str, other: dict[str, str]) -> bool:
    if side not in rule:
        return True
    return any(
        selects(peer.get("podSelector", {}), other) for peer in rule[side] if "ipBlock" not in peer
    )


def open_port(ports: list[Object], template: Object, number: int) -> bool:
    names: dict[Any, int] = {
        each["name"]: each["containerPort"]
        for container in containers(template)
        for each in container.get("ports", [])
    }
    for port in ports:
        low = names[port["port"]] if port["port"] in names else int(port["port"])
        if port.get("protocol", "TCP") == "TCP" and low <= number <= port.get("endPort", low):
            return True
    return False


def may_connect(overlay: str, source: Object, target: Object, number: int) -> bool:
    """Whether the policies let `source` open a connection to `target`, as a CNI would decide."""
    policies = [each["spec"] for each in of_kind(overlay, "NetworkPolicy")]
    out = any(
        peers(rule, "to", labels(target)) and open_port(rule["ports"], target, number)
        for policy in policies
        if "Egress" in policy["policyTypes"] and selects(policy["podSelector"], labels(source))
        for rule in policy.get("egress", [])
    )
    into = any(
        peers(rule, "from", labels(source)) and open_port(rule["ports"], target, number)
        for policy in policies
        if "Ingress" in policy["policyTypes"] and selects(policy["podSelector"], labels(target))
        for rule in policy.get("ingress", [])
        # Another namespace is not this one.
        if not all(
            "namespaceSelector" in p and p["namespaceSelector"] for p in rule.get("from", [{}])
        )
    )
    return out and into


EDGES = {
    *((name, "nats", 4222) for name in ("collector", "enricher", "exporter", "rca", "doctor")),
    ("influx-writer", "nats", 4222),
    ("influx-writer", "influxdb", 8086),
    ("set-up-influxdb", "influxdb", 8086),
    ("nats", "nats", 6222),
    ("prometheus", "collector", 9192),
    ("prometheus", "enricher", 9193),
    ("prometheus", "exporter", 9191),
    ("prometheus", "rca", 9194),
    ("prometheus", "influx-writer", 9195),
    ("prometheus", "alertmanager", 9093),
    ("prometheus", "grafana", 3000),
    ("prometheus", "influxdb", 8086),
    ("grafana", "prometheus", 9090),
    ("grafana", "alertmanager", 9093),
    ("grafana", "influxdb", 8086),
    ("provisioner", "grafana", 3000),
    ("doctor", "exporter", 9191),
    ("doctor", "prometheus", 9090),
    ("doctor", "influxdb", 8086),
    ("doctor", "grafana", 3000),
}


@pytest.mark.parametrize("overlay", ["default", "production"])
def test_the_network_policies_are_the_edges_of_the_picture_and_no_more(overlay: str) -> None:
    by_name = {name.split("/")[1]: template for name, template in pods(overlay)}
    found = {
        (source, target, port["containerPort"])
        for source, from_template in by_name.items()
        for target, to_template in by_name.items()
        for container in containers(to_template)
        for port in container.get("ports", [])
        if may_connect(overlay, from_template, to_template, port["containerPort"])
    }
    assert found == EDGES


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_no_policy_names_is_denied(overlay: str) -> None:
    deny = find(overlay, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_workload_has_a_service_account_of_its_own(overlay: str) -> None:
    used = [
        template["spec"]["serviceAccountName"]
        for owner, template in pods(overlay)
        if not owner.startswith("Pod/")
    ]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_names_its_registry(overlay: str) -> None:
    for owner, template in pods(overlay):
        for container in containers(template):
            registry = container["image"].partition("/")[0]
            assert "." in registry, (owner, container["image"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policies_use_no_ranges_and_no_names_of_ports_in_egress(overlay: str) -> None:
    """Cilium before 1.16 drops a policy with a range, and resolves a name for all pods alike."""
    for policy in of_kind(overlay, "NetworkPolicy"):
        spec = policy["spec"]
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            assert not any("endPort" in port for port in rule.get("ports", [])), policy
        for rule in spec.get("egress", []):
            assert all(isinstance(port["port"], int) for port in rule.get("ports", [])), policy


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_sync_can_neither_empty_a_secret_nor_fail_on_a_job(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    for job in of_kind(overlay, "Job"):
        annotations = job["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
        assert annotations["kustomize.toolkit.fluxcd.io/force"] == "enabled"
        assert job["spec"]["ttlSecondsAfterFinished"] <= 60
