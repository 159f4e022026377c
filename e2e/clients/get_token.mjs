// Gets a token with a credential of @azure/identity.
//
// Usage: node get_token.mjs FOLDER CREDENTIAL OPTIONS   where FOLDER has node_modules, and OPTIONS is a JSON object
// Prints JSON: access_token, expires_on.
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, kind, options] = process.argv.slice(2);
const identity = createRequire(join(folder, "index.js"))("@azure/identity");
const credential = new identity[kind](JSON.parse(options));
const token = await credential.getToken("https://ossrdbms-aad.database.windows.net/.default");
console.log(JSON.stringify({ access_token: token.token, expires_on: Math.round(token.expiresOnTimestamp / 1000) }));
