"""Reads a token and says whose it is, without showing it.

Standard input: JSON with access_token or accessToken, and expires_on, in seconds since 1970.
Prints JSON: object_id, client_id, tenant_id and expires as the token says them, expires_on as its client said it, and a
digest, which is the same for the same token.
"""

import base64
import hashlib
import json
import sys

answer = json.load(sys.stdin)
token = answer.get("access_token") or answer["accessToken"]
part = token.split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
print(
    json.dumps(
        {
            "object_id": claims["oid"],
            "client_id": claims.get("appid"),
            "tenant_id": claims["tid"],
            "expires": claims["exp"],
            "expires_on": int(answer["expires_on"]),
            "digest": hashlib.sha256(token.encode()).hexdigest(),
        }
    )
)
