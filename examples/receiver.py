"""Takes in what a vault tells of, and deletes what the shop keeps under the tokens of records that are gone.
Usage: python examples/receiver.py webhook.secret tokens.json 8080     (tokens.json: {"srt1…": "path of a picture", …})"""
import base64, hashlib, hmac, json, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

secrets = [base64.b64decode(line.removeprefix("whsec_")) for line in Path(sys.argv[1]).read_text().split()]
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"  # bech32: five bits a character

def digest(token, tenant):
    """What a message calls the record; 32 characters of the token are its 160 bits, six more a checksum."""
    number = sum(ALPHABET.index(c) << 5 * (31 - place) for place, c in enumerate(token[4:36]))
    parts = b"".join(len(part).to_bytes(4, "big") + part for part in (b"strongroom/token", tenant.encode()))
    return hashlib.sha256(parts + number.to_bytes(20, "big")).hexdigest()[:32]

def is_genuine(headers, body):
    ident, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "0")
    macs = (hmac.digest(secret, f"{ident}.{at}.".encode() + body, "sha256") for secret in secrets)
    expected = ["v1," + base64.b64encode(mac).decode() for mac in macs]
    given = headers.get("webhook-signature", "").split()
    return abs(time.time() - int(at)) < 300 and any(hmac.compare_digest(a, b) for a in expected for b in given)

class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not is_genuine(self.headers, body):
            return self.send_error(400)
        message = json.loads(body)
        if message["type"] == "record.erased":
            gone = {record["record"] for record in message["data"]["records"]}
            for token, picture in json.loads(Path(sys.argv[2]).read_text()).items():
                if digest(token, message["data"]["tenant"]) in gone:
                    Path(picture).unlink(missing_ok=True)  # told twice, deleted once
        self.send_response(204)
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[3])), Receiver).serve_forever()
