"""An HTTPS server on this machine that answers well, badly or not at all."""

import http.server
import ssl
import threading
import time

import trustme


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how to answer; ``content`` and ``location`` of the server say with what."""

    def do_GET(self):
        kind, content = self.path.split("/")[1], self.server.content
        self.server.asked.append(self.path)
        self.close_connection = True
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "garbled":
            self.wfile.write(b"not http at all\r\n\r\n")
            return
        self.protocol_version = "HTTP/1.1"
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", self.server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if kind == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"FFFF\r\n" + content[:1000])
            return
        if kind != "endless":
            self.send_header("Content-Length", "none" if kind == "wrong" else str(len(content)))
        self.end_headers()
        if kind == "slow":
            time.sleep(0.3)  # long enough for others to ask for the same file meanwhile
        self.wfile.write(content[: len(content) // 2] if kind == "short" else content)

    def log_message(self, *_):
        pass


class SecureServer(http.server.ThreadingHTTPServer):
    """Runs the server; ``authority`` is the file with the certificate to trust, ``asked`` the paths asked for."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self.address = f"https://127.0.0.1:{self.server_port}"
        self.content, self.asked, self.location = b"", [], ""
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)

    def handle_error(self, *_):
        """Log nothing: clients that break off are part of the tests."""

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join()
