"""A person signs in with MSAL and azure-identity, by a browser that this program plays.

Usage: sign_in.py AUTHORITY CLIENT_ID CLIENT_SECRET USER OTHER_USER
AUTHORITY is the address of Entra with the tenant. Prints JSON: what the tokens say.
"""

import base64
import html
import json
import os
import re
import ssl
import sys
import urllib.parse
import urllib.request

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


def browse(address, user):
    """Opens the page to sign in, clicks on the user, and goes where the answer leads."""
    trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    page = urllib.request.urlopen(address, context=trust).read().decode()
    links = {html.unescape(text): html.unescape(link) for link, text in re.findall(r'<a href="([^"]+)">([^<]+)</a>', page)}
    link = next(link for text, link in links.items() if user in text)
    # A redirect is followed.
    answer = urllib.request.urlopen(urllib.parse.urljoin(address, link), context=trust).read().decode()
    form = re.search(r'<form method="post" action="([^"]+)">(.*?)</form>', answer)
    if form:
        fields = re.findall(r'name="([^"]+)" value="([^"]*)"', form[2])
        body = urllib.parse.urlencode([(name, html.unescape(value)) for name, value in fields])
        urllib.request.urlopen(html.unescape(form[1]), body.encode()).read()


def claims(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def shown(result):
    said = claims(result["access_token"])
    return {name: said.get(name) for name in ["upn", "oid", "appid", "appidacr", "aud", "idtyp"]}


def main(authority, client_id, client_secret, user, other_user):
    import msal
    from azure.identity import InteractiveBrowserCredential, OnBehalfOfCredential

    trust = os.environ["SSL_CERT_FILE"]
    own = {"authority": authority, "instance_discovery": False, "verify": trust}
    public = msal.PublicClientApplication("04b07795-8ddb-461a-bbee-02f9e1bf7b46", **own)
    confidential = msal.ConfidentialClientApplication(client_id, client_credential=client_secret, **own)
    report = {}

    result = public.acquire_token_interactive([SCOPE])
    report["interactive"] = shown(result)
    report["id_token"] = result["id_token_claims"]["preferred_username"]
    account = public.get_accounts()[0]
    report["account"] = account["username"]
    renewed = public.acquire_token_silent([SCOPE], account, force_refresh=True)
    report["refreshed"] = shown(renewed)
    report["refreshed_is_new"] = renewed["access_token"] != result["access_token"]
    # One refresh token is good for any resource.
    by_refresh_token = public.acquire_token_by_refresh_token(result["refresh_token"], ["https://management.azure.com/.default"])
    report["management"] = shown(by_refresh_token)["aud"]

    flow = public.initiate_auth_code_flow([SCOPE], redirect_uri="http://localhost:1/", response_mode="query")
    report["wrong_verifier"] = public.acquire_token_by_auth_code_flow(
        {**flow, "code_verifier": "x" * 43}, code_of(flow, user)
    )["error_codes"]
    answer = code_of(flow, other_user)
    report["by_code"] = shown(public.acquire_token_by_auth_code_flow(flow, answer))
    report["used_code"] = public.acquire_token_by_auth_code_flow(flow, answer)["error_codes"]

    # The person's token for the application, which asks for another on behalf of the person.
    api = public.acquire_token_by_refresh_token(result["refresh_token"], [f"api://{client_id}/.default"])
    on_behalf = confidential.acquire_token_on_behalf_of(api["access_token"], [SCOPE])
    report["on_behalf_of"] = shown(on_behalf)
    report["wrong_audience"] = confidential.acquire_token_on_behalf_of(result["access_token"], [SCOPE])["error_codes"]
    report["unsigned"] = confidential.acquire_token_on_behalf_of(api["access_token"][:-8] + "AAAAAAAA", [SCOPE])["error_codes"]

    host, tenant = authority.rsplit("/", 1)
    options = {"authority": host, "disable_instance_discovery": True, "tenant_id": tenant, "connection_verify": trust}
    credential = InteractiveBrowserCredential(**options)
    record = credential.authenticate(scopes=[SCOPE])
    report["azure_identity"] = [record.username, claims(credential.get_token(SCOPE).token)["upn"]]
    obo = OnBehalfOfCredential(client_id=client_id, client_secret=client_secret, user_assertion=api["access_token"], **options)
    report["azure_identity_on_behalf_of"] = claims(obo.get_token(SCOPE).token)["upn"]
    print(json.dumps(report))


def code_of(flow, user):
    """What the redirect address gets, where nothing listens."""
    class Stop(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request, response, code, message, headers, address):
            raise StopIteration(address)

    trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), Stop)
    page = opener.open(flow["auth_uri"]).read().decode()
    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', page)
    link = next(html.unescape(link) for link, text in links if user in html.unescape(text))
    try:
        opener.open(urllib.parse.urljoin(flow["auth_uri"], link))
    except StopIteration as stopped:
        query = urllib.parse.urlsplit(stopped.args[0]).query
        return {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
    raise AssertionError("no redirect")


if sys.argv[1] == "browse":
    browse(sys.argv[2], os.environ["SIGNS_IN"])
else:
    # `webbrowser` starts this program as the browser.
    os.environ["BROWSER"] = f"{sys.executable} {os.path.abspath(__file__)} browse %s &"
    os.environ["SIGNS_IN"] = sys.argv[4]
    main(*sys.argv[1:])
