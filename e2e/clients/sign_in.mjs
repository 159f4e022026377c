// A person signs in with @azure/identity, by a browser that this program plays.
//
// Usage: node sign_in.mjs FOLDER AUTHORITY CLIENT_ID CLIENT_SECRET USER OTHER_USER   where FOLDER has node_modules and
// AUTHORITY is the address of Entra with the tenant. Prints JSON: what the tokens say.
//
// `node sign_in.mjs browse ADDRESS` is the browser; SIGNS_IN is the user who is clicked on.
import { createRequire } from "node:module";
import { join } from "node:path";

const SCOPE = "https://ossrdbms-aad.database.windows.net/.default";
const CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
const REDIRECT = "http://localhost:1/";

if (process.argv[2] === "browse") {
  await browse(process.argv[3], process.env.SIGNS_IN);
} else {
  await main(...process.argv.slice(2));
}

function unescaped(text) {
  const named = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" };
  return text.replace(/&(amp|lt|gt|quot|#39);/g, (_, name) => named[name]);
}

// Opens the page to sign in and clicks on the user.
async function answered(address, user) {
  const page = await (await fetch(address)).text();
  const links = [...page.matchAll(/<a href="([^"]+)">([^<]+)<\/a>/g)];
  const [, link] = links.find(([, , text]) => unescaped(text).includes(user));
  return fetch(new URL(unescaped(link), address), { redirect: "manual" });
}

// The program gets the answer in a form that the browser sends.
async function browse(address, user) {
  const page = await (await answered(address, user)).text();
  const [, action, form] = /<form method="post" action="([^"]+)">(.*?)<\/form>/s.exec(page);
  const fields = [...form.matchAll(/name="([^"]+)" value="([^"]*)"/g)];
  const body = new URLSearchParams(fields.map(([, name, value]) => [name, unescaped(value)]));
  await fetch(unescaped(action), { method: "POST", body });
}

function claims(token) {
  const said = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
  return { upn: said.upn, appid: said.appid, appidacr: said.appidacr, aud: said.aud, idtyp: said.idtyp };
}

async function main(folder, authority, client, secret, user, other) {
  const identity = createRequire(join(folder, "index.js"))("@azure/identity");
  const [authorityHost, tenantId] = [new URL("/", authority).href, authority.split("/").pop()];
  const own = { authorityHost, disableInstanceDiscovery: true };
  process.env.SIGNS_IN = user;
  process.env.BROWSER = `${process.execPath} ${import.meta.filename} browse`;
  delete process.env.DISPLAY;
  const report = {};

  const interactive = new identity.InteractiveBrowserCredential({ tenantId, ...own });
  const record = await interactive.authenticate(SCOPE);
  report.interactive = claims((await interactive.getToken(SCOPE)).token);
  report.record = [record.username, record.tenantId === tenantId];
  // One sign-in is good for any resource.
  report.management = claims((await interactive.getToken("https://management.azure.com/.default")).token).aud;

  const device = new identity.DeviceCodeCredential({
    tenantId,
    ...own,
    userPromptCallback: async ({ verificationUri, userCode, message }) => {
      report.message = message.includes(userCode);
      await fetch(`${verificationUri}?user_code=${userCode}`);
    },
  });
  report.device = claims((await device.getToken(SCOPE)).token);

  const query = { client_id: CLI, response_type: "code", redirect_uri: REDIRECT, scope: `${SCOPE} offline_access` };
  const address = `${authority}/oauth2/v2.0/authorize?${new URLSearchParams(query)}`;
  const code = new URL((await answered(address, other)).headers.get("location")).searchParams.get("code");
  const byCode = new identity.AuthorizationCodeCredential(tenantId, CLI, code, REDIRECT, own);
  report.by_code = claims((await byCode.getToken(SCOPE)).token);
  const again = new identity.AuthorizationCodeCredential(tenantId, CLI, code, REDIRECT, own);
  report.used_code = await refusal(again.getToken(SCOPE));

  // A person signs in for the application, which proves itself and asks for a token on behalf of the person.
  const api = `api://${client}/.default`;
  const userAssertionToken = (await interactive.getToken(api)).token;
  const options = { tenantId, clientId: client, clientSecret: secret, ...own };
  const onBehalfOf = new identity.OnBehalfOfCredential({ ...options, userAssertionToken });
  report.on_behalf_of = claims((await onBehalfOf.getToken(SCOPE)).token);
  const wrong = new identity.OnBehalfOfCredential({ ...options, userAssertionToken: (await device.getToken(SCOPE)).token });
  report.wrong_audience = await refusal(wrong.getToken(SCOPE));

  const password = new identity.UsernamePasswordCredential(tenantId, CLI, user, "a password", own);
  report.password = await refusal(password.getToken(SCOPE));
  console.log(JSON.stringify(report));
}

// The number of Entra's refusal.
async function refusal(token) {
  try {
    await token;
  } catch (error) {
    return Number(/AADSTS(\d+)/.exec(error.message)?.[1]);
  }
  return null;
}
