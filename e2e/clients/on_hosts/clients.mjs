// Signs in with each client of Node.js and a token of @azure/identity. The server comes from PGHOST, PGUSER, …
//
// Usage: node clients.mjs FOLDER HOST           prints a line of JSON for each client: its role, or the error
//        node clients.mjs FOLDER HOST --lives   keeps a pool of each client; for each line of the input opens one more
//                                               connection in it
// FOLDER has node_modules.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [folder, host, lives] = process.argv.slice(2);
const require = createRequire(join(folder, "index.js"));
const identity = require("@azure/identity");
const { Pool } = require("pg");
const { configureEntraAuthentication, entraTokenProvider } = require("@azure/postgresql-auth");

const scope = "https://ossrdbms-aad.database.windows.net/.default";
const query = "SELECT current_user";
const env = process.env;

function credential() {
  // A private authority, which MSAL would look up at login.microsoftonline.com.
  const options = { disableInstanceDiscovery: env.AZURE_AUTHORITY_HOST?.includes("localhost") };
  if (host === "aks-binding") return new identity.WorkloadIdentityCredential({ enableAzureProxy: true, ...options });
  if (host === "azure-pipelines") {
    return new identity.AzurePipelinesCredential(
      env.AZURESUBSCRIPTION_TENANT_ID,
      env.AZURESUBSCRIPTION_CLIENT_ID,
      env.AZURESUBSCRIPTION_SERVICE_CONNECTION_ID,
      env.SYSTEM_ACCESSTOKEN,
      options,
    );
  }
  return new identity.DefaultAzureCredential({ managedIdentityClientId: env.AZURE_CLIENT_ID, ...options });
}

// Each gives a function that signs in on one more connection, and one that ends.
const withPool = (password) => {
  // `ssl: true` is what libpq calls verify-full.
  const pool = new Pool({ password, ssl: true, max: 9 });
  return [async () => (await (await pool.connect()).query(query)).rows[0].current_user, pool];
};
const token = (signing) => async () => (await signing.getToken(scope)).token;

const clients = {
  "node-postgres": () => withPool(token(credential())),
  "postgres.js": () => {
    const sql = require("postgres")({ password: token(credential()), ssl: "verify-full", max: 9, idle_timeout: 1 });
    return [async () => (await (await sql.reserve()).unsafe(query))[0].current_user, sql];
  },
  Drizzle: () => {
    const { drizzle } = require("drizzle-orm/node-postgres");
    const { sql } = require("drizzle-orm");
    const [, pool] = withPool(token(credential()));
    const one = async () => (await drizzle(await pool.connect()).execute(sql.raw(query))).rows[0].current_user;
    return [one, pool];
  },
  "@azure/postgresql-auth, node-postgres": () => withPool(entraTokenProvider(credential())),
  "@azure/postgresql-auth, Sequelize": () => {
    const { Sequelize, QueryTypes } = require("sequelize");
    const sequelize = new Sequelize({
      dialect: "postgres",
      host: env.PGHOST,
      port: env.PGPORT ?? 5432,
      database: env.PGDATABASE,
      dialectOptions: { ssl: true },
      logging: false,
      pool: { max: 9 },
    });
    configureEntraAuthentication(sequelize, credential());
    const one = async () => {
      // A transaction keeps its connection.
      const transaction = await sequelize.transaction();
      return (await sequelize.query(query, { type: QueryTypes.SELECT, transaction }))[0].current_user;
    };
    return [one, sequelize];
  },
};

async function say(client, doing) {
  let said;
  try {
    said = { role: await doing() };
  } catch (error) {
    const causes = [];
    for (let cause = error; cause && causes.length < 9; cause = cause.cause ?? cause.parent) {
      causes.push(`${cause.name}: ${cause.message}`, ...(cause.errors ?? []).map(String));
    }
    said = { error: causes.join(" <- ") };
  }
  console.log(JSON.stringify({ client, ...said }));
}

const opened = Object.entries(clients).map(([name, open]) => [name, open()[0]]);
if (lives) {
  for await (const _ of createInterface({ input: process.stdin })) {
    for (const [name, one] of opened) await say(name, one);
    console.log("{}");
  }
} else {
  for (const [name, one] of opened) await say(name, one);
}
// Connections stay taken until the end.
process.exit();
