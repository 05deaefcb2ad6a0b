"""The adapter: requests' way from a URL to a connection, and one exchange over it.

There is no requests Session, which is what reads .netrc, the proxy and CA variables of the environment,
follows redirects, keeps cookies and decompresses. Knows nothing of outcomes: it answers or raises.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import certifi
import requests
from attrs import frozen
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from orchclient.core.http import HttpReply, HttpRequest
from orchclient.delivery.http.answer import read_body
from orchclient.delivery.http.connection import PlainConnection, SecureConnection
from orchclient.delivery.http.failure import Refused
from orchclient.delivery.http.line import Line
from orchclient.delivery.http.outgoing import header_fields

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.response import BaseHTTPResponse

_CONNECTIONS = {"http": PlainConnection, "https": SecureConnection}
_MAX_ROUTES = 64


@frozen
class _Route:
    """How to reach one URL: the pool, the request target, and what urllib3 is told instead of it."""

    pool: HTTPConnectionPool
    target: str
    told: str


class LineAdapter(HTTPAdapter):
    """Pools whose connections run over one line, with our own idea of TLS and proxies."""

    def __init__(self, line: Line, proxies: Mapping[str, str], ca_file: str | None, user_agent: str) -> None:
        self._line = line
        self._proxies = dict(proxies)
        self._ca_file = ca_file
        self._user_agent = user_agent
        self._routes: dict[str, _Route] = {}
        self._context: ssl.SSLContext | None = None
        super().__init__(pool_connections=8, pool_maxsize=1, max_retries=0)

    def exchange(self, request: HttpRequest, began: float) -> HttpReply:
        """Send one request and read its whole answer; raises whatever went wrong."""
        response = self._ask(request)
        try:
            body = read_body(response)
        except BaseException:
            response.close()
            raise
        finally:
            response.release_conn()
        headers = {name.lower(): response.headers[name] for name in response.headers}
        return HttpReply(response.status, headers, body, (time.monotonic() - began) * 1e3)

    def close(self) -> None:
        """Close every connection that is not in use."""
        routes, self._routes = self._routes, {}
        for route in routes.values():
            route.pool.close()
        super().close()

    def _ask(self, request: HttpRequest) -> BaseHTTPResponse:
        fields = header_fields(request, self._user_agent)
        route = self._route(request.url)
        self._line.target = route.target
        # Through a proxy the proxy is what is dialled, and it looks the name up: what it may reach is its affair.
        self._line.must_be_public = request.must_be_public and not self._proxies
        return route.pool.urlopen(
            request.method,
            route.told,
            body=request.body or None,
            headers=fields,
            timeout=Timeout(total=self._line.left_s()),
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )

    def _route(self, url: str) -> _Route:
        route = self._routes.get(url)
        if route is None:
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()  # the pools stay with the pool manager
            route = self._routes[url] = self._find_route(url)
        return route

    def _find_route(self, url: str) -> _Route:
        prepared = PreparedRequest()
        try:
            prepared.prepare_url(url, None)
            parts = urlsplit(str(prepared.url))
            if parts.scheme not in _CONNECTIONS or parts.username is not None:
                raise Refused("request", "the URL is not http(s)://host[:port]/path")
            str(parts.hostname).encode("idna")  # as connecting would, which is too late to call it the URL's fault
            pool: Any = self.get_connection_with_tls_context(prepared, True, self._proxies)
            target = self.request_url(prepared, self._proxies)
        except (ValueError, requests.RequestException, HTTPError) as error:
            raise Refused("request", f"the URL or proxy cannot be used ({type(error).__name__})") from None
        pool.ConnectionCls = partial(_CONNECTIONS[pool.scheme], line=self._line)
        # urllib3 logs the path it is told, and a webhook's path is a secret: so it is told the host only.
        return _Route(pool, target, "/" if target.startswith("/") else f"{parts.scheme}://{parts.netloc}/")

    def build_connection_pool_key_attributes(self, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Requests' place to give a pool a TLS context."""
        host, tls = super().build_connection_pool_key_attributes(*args, **options)
        if host["scheme"] == "https":
            tls["ssl_context"] = self._tls()
        return host, tls

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Requests' place to set up a proxy."""
        if proxy.lower().startswith("socks"):
            raise Refused("request", "a SOCKS proxy cannot be used")  # its connections could not be cut
        if proxy.lower().startswith("https"):
            options["proxy_ssl_context"] = self._tls()
        return super().proxy_manager_for(proxy, **options)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            # Not ssl.create_default_context: that writes the keys of each session to SSLKEYLOGFILE when it is
            # set.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.load_verify_locations(self._ca_file or certifi.where())
            except OSError as error:
                raise Refused("tls", f"the CA file cannot be loaded ({type(error).__name__})") from None
            self._context = context
        return self._context
