"""Gets a token with a credential of azure-identity.

Usage: get_token.py CREDENTIAL OPTIONS    OPTIONS is a JSON object of its arguments
Prints JSON: access_token, expires_on.
"""

import json
import sys

import azure.identity

kind, options = sys.argv[1:]
credential = getattr(azure.identity, kind)(**json.loads(options))
token = credential.get_token("https://ossrdbms-aad.database.windows.net/.default")
print(json.dumps({"access_token": token.token, "expires_on": token.expires_on}))
