// The real @azure/identity gets tokens from the local cloud.
//
// Usage: node node_identity.mjs SERVE [KEYS]   where SERVE is the emulator's example program `serve`, and KEYS the
// folder /var/opt/azcmagent/tokens, where it exists and can be written: then Azure Arc is tried too.
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
  await all(process.argv[2], process.argv.slice(3));
}

async function one({ kind, options }) {
  const identity = createRequire(join(process.cwd(), "index.js"))("@azure/identity");
  const token = await new identity[kind](...options).getToken(SCOPE);
  console.log(JSON.stringify({ token: token.token, expires: token.expiresOnTimestamp }));
}

async function all(serve, keys) {
  const folder = mkdtempSync(join(tmpdir(), "node-identity-"));
  const argv = [folder, ...keys.flatMap((key) => ["--arc", key])];
  const server = spawn(serve, argv, { stdio: ["pipe", "pipe", "inherit"] });
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

async function run({ files, identities, hosts }) {
  const { tenant, vm, user_assigned: named, application, administrator } = identities;
  const trust = { NODE_EXTRA_CA_CERTS: files.ca, ...hosts.authority };
  const workload = { ...trust, AZURE_CLIENT_ID: named.client_id, AZURE_TENANT_ID: tenant };
  const federated = { ...workload, AZURE_FEDERATED_TOKEN_FILE: files.service_account_token };
  const own = { disableInstanceDiscovery: true };
  const managed = "ManagedIdentityCredential";
  const chain = "DefaultAzureCredential";
  const federation = "WorkloadIdentityCredential";
  const byClient = [{ clientId: named.client_id }];
  const byObject = [{ objectId: named.object_id }];
  const byResource = [{ resourceId: named.resource_id }];
  const { SERVICE_CONNECTION: connection, SYSTEM_ACCESSTOKEN: access } = hosts.pipelines;
  const pipeline = [tenant, named.client_id, connection, access, own];
  const certificate = [tenant, application.client_id, { certificatePath: files.client_certificate }, own];
  const secret = [tenant, application.client_id, application.secret, own];
  const cases = [
    ["imds, managed identity", hosts.imds, managed, [], vm],
    ["imds, default", hosts.imds, chain, [], vm],
    ["imds, client id", hosts.imds, managed, byClient, named],
    ["imds, object id", hosts.imds, managed, byObject, named],
    ["imds, resource id", hosts.imds, managed, byResource, named],
    ["app service, managed identity", hosts.app_service, managed, [], vm],
    ["app service, default", hosts.app_service, chain, [], vm],
    ["app service, client id", hosts.app_service, managed, byClient, named],
    ["app service, object id", hosts.app_service, managed, byObject, named],
    ["app service, resource id", hosts.app_service, managed, byResource, named],
    ["cloud shell", hosts.cloud_shell, managed, [], administrator],
    ["service fabric", { NODE_EXTRA_CA_CERTS: files.ca, ...hosts.service_fabric }, managed, [], vm],
    ["machine learning", hosts.machine_learning, managed, byClient, named],
    ["workload identity", federated, federation, [own], named],
    ["workload identity, default", federated, chain, [own], named],
    ["azure pipelines", { ...trust, ...hosts.pipelines }, "AzurePipelinesCredential", pipeline, named],
    ["certificate", trust, "ClientCertificateCredential", certificate, application],
    ["secret", trust, "ClientSecretCredential", secret, application],
  ];
  if (hosts.arc) cases.push(["arc", hosts.arc, managed, [], vm]);
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
