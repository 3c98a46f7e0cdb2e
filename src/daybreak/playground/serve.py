"""The page's server: on this machine, for this machine."""

import socket
from typing import TYPE_CHECKING, final
from urllib.parse import urlsplit

from daybreak.errors import UserError
from daybreak.playground.looks import colours, layout, theme

if TYPE_CHECKING:
    import gradio as gr
    import uvicorn
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
_OUR_NAMES = (HOST, "localhost")
_FIRST_PORT, _PORTS = 7860, 100  # those that a page of gradio usually has
_SECONDS_TO_END = 1
# The browser itself refuses to fetch anything from elsewhere; gradio's own scripts are inline and compile templates.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'; form-action 'self'"
)


@final
class OnlyHere:
    """Refuses requests under another name than this machine's own, and those that pages of other sites send.

    A name that leads here (DNS rebinding) and a form on a foreign page are how the world reaches a local server.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if urlsplit(f"//{host}").hostname not in _OUR_NAMES or (origin and urlsplit(origin).netloc != host):
            await _refuse(send)
            return

        async def send_with_policy(message: "Message") -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", _POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


async def _refuse(send: "Send") -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"daybreak play serves this machine only\n"})


def listen(port: int | None) -> socket.socket:
    """A socket on this machine: at a port, or at a free one.

    Raises:
        UserError: the port is taken, or may not be used.
    """
    ports = [port] if port is not None else [*range(_FIRST_PORT, _FIRST_PORT + _PORTS), 0]
    for each in ports:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, each))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if port is not None:
                raise UserError(
                    f"port {port} cannot be used ({error.strerror}); leave out --port for a free one"
                ) from None
        else:
            return listening
    raise UserError("no port is free")


def url_of(listening: socket.socket) -> str:
    return f"http://{HOST}:{listening.getsockname()[1]}"


def make_server(page: "gr.Blocks") -> "uvicorn.Server":
    """A server of the page, to run on a listening socket."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        show_error=True,
        theme=theme(),
        head=colours(),
        css=layout(),
    )
    return uvicorn.Server(
        uvicorn.Config(OnlyHere(app), log_level="warning", timeout_graceful_shutdown=_SECONDS_TO_END, lifespan="on")
    )
