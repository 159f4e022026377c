// Signs in to PostgreSQL as the environment says, with a token of @azure/identity as the password.
//
// Usage: node login.mjs FOLDER CREDENTIAL   where FOLDER has node_modules; prints the role that it is.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, kind] = process.argv.slice(2);
const require = createRequire(join(folder, "index.js"));
const identity = require("@azure/identity");
const { Client } = require("pg");

const options = {};
if (kind === "ManagedIdentityCredential" && process.env.AZURE_CLIENT_ID) {
  options.clientId = process.env.AZURE_CLIENT_ID;
}
if (process.env.AZURE_AUTHORITY_HOST) {
  // else MSAL asks login.microsoftonline.com whether there is such an authority
  options.disableInstanceDiscovery = true;
}
const credential = new identity[kind](options);
const { token } = await credential.getToken("https://ossrdbms-aad.database.windows.net/.default");

// node-postgres does what libpq calls verify-full when it is given the authority and nothing that relaxes it.
const ssl = { ca: readFileSync(process.env.PGSSLROOTCERT, "utf8") };
const client = new Client({ password: token, ssl });
await client.connect();
const { rows } = await client.query("SELECT current_user");
console.log(rows[0].current_user);
await client.end();
