"""Whose token a request carries: google-auth's own classes, and a token endpoint that listens."""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

pytest.importorskip("airflow", reason="needs Airflow: pip install 'apache-airflow>=3'")

import fault_proxy as faults
from fault_proxy import FaultProxy
from include.xcom.errors import StoreUnavailableError
from include.xcom.settings import Settings
from include.xcom.stores import bucket as gcs
from include.xcom.stores import retries

CONNECTION = "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT"
ACCOUNT = "xcom@acme-project.iam.gserviceaccount.com"
NAME = "xcom/a"
SECONDS = 3.0


class TokenServer(ThreadingHTTPServer):
    """Hands out ``token-1``, ``token-2``, ... wherever it is asked, and remembers how.

    Attributes:
        asked: ``(path, fields)`` of each request, with the claims of a signed assertion unpacked.
        lifetime_seconds: What it says of its tokens.
        status: What it answers; other than 200 with an OAuth error.
        is_hanging: Whether it answers at all.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.lifetime_seconds = 3600
        self.statuses: list[int] = []
        self.status = 200
        self.is_hanging = threading.Event()
        self.closing = threading.Event()
        self.authority = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.authority}"


class _TokenHandler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        if body.startswith("{"):
            fields = json.loads(body)
        else:
            fields = {name: values[0] for name, values in parse_qs(body).items()}
        if "assertion" in fields:
            claims = fields["assertion"].split(".")[1]
            fields = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        self._answer(fields)

    def _answer(self, fields: dict[str, Any]) -> None:
        server = self.server
        authorization = self.headers.get("authorization")
        server.asked.append((self.path, fields | ({"authorization": authorization} if authorization else {})))
        if server.is_hanging.is_set():
            server.closing.wait()
            return
        token = f"token-{len(server.asked)}"
        status = server.statuses.pop(0) if server.statuses else server.status
        answer: dict[str, Any] = {"access_token": token, "expires_in": server.lifetime_seconds}
        if status != 200:
            answer = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        elif "generateAccessToken" in self.path:
            answer = {"accessToken": f"impersonated-{token}", "expireTime": "2099-01-01T00:00:00Z"}
        elif self.path.endswith("/?recursive=true"):
            answer = {"email": ACCOUNT, "scopes": ["a"], "aliases": ["default"]}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("metadata-flavor", "Google")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    """A token endpoint."""
    with TokenServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture(scope="session")
def private_key() -> str:
    """An RSA key in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


@pytest.fixture
def key(private_key: str, tokens: TokenServer) -> dict[str, str]:
    """A service account's key, as the console gives it, whose tokens come from here."""
    return {
        "type": "service_account",
        "project_id": "acme-project",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": ACCOUNT,
        "client_id": "1",
        "token_uri": f"{tokens.url}/token",
    }


@pytest.fixture
def proxy(gcs_server: Any) -> Iterator[FaultProxy]:
    """Stands where Cloud Storage does; sees what is sent there."""
    with FaultProxy(gcs_server.url) as proxy:
        yield proxy


@pytest.fixture
def open_store(proxy: FaultProxy, gcs_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open the store with a connection that has this extra; None for no connection."""
    monkeypatch.setattr(gcs, "ENDPOINT", proxy.url)
    monkeypatch.setattr(retries, "_FIRST_WAIT_SECONDS", 0.05)

    def open_store(extra: dict[str, Any] | None, seconds: float = SECONDS) -> gcs.GCSStore:
        if extra is not None:
            monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
        return gcs.GCSStore(gcs_server.bucket, Settings(bucket=gcs_server.bucket, timeout_seconds=seconds))

    return open_store


def sent(proxy: FaultProxy) -> list[str | None]:
    """Return the tokens that requests to Cloud Storage carried."""
    return [headers.get("authorization") for _, _, headers in proxy.requests]


def without_newlines(key: dict[str, str]) -> dict[str, str]:
    """Return the key as shells and forms mangle it."""
    return {**key, "private_key": key["private_key"].replace("\n", "\\n")}


KEYS = {
    "keyfile-dict": lambda key, path: {"keyfile_dict": key},
    "keyfile-dict-as-text": lambda key, path: {"keyfile_dict": json.dumps(key)},
    "keyfile-dict-with-escaped-line-ends": lambda key, path: {"keyfile_dict": without_newlines(key)},
    "keyfile-dict-with-an-old-prefix": lambda key, path: {
        "extra__google_cloud_platform__keyfile_dict": json.dumps(key)
    },
    "key-path": lambda key, path: {"key_path": str(path), "keyfile_dict": ""},
    "key-path-with-an-old-prefix": lambda key, path: {"extra__google_cloud_platform__key_path": str(path)},
    "key-path-and-fields-that-mean-nothing-here": lambda key, path: {
        "key_path": str(path),
        "num_retries": 5,
        "project": "other",
    },
}


@pytest.mark.parametrize("extra", KEYS.values(), ids=KEYS)
def test_key_in_the_connection_signs_for_a_token(
    open_store: Any, proxy: FaultProxy, tokens: TokenServer, key: dict[str, str], tmp_path: Path, extra: Any
) -> None:
    """One token for all requests, for reading and writing objects and nothing more."""
    (tmp_path / "key.json").write_text(json.dumps(key))
    store = open_store(extra(key, tmp_path / "key.json"))

    stored = store.put(NAME, [b"abc"])
    store.describe(stored.uri)

    assert sent(proxy) == ["Bearer token-1", "Bearer token-1"]
    assert len(tokens.asked) == 1
    assert store.account == ACCOUNT
    assert tokens.asked[0][1]["iss"] == ACCOUNT
    assert tokens.asked[0][1]["scope"] == "https://www.googleapis.com/auth/devstorage.read_write"


def test_scope_of_the_connection_is_asked_for(
    open_store: Any, tokens: TokenServer, key: dict[str, str]
) -> None:
    """Comma-separated, as in the provider."""
    open_store({"keyfile_dict": key, "scope": "https://a.example, https://b.example"}).put(NAME, [b"abc"])

    assert tokens.asked[0][1]["scope"] == "https://a.example https://b.example"


def test_scope_of_a_store_is_asked_for_unless_the_connection_has_one(
    proxy: FaultProxy,
    gcs_server: Any,
    tokens: TokenServer,
    key: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To change a bucket takes more than to change its objects."""
    monkeypatch.setattr(gcs, "ENDPOINT", proxy.url)
    for extra in ({"keyfile_dict": key}, {"keyfile_dict": key, "scope": "https://a.example"}):
        monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
        store = gcs.GCSStore(
            gcs_server.bucket, Settings(bucket=gcs_server.bucket), scope="https://full.example"
        )
        assert store.account == ""
        store.bucket_metadata()

    assert [asked["scope"] for _, asked in tokens.asked] == ["https://full.example", "https://a.example"]


@pytest.mark.parametrize(
    "extra", [None, {}, {"project": "acme", "key_path": ""}], ids=["none", "empty", "no-key"]
)
def test_connection_without_a_key_means_application_default_credentials(
    open_store: Any,
    proxy: FaultProxy,
    tokens: TokenServer,
    key: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: dict[str, Any] | None,
) -> None:
    """Here those of GOOGLE_APPLICATION_CREDENTIALS; so does a connection that does not exist."""
    (tmp_path / "adc.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))

    open_store(extra).put(NAME, [b"abc"])

    assert sent(proxy) == ["Bearer token-1"]
    assert tokens.asked[0][1]["iss"] == ACCOUNT


def use_metadata_server(tokens: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let google-auth believe that it is on Google's machines."""
    import google.auth.compute_engine._metadata as metadata

    monkeypatch.delenv("NO_GCE_CHECK")
    # What NO_GCE_CHECK and GCE_METADATA_HOST say is read when the module is imported.
    monkeypatch.setattr(metadata, "_NO_GCE_CHECK", False)
    monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", tokens.authority)
    monkeypatch.setenv("GCE_METADATA_HOST", tokens.authority)
    monkeypatch.setenv("GCE_METADATA_IP", tokens.authority)


def test_metadata_server_gives_the_machine_s_token(
    open_store: Any, proxy: FaultProxy, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud Composer, GKE and Compute Engine."""
    use_metadata_server(tokens, monkeypatch)

    open_store(None).put(NAME, [b"abc"])

    assert re.fullmatch(r"Bearer token-\d", str(sent(proxy)[0]))
    assert any("/service-accounts/" in path and "/token" in path for path, _ in tokens.asked)


def test_metadata_server_that_hangs_ends_in_time(
    open_store: Any, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """google-auth's own patience is longer than the time limit may be."""
    use_metadata_server(tokens, monkeypatch)
    tokens.is_hanging.set()
    store = open_store(None)

    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"time is up|timed out|credentials were not found"):
        store.put(NAME, [b"abc"])

    # It sleeps up to 1.2 and 2.4 s between three attempts to find the server, whatever the limit.
    assert time.monotonic() - started < SECONDS + 2.5


@pytest.mark.parametrize("word", [True, "true", "1", "True"])
def test_anonymous_connection_sends_no_token(
    open_store: Any, proxy: FaultProxy, tokens: TokenServer, key: dict[str, str], word: object
) -> None:
    """It ignores all other settings, as its label in Airflow says."""
    open_store({"is_anonymous": word, "keyfile_dict": key}).put(NAME, [b"abc"])

    assert sent(proxy) == [None]
    assert tokens.asked == []


def test_emulator_gets_no_token(
    proxy: FaultProxy, gcs_server: Any, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials never go to a place that STORAGE_EMULATOR_HOST names, as in Google's clients."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "x", "extra": {"keyfile_dict": key}}))

    gcs.GCSStore(gcs_server.bucket, Settings(bucket=gcs_server.bucket)).put(NAME, [b"abc"])

    assert sent(proxy) == [None]


def test_impersonation_goes_through_the_provider(
    open_store: Any,
    proxy: FaultProxy,
    tokens: TokenServer,
    key: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key's own token buys one of the other account, within our time limit as well."""
    pytest.importorskip("airflow.providers.google", reason="needs apache-airflow-providers-google")
    iam = pytest.importorskip("google.auth.iam")
    endpoint = f"{tokens.url}/v1/projects/-/serviceAccounts/{{}}:generateAccessToken"
    monkeypatch.setattr(iam, "_IAM_ENDPOINT", endpoint)

    target = "other@acme-project.iam.gserviceaccount.com"
    open_store({"keyfile_dict": json.dumps(key), "impersonation_chain": target}, 20).put(NAME, [b"abc"])

    assert [path.split("/")[-1] for path, _ in tokens.asked] == ["token", f"{target}:generateAccessToken"]
    assert tokens.asked[1][1]["authorization"] == "Bearer token-1"
    assert sent(proxy) == ["Bearer impersonated-token-2"]


def test_quota_project_goes_through_the_provider(
    open_store: Any, proxy: FaultProxy, key: dict[str, str]
) -> None:
    """It becomes a header that only the provider's credentials add."""
    pytest.importorskip("airflow.providers.google", reason="needs apache-airflow-providers-google")
    extra = {"keyfile_dict": json.dumps(key), "quota_project_id": "acme-quota"}

    open_store(extra, 20).put(NAME, [b"abc"])

    assert proxy.requests[0][2]["x-goog-user-project"] == "acme-quota"
    assert sent(proxy) == ["Bearer token-1"]


BROKEN = {
    "text-that-is-no-json": ({"keyfile_dict": "{"}, "JSONDecodeError"),
    "no-private-key": ({"keyfile_dict": {"type": "service_account"}}, "missing fields"),
    "garbled-private-key": (
        {"keyfile_dict": {"private_key": "SECRET", "client_email": "a", "token_uri": "b"}},
        "No credentials for Google Cloud Storage: (ValueError|InvalidValue|MalformedError)",
    ),
    "file-that-is-gone": ({"key_path": "/none/key.json"}, "FileNotFoundError: .*/none/key.json"),
    "two-keys": (
        {"key_path": "/none/key.json", "keyfile_dict": "{}"},
        "has key_path and keyfile_dict; keep one",
    ),
    "number-for-a-key": ({"keyfile_dict": 5}, "TypeError"),
    "provider-refuses": (
        {"key_secret_name": "s", "quota_project_id": "!"},
        "No credentials for Google Cloud",
    ),
}


@pytest.mark.parametrize(("extra", "said"), BROKEN.values(), ids=BROKEN)
def test_broken_key_is_an_error_that_names_the_connection(
    open_store: Any, proxy: FaultProxy, extra: dict[str, Any], said: str
) -> None:
    """At once, with the reason, and without the key."""
    with pytest.raises(StoreUnavailableError, match=said) as caught:
        open_store(extra, 20).put(NAME, [b"abc"])

    assert "connection 'google_cloud_storage_default' ([gcs_xcom] conn_id) a working key" in str(caught.value)
    assert caught.value.conn_id == "google_cloud_storage_default"
    assert "SECRET" not in str(caught.value)
    assert proxy.requests == []


def test_extra_that_is_a_list_is_an_error_that_names_the_connection(
    open_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow itself may refuse it, or hand it on."""
    monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "google_cloud_platform", "extra": "[1]"}))

    with pytest.raises(StoreUnavailableError, match="google_cloud_storage_default"):
        open_store(None).put(NAME, [b"abc"])


def test_no_credentials_at_all_says_where_some_could_come_from(open_store: Any) -> None:
    """A laptop without anything."""
    with pytest.raises(StoreUnavailableError, match="gcloud auth application-default login"):
        open_store(None).put(NAME, [b"abc"])


def test_refused_key_fails_at_once(
    open_store: Any, tokens: TokenServer, proxy: FaultProxy, key: dict[str, str]
) -> None:
    """A key that was deleted in the console will not work at the next try either."""
    tokens.status = 400

    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"RefreshError: .*invalid_grant: Invalid JWT Signature"):
        open_store({"keyfile_dict": key}, 30).put(NAME, [b"abc"])

    assert time.monotonic() - started < 5
    assert proxy.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_token_endpoint_in_trouble_is_tried_again(
    open_store: Any,
    tokens: TokenServer,
    proxy: FaultProxy,
    key: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    """By the same loop, with the same warnings."""
    tokens.statuses = [status, status]

    open_store({"keyfile_dict": key}).put(NAME, [b"abc"])

    assert sent(proxy) == ["Bearer token-3"]
    assert caplog.text.count(f"no token: HTTP {status}") == 2


def test_token_endpoint_that_hangs_ends_in_time(
    open_store: Any, tokens: TokenServer, key: dict[str, str]
) -> None:
    """google-auth alone would wait for ever."""
    tokens.is_hanging.set()

    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="no token: ReadTimeoutError"):
        open_store({"keyfile_dict": key}).put(NAME, [b"abc"])

    assert time.monotonic() - started < SECONDS + 1


def test_token_that_expires_is_replaced_in_a_long_task(
    open_store: Any,
    tokens: TokenServer,
    proxy: FaultProxy,
    key: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it expires it is used again, and afterwards not."""
    from datetime import timedelta

    from google.auth import _helpers

    # google-auth replaces tokens minutes before their end, which would be at once.
    monkeypatch.setattr(_helpers, "REFRESH_THRESHOLD", timedelta(0))
    tokens.lifetime_seconds = 1
    store = open_store({"keyfile_dict": key})

    store.put("xcom/a", [b"abc"])
    store.put("xcom/b", [b"abc"])
    time.sleep(1.1)
    store.put("xcom/c", [b"abc"])

    assert sent(proxy)[0] == "Bearer token-1"
    assert sent(proxy)[-1] == f"Bearer token-{len(tokens.asked)}" != "Bearer token-1"


def test_token_that_the_server_refuses_is_replaced_once(
    open_store: Any, tokens: TokenServer, proxy: FaultProxy, gcs_server: Any, key: dict[str, str]
) -> None:
    """A token may be revoked before its time; the upload is sent again, without a wait."""
    proxy.plan(faults.answer(401))

    open_store({"keyfile_dict": key}).put(NAME, [b"abc"])

    assert sent(proxy) == ["Bearer token-1", "Bearer token-2"]
    assert gcs_server.names() == [NAME]


def test_tokens_that_the_server_goes_on_refusing_end_in_an_error(
    open_store: Any, proxy: FaultProxy, key: dict[str, str]
) -> None:
    """Two tokens are enough to know."""
    proxy.plan(faults.answer(401), always=True)

    with pytest.raises(
        StoreUnavailableError, match=r"The credentials are not accepted.* HTTP 401 Unauthorized"
    ):
        open_store({"keyfile_dict": key}).put(NAME, [b"abc"])

    assert sent(proxy) == ["Bearer token-1", "Bearer token-2"]


def test_threads_share_one_token(
    open_store: Any, tokens: TokenServer, proxy: FaultProxy, key: dict[str, str]
) -> None:
    """Sixteen loads at once are not sixteen tokens; nor when all of them are refused at once."""
    store = open_store({"keyfile_dict": key}, 10)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.put(f"xcom/{number}", [b"abc"]), range(16)))
    proxy.plan(*[faults.answer(401)] * 16)
    proxy.latency_seconds = 0.2
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.put(f"xcom/more-{number}", [b"abc"]), range(16)))

    assert len(tokens.asked) == 2
    assert set(sent(proxy)) == {"Bearer token-1", "Bearer token-2"}


def test_thread_that_waits_for_another_s_token_ends_in_time(
    open_store: Any, tokens: TokenServer, key: dict[str, str]
) -> None:
    """A lock is no way around the time limit."""
    tokens.is_hanging.set()
    store = open_store({"keyfile_dict": key})

    def fail(number: int) -> float:
        started = time.monotonic()
        with pytest.raises(
            StoreUnavailableError, match=r"no token|another thread is waiting for a token|time is up"
        ):
            store.put(f"xcom/{number}", [b"abc"])
        return time.monotonic() - started

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(fail, range(4))) < SECONDS + 1


def test_proxy_of_the_environment_is_used_and_told_its_password(
    gcs_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY and NO_PROXY, which urllib3 alone does not read."""
    with FaultProxy(gcs_server.url) as proxy:
        monkeypatch.setattr(gcs, "ENDPOINT", "http://storage.acme.example")
        monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "x", "extra": {"is_anonymous": True}}))
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:pass%20word@"))
        settings = Settings(bucket=gcs_server.bucket, timeout_seconds=2)
        gcs.GCSStore(gcs_server.bucket, settings).put(NAME, [b"abc"])
        monkeypatch.setenv("no_proxy", "acme.example")
        monkeypatch.setattr(retries, "_FIRST_WAIT_SECONDS", 5)
        with pytest.raises(StoreUnavailableError, match=r"NameResolutionError|NewConnectionError"):
            gcs.GCSStore(gcs_server.bucket, settings).put(NAME, [b"abc"])

    _, target, headers = proxy.requests[0]
    assert target.startswith("http://storage.acme.example/upload/")
    assert base64.b64decode(headers["proxy-authorization"].removeprefix("Basic ")) == b"me:pass word"
    assert len(proxy.requests) == 1


def test_certificate_that_nobody_trusts_is_an_error_at_once(
    gcs_server: Any, private_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying again does not help against a proxy that opens TLS; REQUESTS_CA_BUNDLE does."""
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(self_signed(private_key) + private_key.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    settings = Settings(bucket=gcs_server.bucket, timeout_seconds=20)
    with FaultProxy(gcs_server.url, context) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        started = time.monotonic()
        with pytest.raises(
            StoreUnavailableError, match=r"certificate verify failed.*into REQUESTS_CA_BUNDLE"
        ):
            gcs.GCSStore(gcs_server.bucket, settings).put(NAME, [b"abc"])
        assert time.monotonic() - started < 5

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        gcs.GCSStore(gcs_server.bucket, settings).put(NAME, [b"abc" * 1_000_000])

    assert gcs_server.read(NAME) == b"abc" * 1_000_000


def self_signed(private_key: str) -> bytes:
    """Return a certificate of 127.0.0.1 in PEM."""
    from datetime import datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key: Any = serialization.load_pem_private_key(private_key.encode(), None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime(2020, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=36500))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
