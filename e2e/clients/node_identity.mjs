// The real @azure/identity gets tokens from the local cloud.
//
// Usage: node node_identity.mjs SERVE   where SERVE is the emulator's example program `serve`;
// @azure/identity is found from the current folder.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const SCOPE = "https://ossrdbms-aad.database.windows.net/.default";

// Node reads NODE_EXTRA_CA_CERTS at its start, so each case runs in a process of its own.
if (process.argv[2] === "--case") {
  await one(JSON.parse(process.argv[3]));
} else {
  await all(process.argv[2]);
}

async function one({ kind, options }) {
  const identity = createRequire(join(process.cwd(), "index.js"))("@azure/identity");
  const token = await new identity[kind](...options).getToken(SCOPE);
  console.log(JSON.stringify({ token: token.token, expires: token.expiresOnTimestamp }));
}

async function all(serve) {
  const folder = mkdtempSync(join(tmpdir(), "node-identity-"));
  const server = spawn(serve, [folder], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const [line] = await once(createInterface(server.stdout));
    await run(JSON.parse(line));
  } finally {
    server.stdin.end();
    rmSync(folder, { recursive: true });
  }
}

function once(lines) {
  return new Promise((resolve) => lines.once("line", (line) => resolve([line])));
}

async function run(azure) {
  const { vm, user_assigned: named, application } = azure;
  const imds = { AZURE_POD_IDENTITY_AUTHORITY_HOST: azure.metadata };
  const appService = { IDENTITY_ENDPOINT: azure.app_service.endpoint, IDENTITY_HEADER: azure.app_service.header };
  const trust = { NODE_EXTRA_CA_CERTS: azure.ca_file, AZURE_AUTHORITY_HOST: azure.authority_host };
  const workload = {
    ...trust,
    AZURE_CLIENT_ID: named.client_id,
    AZURE_TENANT_ID: azure.tenant,
    AZURE_FEDERATED_TOKEN_FILE: azure.token_file,
  };
  const own = { disableInstanceDiscovery: true };
  const managed = "ManagedIdentityCredential";
  const chain = "DefaultAzureCredential";
  const secret = [azure.tenant, application.client_id, application.secret, own];
  const cases = [
    ["imds, ManagedIdentityCredential", imds, managed, [], vm],
    ["imds, DefaultAzureCredential", imds, chain, [], vm],
    ["imds, client id", imds, managed, [{ clientId: named.client_id }], named],
    ["imds, object id", imds, managed, [{ objectId: named.object_id }], named],
    ["imds, resource id", imds, managed, [{ resourceId: named.resource_id }], named],
    ["app service, ManagedIdentityCredential", appService, managed, [], vm],
    ["app service, DefaultAzureCredential", appService, chain, [], vm],
    ["app service, client id", appService, managed, [{ clientId: named.client_id }], named],
    ["cloud shell", { MSI_ENDPOINT: azure.cloud_shell }, managed, [], azure.administrator],
    ["workload identity, WorkloadIdentityCredential", workload, "WorkloadIdentityCredential", [own], named],
    ["workload identity, DefaultAzureCredential", workload, chain, [own], named],
    ["secret, ClientSecretCredential", trust, "ClientSecretCredential", secret, application],
  ];
  for (const [name, variables, kind, options, expected] of cases) {
    const { token, expires } = await child(variables, { kind, options });
    const claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    assert.equal(claims.oid, expected.object_id, name);
    assert.ok(Math.abs(claims.exp - expires / 1000) <= 2, `${name}: ${claims.exp} ${expires}`);
    console.log(`${name}: ok`);
  }
}

async function child(variables, request) {
  const argv = [import.meta.filename, "--case", JSON.stringify(request)];
  const started = spawn(process.execPath, argv, {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...variables },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = await Promise.race([
    once(createInterface(started.stdout)),
    new Promise((_, reject) => started.once("exit", (code) => code && reject(new Error(`ended with ${code}`)))),
  ]);
  return JSON.parse(line);
}
