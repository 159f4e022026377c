//! `pgentra quickstart`: the article "Connect with Managed Identity to Azure Database for PostgreSQL", start to end.

use pgentra_local::control::Control;
use pgentra_local::{Flavour, Host, LocalCloud, SERVER_NAME, Status, folder_of};
use pgentra_system::System;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::local::arguments::Quickstart;
use crate::local::command_line::{command, entry};
use crate::local::up;
use crate::options::Format;
use crate::output;
use crate::platform::stop_signal;
use crate::problem::{Outcome, Problem};
use crate::progress::Progress;
use crate::sql;
use crate::text::{Text, bold, coloured, command as to_copy, text, verbatim};

/// The role that the article creates.
const ROLE: &str = "myuser";

/// The name of the local cloud that is kept.
const KEPT: &str = "quickstart";

/// Runs the article on its own local cloud, which is removed at the end, or kept until it is told to
/// stop.
pub(crate) async fn run(system: &System, arguments: Quickstart) -> Outcome {
    let stop = stop_signal()?;
    let name = match arguments.keep {
        true => KEPT.to_owned(),
        false => format!("{KEPT}-{}", std::process::id()),
    };
    up::check_free(&folder_of(system.env(), &name), &name, "").await?;
    let progress = Progress::new();
    let start = LocalCloud::builder()
        .system(system)
        .name(&name)
        .flavour(arguments.database.flavour)
        .postgres(arguments.database.postgres.clone())
        .progress(|step| progress.show(step))
        .start();
    let cloud = tokio::select! {
        () = stop.cancelled() => Err(interrupted()),
        started = start => started.map_err(Problem::from),
    };
    let played = match cloud {
        Ok(cloud) => {
            let mut article = Article {
                cloud: &cloud,
                progress: &progress,
                format: arguments.output.output,
                steps: Vec::new(),
            };
            let played = tokio::select! {
                () = stop.cancelled() => Err(interrupted()),
                played = article.play() => played,
            };
            let steps = article.steps;
            match played {
                Ok(version) if arguments.keep => {
                    return keep(system, (cloud, &version), &progress, &stop).await;
                }
                played => {
                    cloud.stop().await;
                    played.map(|version| Played { steps, version })
                }
            }
        }
        Err(problem) => Err(problem),
    };
    progress.clear();
    let played = played?;
    match arguments.output.output {
        Format::Json => output::json(&played),
        Format::Text => {
            connected(&played.version)?;
            output::say(text![
                "\nEverything this made is gone again; --keep keeps it. Next: ",
                to_copy("pgentra local up"),
                ", or on an Azure host: ",
                to_copy("pgentra token"),
            ]);
            Ok(())
        }
    }
}

/// What the article's example application prints.
fn connected(version: &str) -> Outcome {
    let version = format!("\n\nPostgres version: {version}\n");
    output::result(text!["\n", coloured("1;32", "Connected!"), version])
}

/// Says how the cloud of the article is used, and runs it until it is told to stop.
async fn keep(
    system: &System,
    (mut cloud, version): (LocalCloud, &str),
    progress: &Progress,
    stop: &CancellationToken,
) -> Outcome {
    progress.show("creating a role for each identity");
    let ready = match cloud.create_roles().await {
        Ok(()) => Control::bind(&folder_of(system.env(), cloud.name())).map_err(Problem::from),
        Err(error) => Err(Problem::from(error)),
    };
    progress.clear();
    let control = match ready {
        Ok(control) => control,
        Err(problem) => {
            cloud.stop().await;
            return Err(problem);
        }
    };
    connected(version)?;
    output::say(text![
        "\nIt keeps running; in another terminal: ",
        to_copy(&entry(KEPT)),
        "\nCtrl-C or `",
        to_copy(&command("down", KEPT)),
        "` stops it",
    ]);
    let description = Status::of(&cloud);
    up::serve(cloud, control, &description, stop).await
}

/// The document of `-o json`.
#[derive(Serialize)]
struct Played {
    steps: Vec<ArticleStep>,
    version: String,
}

/// A step of the article.
#[derive(Serialize)]
struct ArticleStep {
    title: &'static str,
    /// The prompt at which the command is typed.
    #[serde(skip)]
    prompt: &'static str,
    /// The command of the step.
    command: String,
    /// The result of the step.
    result: String,
}

/// The shell's prompt.
const SHELL: &str = "$";
/// psql's prompt.
const SQL: &str = "postgres=>";

/// A run of the article.
struct Article<'a> {
    cloud: &'a LocalCloud,
    progress: &'a Progress,
    format: Format,
    steps: Vec<ArticleStep>,
}

impl Article<'_> {
    /// Runs every step; returns the result of `SELECT version()`.
    async fn play(&mut self) -> Outcome<String> {
        let cloud = self.cloud;
        let vm = cloud.azure().vm();
        self.step(ArticleStep {
            title: "A local cloud: metadata service, Entra tenant, PostgreSQL that checks tokens",
            prompt: SHELL,
            command: match cloud.flavour() {
                Flavour::Flexible => "pgentra local up".to_owned(),
                flavour => format!("pgentra local up --flavour {flavour}"),
            },
            result: format!(
                "PostgreSQL {} on localhost:{}, behaving as {} server",
                cloud.postgres_version(),
                cloud.postgres_addr().port(),
                cloud.flavour()
            ),
        });
        self.step(ArticleStep {
            title: "The VM has a managed identity",
            prompt: SHELL,
            command: format!(
                "az vm identity assign -g myResourceGroup -n {0}\npgentra identity assign --vm {0} -g myResourceGroup",
                vm.name()
            ),
            result: format!("the local VM came with one: object id {}", vm.object_id()),
        });
        self.step(ArticleStep {
            title: "Its application id",
            prompt: SHELL,
            command: format!(
                "az ad sp list --display-name {0} --query '[*].appId' --out tsv\npgentra identity find {0}",
                vm.name()
            ),
            result: vm.client_id().to_string(),
        });
        self.create_role().await?;
        self.token().await?;
        self.connect().await
    }

    /// The Entra administrator creates the database role.
    async fn create_role(&mut self) -> Outcome {
        let vm = self.cloud.azure().vm();
        let sql = self.cloud.role_statements(ROLE, vm.object_id(), vm.client_id());
        self.progress.show("creating the database role, as the Entra administrator");
        let connector = self.cloud.connector(Host::Admin, &[])?;
        let session = connector.connect().await?;
        let mut said = None;
        for statement in &sql {
            let results = sql::results(&session, statement).await?;
            said = results.first().and_then(|result| result.value()).map(str::to_owned).or(said);
        }
        session.close().await?;
        let result = said.unwrap_or_else(|| format!("role {ROLE} created"));
        self.step(ArticleStep {
            title: "A database role for it, created by the Entra administrator",
            prompt: SQL,
            command: sql.join("\n"),
            result,
        });
        Ok(())
    }

    /// The VM gets a token from its metadata service.
    async fn token(&mut self) -> Outcome {
        self.progress.show("getting an access token from the metadata service");
        let (credential, resource) = self.cloud.credential(Host::Vm)?;
        let token = credential.token(&resource).await?;
        let life = token.expires_on().duration_since(self.cloud.clock().now()).unwrap_or_default().as_secs();
        let command = format!(
            "curl '{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fossrdbms-aad.database.windows.net&client_id={}' -H Metadata:true | jq -r .access_token\npgentra token",
            "http://169.254.169.254",
            self.cloud.azure().vm().client_id(),
        );
        let result =
            format!("a token from {}, good for {} h {} min", token.source(), life / 3600, life % 3600 / 60);
        self.step(ArticleStep {
            title: "An access token, with no password anywhere",
            prompt: SHELL,
            command,
            result,
        });
        Ok(())
    }

    /// The example application: sign in with the token, ask for the version.
    async fn connect(&mut self) -> Outcome<String> {
        self.progress.show("signing in with the token as the password");
        let user = match self.cloud.flavour() {
            Flavour::Single => format!("{ROLE}@{SERVER_NAME}"),
            _ => ROLE.to_owned(),
        };
        let connector = self.cloud.connector(Host::Vm, &[("user", user.clone())])?;
        let session = connector.connect().await?;
        let results = sql::results(&session, "SELECT version()").await?;
        let version = results.first().and_then(|result| result.value()).unwrap_or_default().to_owned();
        session.close().await?;
        self.step(ArticleStep {
            title: "Connect with the token as the password",
            prompt: SHELL,
            command: format!(
                "PGPASSWORD=$(pgentra token) psql -h localhost -p {port} --user {user} postgres\npgentra query -h localhost -p {port} -U {user} -d postgres -c 'SELECT version()'",
                port = self.cloud.postgres_addr().port(),
            ),
            result: "signed in over TLS, certificate and name verified".to_owned(),
        });
        Ok(version)
    }

    fn step(&mut self, step: ArticleStep) {
        if self.format == Format::Text {
            let ArticleStep { title, prompt, command, result } = &step;
            let line = |line| text![verbatim(&format!("   {prompt} ")), to_copy(line), "\n"];
            let lines: Text = command.lines().map(line).collect();
            let title = bold(&format!("{}. {title}", self.steps.len() + 1));
            self.progress.say(text![title, "\n", lines, format!("   {result}\n")]);
        }
        self.steps.push(step);
    }
}

fn interrupted() -> Problem {
    Problem::ours("interrupted", std::io::Error::from(std::io::ErrorKind::Interrupted))
        .hint("nothing is left behind")
}
