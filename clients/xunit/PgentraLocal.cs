// Untested: written against the documented JSON, without a .NET SDK.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Text.Json;
using System.Threading.Tasks;
using Xunit;

/// <summary>Starts `pgentra local up` for a test class: public class MyTests : IClassFixture&lt;PgentraLocal&gt;</summary>
public sealed class PgentraLocal : IAsyncLifetime
{
    private Process? process;
    private JsonDocument? document;

    public async Task InitializeAsync()
    {
        var start = new ProcessStartInfo("pgentra") { RedirectStandardOutput = true };
        foreach (var word in new[] { "local", "up", "-o", "json", "--name", $"xunit-{Environment.ProcessId}" })
            start.ArgumentList.Add(word);
        process = Process.Start(start)!;
        var line = await process.StandardOutput.ReadLineAsync();
        document = JsonDocument.Parse(line ?? throw new InvalidOperationException("the local cloud did not start"));
    }

    /// <summary>The variables of a host, such as "vm" or "aks".</summary>
    public IReadOnlyDictionary<string, string> Variables(string host)
    {
        var variables = document!.RootElement.GetProperty("environments").GetProperty(host).Deserialize<Dictionary<string, string>>()!;
        var own = Environment.GetEnvironmentVariable("JAVA_TOOL_OPTIONS");
        variables["JAVA_TOOL_OPTIONS"] = $"{own} {variables["JAVA_TOOL_OPTIONS"]}".Trim();
        return variables;
    }

    public async Task DisposeAsync()
    {
        using var down = Process.Start("pgentra", $"local down --name xunit-{Environment.ProcessId}");
        await down.WaitForExitAsync();
        await process!.WaitForExitAsync();
    }
}
