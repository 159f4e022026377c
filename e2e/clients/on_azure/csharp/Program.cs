// The program of the article, as it is deployed on Azure: nothing in it knows of a local cloud.
//
// Untested: written against the documentation of Azure.Identity and Npgsql, without a .NET SDK.
// Usage: dotnet run -- ROLE    prints the role that it is.
using System;
using Azure.Core;
using Azure.Identity;
using Npgsql;

var credential = new DefaultAzureCredential();
var request = new TokenRequestContext(new[] { "https://ossrdbms-aad.database.windows.net/.default" });
AccessToken token = await credential.GetTokenAsync(request);
var settings = new NpgsqlConnectionStringBuilder
{
    Host = "mydemoserver.postgres.database.azure.com",
    Database = "postgres",
    Username = args[0],
    Password = token.Token,
    SslMode = SslMode.VerifyFull,
};
await using var source = NpgsqlDataSource.Create(settings);
await using var command = source.CreateCommand("SELECT current_user");
Console.WriteLine(await command.ExecuteScalarAsync());
