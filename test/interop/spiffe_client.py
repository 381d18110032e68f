"""Drives the Python package `spiffe` against a Workload API, and prints one JSON object of what it saw."""

import json
import sys
import threading

from spiffe import SpiffeId, TrustDomain, WorkloadApiClient


def watched(client, wanted):
    """The serials of the next `wanted` contexts of a stream."""
    serials, errors, enough = [], [], threading.Event()

    def arrived(context):
        serials.append(format(context.default_svid.leaf.serial_number, "x"))
        print(json.dumps({"event": "context", "serial": serials[-1]}), flush=True)
        if len(serials) >= wanted:
            enough.set()

    handler = client.stream_x509_contexts(arrived, lambda error: errors.append(str(error)))
    enough.wait(20)
    handler.cancel()
    return {"serials": serials, "errors": errors}


def seen(socket, domain):
    trust_domain = TrustDomain(domain)
    with WorkloadApiClient(socket, default_timeout=10) as client:
        context = client.fetch_x509_context()
        svid = context.default_svid
        bundle = client.fetch_x509_bundles().get_bundle_for_trust_domain(trust_domain)
        token = client.fetch_jwt_svid(audience={"a", "b"}, subject=svid.spiffe_id)
        keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(trust_domain)
        asked = client.validate_jwt_svid(token.token, "a")
        parsed = type(token).parse_and_validate(token.token, keys, {"b"})
        refused = ""
        try:
            client.validate_jwt_svid(token.token, "c")
        except Exception as error:
            refused = str(error)
        return {
            "event": "seen",
            "id": str(svid.spiffe_id),
            "chain": len(svid.cert_chain),
            "authorities": len(bundle.x509_authorities),
            "context_authorities": len(context.x509_bundle_set.get_bundle_for_trust_domain(trust_domain).x509_authorities),
            "token_of": str(token.spiffe_id),
            "validated_by_server": str(asked.spiffe_id),
            "validated_here": str(parsed.spiffe_id),
            "refused": refused,
            "watched": watched(client, 2),
        }


def refused(socket):
    with WorkloadApiClient(socket, default_timeout=10) as client:
        for call in (client.fetch_x509_svid, client.fetch_x509_bundles, client.fetch_jwt_bundles):
            try:
                call()
            except Exception as error:
                print(json.dumps({"event": "refused", "error": str(error)}), flush=True)


if sys.argv[1] == "refused":
    refused(sys.argv[2])
else:
    print(json.dumps(seen(sys.argv[2], sys.argv[3])), flush=True)
