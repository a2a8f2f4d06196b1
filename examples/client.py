"""Puts a customer behind a token, grants a parcel to a carrier, and reads as that carrier what its label needs.

Usage: python examples/client.py https://127.0.0.1:7443 strongroom-data/certs    (against `strongroom dev`)
"""
import importlib, secrets, sys, tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
import grpc
from grpc_tools import protoc

server, certs = sys.argv[1].removeprefix("https://"), Path(sys.argv[2])
proto = Path(__file__).resolve().parent.parent / "proto"

def stubs(folder, *names):
    """Generates the stubs into `folder` and imports those named. Their package is `strongroom.v1`, as in the protocol."""
    outputs = [f"-I{proto}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *outputs, *map(str, proto.glob("strongroom/v1/*.proto"))]):
        sys.exit("protoc refused the protocol")
    sys.path.append(folder)
    return [importlib.import_module(f"strongroom.v1.{name}") for name in names]

def channel(caller):
    """Mutual TLS: who may do what is decided by the certificate alone."""
    files = ["ca.pem", f"{caller}-key.pem", f"{caller}.pem"]
    return grpc.secure_channel(server, grpc.ssl_channel_credentials(*((certs / file).read_bytes() for file in files)))

with tempfile.TemporaryDirectory() as folder:
    common, tokens, lifecycle, delivery, token_service, lifecycle_service, delivery_service = stubs(
        folder, "common_pb2", "token_service_pb2", "lifecycle_service_pb2", "delivery_service_pb2",
        "token_service_pb2_grpc", "lifecycle_service_pb2_grpc", "delivery_service_pb2_grpc")
fresh, now = lambda: secrets.token_hex(16), datetime.now(timezone.utc)
address = common.Address(lines=["Heidestraße 17"], locality="Köln", postal_code="51147", country="DE")
serial = f"SW{secrets.randbelow(10**9):09}"

with channel("shop-backend") as shop, channel("carrier-swift") as swift, channel("carrier-parcelo") as parcelo:
    token = token_service.TokenServiceStub(shop).Tokenize(tokens.TokenizeRequest(
        idempotency_key=fresh(), subject="C-1", class=common.CLASS_ORDER))
