"""The cases of gRPC's interop test descriptions, run by gRPC's C-core client, and what is ours beyond
them: health, reflection, exactly-once by an id, `buf curl`.

    python cases.py PROGRAM [unittest's arguments]

PROGRAM is the built example `interop`, $STUBBORN the built command line. The messages are learned from the
server by reflection.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
import uuid
from concurrent import futures

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "grpc.testing.TestService"
LIMIT = 30  # seconds; nothing waits for it unless it fails


class Server:
    """The example as a process."""

    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory()
        certificate = os.path.join(self.folder.name, "certificate.pem")
        self.process = subprocess.Popen(
            [program, "--certificate", certificate, "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.address = line.split("grpc://")[1].split()[0]
        self.certificate_file = certificate
        with open(certificate, "rb") as file:
            self.certificate = file.read()

    def channel(self):
        """Over TLS: the server's own certificate is trusted."""
        credentials = grpc.ssl_channel_credentials(self.certificate)
        return grpc.secure_channel(self.address, credentials)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


class Stub:
    """The service's methods, from what the server says of itself."""

    def __init__(self, channel):
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.pool = pool
        self.channel = channel
        for method in pool.FindServiceByName(SERVICE).methods:
            kinds = ("unary", "stream")
            kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
            setattr(self, method.name, self.method(f"/{SERVICE}/{method.name}", kind, method))

    def method(self, path, kind, method):
        reply = message_factory.GetMessageClass(method.output_type)
        return getattr(self.channel, kind)(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    def message(self, name, **fields):
        descriptor = self.pool.FindMessageTypeByName(f"grpc.testing.{name}")
        return message_factory.GetMessageClass(descriptor)(**fields)

    def payload(self, size):
        return self.message("Payload", body=bytes(size))

    def yes(self, value=True):
        return self.message("BoolValue", value=value)

    def asks(self, *sizes, payload=0, **more):
        parameters = [self.message("ResponseParameters", size=size) for size in sizes]
        return self.message(
            "StreamingOutputCallRequest",
            response_parameters=parameters,
            payload=self.payload(payload),
            **more,
        )


def fails(test, code, call):
    with test.assertRaises(grpc.RpcError) as raised:
        call()
    test.assertEqual(raised.exception.code(), code, raised.exception)
    return raised.exception


class Case(unittest.TestCase):
    """A case over TLS, with a channel of its own."""

    def setUp(self):
        self.channel = self.open()
        self.addCleanup(self.channel.close)
        self.stub = Stub(self.channel)

    def open(self):
        return SERVER.channel()


class Interop(Case):
    """gRPC's own cases, by gRPC's own names."""

    def test_empty_unary(self):
        reply = self.stub.EmptyCall(self.stub.message("Empty"), timeout=LIMIT)
        self.assertEqual(reply, self.stub.message("Empty"))

    def large(self, **fields):
        payload = self.stub.payload(271828)
        return self.stub.message("SimpleRequest", response_size=314159, payload=payload, **fields)

    def test_large_unary(self):
        reply = self.stub.UnaryCall(self.large(), timeout=LIMIT)
        self.assertEqual(reply.payload.body, bytes(314159))

    def test_client_streaming(self):
        sizes = [27182, 8, 1828, 45904]
        name = "StreamingInputCallRequest"
        requests = [self.stub.message(name, payload=self.stub.payload(size)) for size in sizes]
        reply = self.stub.StreamingInputCall(iter(requests), timeout=LIMIT)
        self.assertEqual(reply.aggregated_payload_size, 74922)

    def test_server_streaming(self):
        sizes = [31415, 9, 2653, 58979]
        replies = self.stub.StreamingOutputCall(self.stub.asks(*sizes), timeout=LIMIT)
        self.assertEqual([len(reply.payload.body) for reply in replies], sizes)

    def test_ping_pong(self):
        pings = [(27182, 31415), (8, 9), (1828, 2653), (45904, 58979)]
        with Pipe() as pipe:
            replies = self.stub.FullDuplexCall(pipe, timeout=LIMIT)
            for sent, asked in pings:
                pipe.send(self.stub.asks(asked, payload=sent))
                self.assertEqual(len(next(replies).payload.body), asked)
            pipe.close()
            self.assertEqual(list(replies), [])

    def test_empty_stream(self):
        self.assertEqual(list(self.stub.FullDuplexCall(iter([]), timeout=LIMIT)), [])

    def test_custom_metadata(self):
        early = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
        late = ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
        unary = self.stub.UnaryCall.with_call(self.large(), timeout=LIMIT, metadata=(early, late))
        both = self.stub.FullDuplexCall(
            iter([self.stub.asks(314159, payload=271828)]), timeout=LIMIT, metadata=(early, late)
        )
        self.assertEqual(len(list(both)), 1)
        for call in [unary[1], both]:
            self.assertIn(early, [tuple(pair) for pair in call.initial_metadata()])
            self.assertIn(late, [tuple(pair) for pair in call.trailing_metadata()])

    def status_is_echoed(self, message):
        status = self.stub.message("EchoStatus", code=2, message=message)
        request = self.stub.message("SimpleRequest", response_status=status)
        error = fails(
            self, grpc.StatusCode.UNKNOWN, lambda: self.stub.UnaryCall(request, timeout=LIMIT)
        )
        self.assertEqual(error.details(), message)
        requests = [self.stub.asks(response_status=status)]
        error = fails(
            self,
            grpc.StatusCode.UNKNOWN,
            lambda: list(self.stub.FullDuplexCall(iter(requests), timeout=LIMIT)),
        )
        self.assertEqual(error.details(), message)

    def test_status_code_and_message(self):
        self.status_is_echoed("test status message")

    def test_special_status_message(self):
        self.status_is_echoed("\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")

    def test_unimplemented_method(self):
        call = lambda: self.stub.UnimplementedCall(self.stub.message("Empty"), timeout=LIMIT)
        fails(self, grpc.StatusCode.UNIMPLEMENTED, call)

    def test_unimplemented_service(self):
        call = self.channel.unary_unary("/grpc.testing.UnimplementedService/UnimplementedCall")
        fails(self, grpc.StatusCode.UNIMPLEMENTED, lambda: call(b"", timeout=LIMIT))

    def test_cancel_after_begin(self):
        with Pipe() as pipe:
            call = self.stub.StreamingInputCall.future(pipe, timeout=LIMIT)
            call.cancel()
            self.assertTrue(call.cancelled())
            self.assertEqual(call.code(), grpc.StatusCode.CANCELLED)

    def test_cancel_after_first_response(self):
        with Pipe() as pipe:
            replies = self.stub.FullDuplexCall(pipe, timeout=LIMIT)
            pipe.send(self.stub.asks(31415, payload=27182))
            self.assertEqual(len(next(replies).payload.body), 31415)
            replies.cancel()
            fails(self, grpc.StatusCode.CANCELLED, lambda: next(replies))

    def test_timeout_on_sleeping_server(self):
        with Pipe() as pipe:
            replies = self.stub.FullDuplexCall(pipe, timeout=0.001)
            pipe.send(self.stub.asks(payload=27182))
            fails(self, grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(replies))

    def test_client_compressed_unary(self):
        # The probe: a server that cannot tell would not refuse it.
        request = self.large(expect_compressed=self.stub.yes())
        unary = self.stub.UnaryCall
        probe = lambda: unary(request, timeout=LIMIT, compression=grpc.Compression.NoCompression)
        fails(self, grpc.StatusCode.INVALID_ARGUMENT, probe)
        reply = unary(request, timeout=LIMIT, compression=grpc.Compression.Gzip)
        self.assertEqual(len(reply.payload.body), 314159)
        request = self.large(expect_compressed=self.stub.yes(False))
        reply = unary(request, timeout=LIMIT, compression=grpc.Compression.NoCompression)
        self.assertEqual(len(reply.payload.body), 314159)

    def test_server_compressed_unary(self):
        for compressed in [True, False]:
            request = self.large(response_compressed=self.stub.yes(compressed))
            reply, call = self.stub.UnaryCall.with_call(request, timeout=LIMIT)
            self.assertEqual(reply.payload.body, bytes(314159))

    def test_client_compressed_streaming(self):
        name = "StreamingInputCallRequest"
        request = lambda size, expected: self.stub.message(
            name, payload=self.stub.payload(size), expect_compressed=self.stub.yes(expected)
        )
        call = self.stub.StreamingInputCall
        none, gzip = grpc.Compression.NoCompression, grpc.Compression.Gzip
        probe = lambda: call(iter([request(27182, True)]), timeout=LIMIT, compression=none)
        fails(self, grpc.StatusCode.INVALID_ARGUMENT, probe)
        requests = [request(27182, True), request(45904, False)]
        reply = call(iter(requests), timeout=LIMIT, compression=gzip)
        self.assertEqual(reply.aggregated_payload_size, 73086)

    def test_server_compressed_streaming(self):
        request = self.stub.message("StreamingOutputCallRequest")
        for size, compressed in [(31415, True), (92653, False)]:
            parameters = request.response_parameters.add(size=size)
            parameters.compressed.value = compressed
        replies = self.stub.StreamingOutputCall(request, timeout=LIMIT)
        self.assertEqual([len(reply.payload.body) for reply in replies], [31415, 92653])


class WithoutTls(Interop):
    """The same, unencrypted."""

    def open(self):
        return grpc.insecure_channel(SERVER.address)


class HealthAndReflection(Case):
    def health(self):
        return health_pb2_grpc.HealthStub(self.channel)

    def test_health_of_the_server_and_of_its_services(self):
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ["", SERVICE]:
            request = health_pb2.HealthCheckRequest(service=service)
            self.assertEqual(self.health().Check(request, timeout=LIMIT).status, serving)

    def test_health_of_a_service_that_is_not_there(self):
        request = health_pb2.HealthCheckRequest(service="no.Such")
        call = lambda: self.health().Check(request, timeout=LIMIT)
        fails(self, grpc.StatusCode.NOT_FOUND, call)
        watch = self.health().Watch(request, timeout=LIMIT)
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        self.assertEqual(next(watch).status, unknown)
        watch.cancel()

    def test_reflection_lists_and_describes_the_services(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        services = database.get_services()
        self.assertEqual(sorted(services), list(services))
        for service in [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]:
            self.assertIn(service, services)
            found = descriptor_pool.DescriptorPool(database).FindServiceByName(service)
            self.assertTrue(found.methods)


class Ids(Case):
    """A call with an id runs once, however often it is sent."""

    def call(self, key, size=1, timeout=LIMIT, stub=None):
        request = self.stub.message("SimpleRequest", response_size=size)
        call = (stub or self.stub).UnaryCall.with_call
        metadata = (("stubborn-call-id", key),) if key else ()
        reply, call = call(request, timeout=timeout, metadata=metadata)
        return reply.SerializeToString(), int(dict(call.trailing_metadata())["ran"])

    def test_a_copy_gets_the_same_reply_and_does_not_run(self):
        key = str(uuid.uuid4())
        first = self.call(key)
        self.assertEqual(self.call(key), first)
        with SERVER.channel() as other:
            self.assertEqual(self.call(key, stub=Stub(other)), first, "on another connection")
        self.assertEqual(self.call(None)[1], first[1] + 1, "nothing ran in between")

    def test_copies_at_once_run_once(self):
        key, found = str(uuid.uuid4()), []
        before = self.call(None)[1]
        copies = [threading.Thread(target=lambda: found.append(self.call(key))) for _ in range(32)]
        [copy.start() for copy in copies]
        [copy.join() for copy in copies]
        self.assertEqual(len(found), 32)
        self.assertEqual({ran for _, ran in found}, {before + 1})

    def test_the_same_id_with_another_request_is_refused(self):
        key = str(uuid.uuid4())
        self.call(key)
        error = fails(
            self, grpc.StatusCode.FAILED_PRECONDITION, lambda: self.call(key, size=2)
        )
        self.assertIn("stubborn-not-executed", dict(error.trailing_metadata()))


class BufCurl(unittest.TestCase):
    """buf's client, by reflection."""

    def curl(self, *arguments):
        buf = os.path.join(os.path.dirname(sys.executable), "buf")
        command = [buf, "curl", "--protocol", "grpc", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def secured(self, path, data):
        url = f"https://{SERVER.address}/{path}"
        return self.curl("--cacert", SERVER.certificate_file, "--data", data, url)

    def test_a_unary_call_over_tls(self):
        done = self.secured(f"{SERVICE}/UnaryCall", '{"responseSize": 3}')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout), {"payload": {"body": "AAAA"}})

    def test_a_unary_call_without_tls(self):
        url = f"http://{SERVER.address}/{SERVICE}/EmptyCall"
        done = self.curl("--http2-prior-knowledge", "--data", "{}", url)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout), {})

    def test_a_stream_and_its_status(self):
        data = '{"responseParameters": [{"size": 1}, {"size": 2}], "responseStatus": {"code": 10, "message": "enough"}}'
        done = self.secured(f"{SERVICE}/StreamingOutputCall", data)
        self.assertIn("enough", done.stderr)
        self.assertEqual(done.stdout.count("payload"), 2, done.stdout)

    def test_the_methods_are_listed(self):
        url = f"https://{SERVER.address}"
        done = self.curl("--cacert", SERVER.certificate_file, "--list-methods", url)
        self.assertIn(f"{SERVICE}/UnaryCall", done.stdout, done.stderr)


class Shell(unittest.TestCase):
    """The command line as a client of gRPC's own server."""

    @classmethod
    def setUpClass(cls):
        cls.server = grpc.server(futures.ThreadPoolExecutor(4))
        cls.health = health.HealthServicer()
        cls.health.set("a.B", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(cls.health, cls.server)
        names = ("grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, cls.server)
        cls.address = f"grpc://127.0.0.1:{cls.server.add_insecure_port('127.0.0.1:0')}"
        cls.server.start()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop(None).wait()

    def run_shell(self, command, *arguments):
        program = [os.environ["STUBBORN"], command, self.address, *arguments]
        return subprocess.run(program, capture_output=True, text=True, timeout=LIMIT)

    def test_services_are_listed_and_described(self):
        done = self.run_shell("ls", "--all")
        self.assertIn("grpc.health.v1.Health\n", done.stdout, done.stderr)
        done = self.run_shell("describe", "grpc.health.v1.Health")
        self.assertIn("rpc Check(grpc.health.v1.HealthCheckRequest)", done.stdout, done.stderr)

    def test_a_unary_call_and_its_status(self):
        done = self.run_shell("call", "grpc.health.v1.Health/Check", '{"service": "a.B"}')
        self.assertEqual(json.loads(done.stdout), {"status": "NOT_SERVING"}, done.stderr)
        done = self.run_shell("call", "grpc.health.v1.Health/Check", '{"service": "no.Such"}')
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("NOT_FOUND", done.stderr.upper().replace(" ", "_"))

    def test_a_stream_with_a_deadline(self):
        done = self.run_shell("call", "grpc.health.v1.Health/Watch", "--deadline", "1s")
        self.assertEqual(json.loads(done.stdout.splitlines()[0]), {"status": "SERVING"})
        self.assertNotEqual(done.returncode, 0)

    def test_health(self):
        self.assertEqual(self.run_shell("health").stdout, "serving\n")
        self.assertEqual(self.run_shell("health", "a.B").returncode, 1)


class Pipe:
    """Requests of a stream, as they come."""

    def __init__(self):
        self.items, self.more, self.closed = [], threading.Condition(), False

    def send(self, item):
        with self.more:
            self.items.append(item)
            self.more.notify()

    def close(self):
        with self.more:
            self.closed = True
            self.more.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self.more:
            self.more.wait_for(lambda: self.items or self.closed)
            if self.items:
                return self.items.pop(0)
            raise StopIteration

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


if __name__ == "__main__":
    SERVER = Server(sys.argv.pop(1))
    try:
        unittest.main(verbosity=2)
    finally:
        SERVER.stop()
