"""Puts a customer behind a token, grants a parcel to a carrier, and reads as that carrier what its label needs.
Usage: python examples/client.py https://127.0.0.1:7443 strongroom-data/certs    (against `strongroom dev`)"""
import secrets, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
import grpc

server, certs = sys.argv[1].removeprefix("https://"), Path(sys.argv[2])
sys.path.append(str(Path(__file__).resolve().parent.parent / "proto"))
common = grpc.protos("strongroom/v1/common.proto")  # the stubs are made in memory, by grpcio-tools
(tokens, token_rpc), (lifecycle, lifecycle_rpc), (delivery, delivery_rpc) = (
    grpc.protos_and_services(f"strongroom/v1/{name}_service.proto") for name in ("token", "lifecycle", "delivery"))

def channel(caller):
    """Mutual TLS: the certificate alone decides who is calling."""
    files = ("ca.pem", f"{caller}-key.pem", f"{caller}.pem")
    return grpc.secure_channel(server, grpc.ssl_channel_credentials(*((certs / file).read_bytes() for file in files)))

now, serial = datetime.now(timezone.utc), f"SW{secrets.randbelow(10**9):09}"
address = common.Address(lines=["Heidestraße 17"], locality="Köln", postal_code="51147", country="DE")
with channel("shop-backend") as shop, channel("carrier-swift") as swift, channel("carrier-parcelo") as parcelo:
    token = token_rpc.TokenServiceStub(shop).Tokenize(tokens.TokenizeRequest(
        idempotency_key=secrets.token_hex(), subject="C-1", **{"class": common.CLASS_ORDER},  # a Python keyword
        fields=[common.FieldValue(field=common.FIELD_ADDRESS, address=address)])).token
    lifecycle_rpc.LifecycleServiceStub(shop).GrantShipment(lifecycle.GrantShipmentRequest(
        idempotency_key=secrets.token_hex(), token=token, serial=serial, carrier="swift", read_limit=3,
        not_before=now, not_after=now + timedelta(days=30)))
    print(f"shop: {token} is granted to swift as parcel {serial}")
    label = delivery_rpc.DeliveryServiceStub(swift).GetDelivery(delivery.GetDeliveryRequest(serial=serial))
    assert (label.address, label.serial) == (address, serial), "what went in came out otherwise"
    print(f"swift: {label.serial} goes to {', '.join(label.address.lines)}, {label.address.locality}")
    try:
        delivery_rpc.DeliveryServiceStub(parcelo).GetDelivery(delivery.GetDeliveryRequest(serial=serial))
        sys.exit("parcelo read a parcel of swift's")
    except grpc.RpcError as refused:
        assert refused.code() == grpc.StatusCode.NOT_FOUND, refused
        print("parcelo: not found")
    delivery_rpc.DeliveryServiceStub(swift).ConfirmDelivery(delivery.ConfirmDeliveryRequest(
        idempotency_key=secrets.token_hex(), serial=serial, delivered_at=datetime.now(timezone.utc)))
    print("swift: delivered, which ends the grant")
