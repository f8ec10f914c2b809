"""Grafana, Prometheus and Alertmanager behind a login, as in deploy/k8s/overlays/single-sign-on.

The proxy, Prometheus and Alertmanager are the real ones. In Grafana's place is a server that
repeats the request's headers; the provider of OpenID Connect knows one person.
"""

import asyncio
import base64
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from joserfc import jwt
from joserfc.jwk import KeySet

from conftest import eventually
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_lab.servers import server_program
from tests.real_prometheus import running
from tests.stand_ins.listening import Listening
from tests.users import certificates

OVERLAY = Path(__file__).parents[1] / "deploy/k8s/overlays/single-sign-on"
PROXY, ALERTMANAGER = server_program("oauth2-proxy"), server_program("alertmanager")
PERSON = {"sub": "jo", "email": "jo@example.com", "email_verified": True}
pytestmark = pytest.mark.skipif(
    not PROXY.exists(), reason="oauth2-proxy has not been built, which needs Go"
)


class Repeating(BaseHTTPRequestHandler):
    """Answers with the headers of the request."""

    def do_GET(self) -> None:
        body = json.dumps({"headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Overlay:
    """The overlay's objects, with local addresses instead of those of a cluster."""

    def __init__(self, folder: Path, environ: dict[str, str], local: dict[str, str]) -> None:
        argv = ["kubectl", "kustomize", str(OVERLAY)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        self.things = list(yaml.safe_load_all(done.stdout))
        self.environ = environ
        self.local_for = {"/run/credentials": str(folder), "/etc/oauth2-proxy": str(folder)} | local

    def find(self, kind: str, name: str) -> Any:
        return next(
            each
            for each in self.things
            if each["kind"] == kind and each["metadata"]["name"].startswith(name)
        )

    def arguments(self, kind: str, name: str) -> list[str]:
        (container,) = self.find(kind, name)["spec"]["template"]["spec"]["containers"]
        return [self.local(each) for each in container["args"]]

    def local(self, text: str) -> str:
        for name, value in self.environ.items():
            text = text.replace(f"$({name})", value)
        for there, here in self.local_for.items():
            text = text.replace(there, here)
        return text


@contextmanager
def terminating_tls(port: int, to: int, folder: Path) -> Iterator[None]:
    """What an ingress controller does: TLS on `port`, plain HTTP to another port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    ready, loops = threading.Event(), list[asyncio.AbstractEventLoop]()
    done = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", to)
        ways = (pass_on(reader, behind[1]), pass_on(behind[0], writer))
        await asyncio.gather(*ways, return_exceptions=True)

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with await asyncio.start_server(connected, "127.0.0.1", port, ssl=context):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()], daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join()


@contextmanager
def process(argv: list[str], log: Path, environ: dict[str, str] | None = None) -> Iterator[None]:
    started = start_process(argv, log, environ)
    try:
        yield
    finally:
        stop_process(started)


async def answers(url: str) -> None:
    def is_there() -> bool:
        try:
            return requests.get(url, timeout=1).ok
        except requests.ConnectionError:
            return False

    await eventually(is_there, 30)


class Web:
    """The overlay at work: `url` for people, `issuer` of their tokens."""

    def __init__(self, overlay: Overlay, url: str, issuer: str, certificate: Path) -> None:
        self.overlay, self.url, self.issuer = overlay, url, issuer
        self._certificate = certificate

    def browser(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # a CA bundle of the environment would be preferred
        session.verify = str(self._certificate)
        return session

    def logged_in(self) -> requests.Session:
        """A browser that was sent to the provider, and whose user has logged in there."""
        session = self.browser()
        page = session.get(self.url + "/d/flowverdict-verdicts?from=now-1h", timeout=10)
        assert page.url.startswith(self.issuer)
        page = session.post(page.url, data={"sub": PERSON["sub"]}, timeout=10)
        assert page.url == self.url + "/d/flowverdict-verdicts?from=now-1h"
        return session


@pytest.fixture
async def web(tmp_path: Path) -> Any:
    certificates(folder := tmp_path / "files")
    (folder / "client-secret").write_text("secret")
    (folder / "cookie-secret").write_text("0123456789abcdef" * 2)
    port, proxy_port, issuer_port, alertmanager_port = (free_port() for _ in range(4))
    host, issuer = f"127.0.0.1:{port}", f"http://127.0.0.1:{issuer_port}"
    grafana = Listening(Repeating)
    grafana.start()
    environ = {"HOST": host, "ISSUER_URL": issuer, "CLIENT_ID": "flowverdict"}
    environ["EMAIL_DOMAIN"] = "example.com"
    local = {
        "http://grafana:3000": grafana.url,
        "http://alertmanager:9093": f"http://127.0.0.1:{alertmanager_port}",
        "0.0.0.0:4180": f"127.0.0.1:{proxy_port}",
    }
    overlay = Overlay(folder, environ, local)

    def flags(kind: str, name: str) -> list[str]:
        return [each for each in overlay.arguments(kind, name) if each.startswith("--web.")]

    with ExitStack() as started:
        started.callback(grafana.stop)
        prometheus = started.enter_context(
            running(tmp_path / "prometheus", {}, *flags("StatefulSet", "prometheus"))
        )
        overlay.local_for["http://prometheus:9090"] = prometheus
        (tmp_path / "alertmanager.yml").write_text("{route: {receiver: r}, receivers: [{name: r}]}")
        started.enter_context(
            process(
                [
                    str(ALERTMANAGER), f"--config.file={tmp_path}/alertmanager.yml",
                    f"--storage.path={tmp_path}/am", "--cluster.listen-address=",
                    f"--web.listen-address=127.0.0.1:{alertmanager_port}",
                    *flags("StatefulSet", "alertmanager"),
                ],
                tmp_path / "alertmanager.log",
            )
        )  # fmt: skip
        started.enter_context(
            process(
                [
                    sys.executable, "-m", "oidc_provider_mock", f"--port={issuer_port}",
                    "--require-nonce=true", f"--user-claims={json.dumps(PERSON)}",
                ],
                tmp_path / "provider.log",
            )
        )  # fmt: skip
        await answers(f"{issuer}/.well-known/openid-configuration")
        config = overlay.find("ConfigMap", "oauth2-proxy-config")["data"]["oauth2-proxy.yaml"]
        (folder / "oauth2-proxy.yaml").write_text(overlay.local(config))
        argv = [str(PROXY), *overlay.arguments("Deployment", "oauth2-proxy")]
        started.enter_context(process(argv, tmp_path / "proxy.log", environ))
        await answers(f"http://127.0.0.1:{proxy_port}/ready")
        await answers(f"{prometheus}/-/ready")
        await answers(f"http://127.0.0.1:{alertmanager_port}/-/ready")
        started.enter_context(terminating_tls(port, proxy_port, folder))
        yield Web(overlay, f"https://{host}", issuer, folder / "ca.crt")


async def test_who_has_not_logged_in_sees_nothing(web: Web) -> None:
    session = web.browser()
    for path in ("/", "/prometheus/", "/alertmanager/"):
        answer = session.get(web.url + path, allow_redirects=False, timeout=10)
        assert answer.status_code == 302, path
        assert answer.headers["Location"].startswith(web.issuer), path
    for path in ("/api/user", "/prometheus/api/v1/query?query=up", "/alertmanager/api/v2/silences"):
        answer = session.get(web.url + path, allow_redirects=False, timeout=10)
        assert answer.status_code == 401, path
    forged = {"X-Id-Token": "e30.e30.", "X-Forwarded-Email": "jo@example.com"}
    answer = session.get(web.url, headers=forged, allow_redirects=False, timeout=10)
    assert answer.status_code == 302


async def test_one_login_opens_all_of_them(web: Web) -> None:
    session = web.logged_in()
    cookies = [each for each in session.cookies if each.name.startswith("_oauth2_proxy")]
    assert cookies
    assert all(each.secure and each.has_nonstandard_attr("HttpOnly") for each in cookies)
    found = session.get(web.url + "/prometheus/api/v1/status/flags", timeout=10).json()["data"]
    assert found["web.external-url"] == web.url + "/prometheus/"
    found = session.get(web.url + "/prometheus/api/v1/query?query=1%2B1", timeout=10).json()["data"]
    assert found["result"][1] == "2"
    assert session.get(web.url + "/alertmanager/api/v2/status", timeout=10).json()["cluster"]


async def test_grafana_gets_a_token_that_the_provider_has_signed_and_nobody_can_forge_one(
    web: Web,
) -> None:
    session = web.logged_in()
    claimed = base64.urlsafe_b64encode(b'{"email": "root@example.com"}').decode()
    forged = f"e30.{claimed}."
    seen = session.get(web.url, headers={"X-Id-Token": forged}, timeout=10).json()["headers"]
    keys = requests.get(f"{web.issuer}/.well-known/openid-configuration", timeout=5).json()
    key_set = KeySet.import_key_set(requests.get(keys["jwks_uri"], timeout=5).json())
    claims = jwt.decode(seen["X-Id-Token"], key_set).claims
    assert claims["email"] == PERSON["email"]
    (container,) = web.overlay.find("StatefulSet", "grafana")["spec"]["template"]["spec"][
        "containers"
    ]
    told = {each["name"]: web.overlay.local(each["value"]) for each in container["env"]}
    assert told["GF_AUTH_JWT_HEADER_NAME"] == "X-Id-Token"
    expected = json.loads(told["GF_AUTH_JWT_EXPECT_CLAIMS"])
    assert claims["iss"] == expected["iss"]
    assert expected["aud"] in claims["aud"]
    assert {told["GF_AUTH_JWT_USERNAME_CLAIM"], told["GF_AUTH_JWT_EMAIL_CLAIM"]} == {"email"}
