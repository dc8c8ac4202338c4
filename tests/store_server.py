"""An S3-compatible store on this machine, in a thread, that fails and dawdles as often as it is told to."""

import random
import threading
import time
from contextlib import contextmanager

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {
    "AWS_ACCESS_KEY_ID": "only-a-test",
    "AWS_SECRET_ACCESS_KEY": "no-secret-but-looks-it",
    "AWS_REGION": "us-east-1",
}


class Quiet(WSGIRequestHandler):
    def log(self, *args):
        pass


class Store:
    """Attributes: how often a request fails, how long one takes; counts of what was asked and refused.

    Requests of boto3, the tests' own client, never fail: the faults are for the product.
    """

    def __init__(self, seed=0):
        self.failing, self.slow_s, self.asked, self.sent, self.refused = 0.0, 0.0, 0, 0, 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ, start_response):
        with self._lock:
            self.asked += 1
            self.sent += environ["REQUEST_METHOD"] == "PUT"
            ours = "boto3" in environ.get("HTTP_USER_AGENT", "").lower()
            refuse = not ours and self._random.random() < self.failing
            self.refused += refuse
        if self.slow_s:
            time.sleep(self.slow_s * self._random.random())
        if refuse:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
            return [b"<Error><Code>InternalError</Code><Message>injected</Message></Error>"]
        return self._app(environ, start_response)


@contextmanager
def store(bucket="digits", seed=0):
    """The store and the address of a folder in a bucket of it."""
    app = Store(seed)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], region_name="us-east-1",
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    client.create_bucket(Bucket=bucket)
    try:
        yield app, f"s3://{bucket}/runs?endpoint_override=127.0.0.1:{server.server_port}&scheme=http", client
    finally:
        server.shutdown()
        thread.join()
