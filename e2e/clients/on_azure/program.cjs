// The program of the article, as it is deployed on Azure: nothing in it knows of a local cloud.
//
// Usage: node program.cjs ROLE    prints the role that it is. NODE_PATH has the folder of the packages.
const { DefaultAzureCredential } = require("@azure/identity");
const { Client } = require("pg");

async function main() {
  const credential = new DefaultAzureCredential();
  const { token } = await credential.getToken("https://ossrdbms-aad.database.windows.net/.default");
  const client = new Client({
    host: "mydemoserver.postgres.database.azure.com",
    database: "postgres",
    user: process.argv[2],
    password: token,
    ssl: true,
  });
  await client.connect();
  const { rows } = await client.query("SELECT current_user");
  console.log(rows[0].current_user);
  await client.end();
}

main();
