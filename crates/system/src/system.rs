use std::net::SocketAddr;
use std::sync::Arc;

use crate::http::HttpClient;
use crate::{Accounts, Clock, Env, Files, Processes, SystemClock};

/// Everything a credential can see of the machine: environment, files, user accounts, clock, HTTP, programs. Cheap to clone.
///
/// [`System::real`] is the machine. [`System::builder`] begins with an empty one: no variable, no file, no program.
#[derive(Debug, Clone)]
pub struct System {
    env: Env,
    files: Files,
    accounts: Accounts,
    clock: Arc<dyn Clock>,
    http: HttpClient,
    processes: Processes,
}

impl System {
    /// This process on this machine. Nothing is read yet.
    pub fn real() -> Self {
        Self::builder()
            .env(Env::real())
            .files(Files::real())
            .accounts(Accounts::real())
            .processes(Processes::real())
            .build()
    }

    /// Builds a system from parts, for tests.
    pub fn builder() -> SystemBuilder {
        SystemBuilder {
            env: Env::from_map::<String, String>([]),
            files: Files::in_memory(),
            accounts: Accounts::from_map::<String>([]),
            clock: Arc::new(SystemClock),
            http: None,
            processes: Processes::none(),
            routes: Vec::new(),
        }
    }

    /// The environment variables that token sources read.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The file system that token sources read.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The user accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The clock that expiry times are compared with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The HTTP client that all token requests use.
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// The programs, such as `az`, that token sources run.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The same system with another HTTP client, such as a client that trusts further roots.
    #[must_use]
    pub fn with_http(mut self, http: HttpClient) -> System {
        self.http = http;
        self
    }
}

/// Puts a [`System`] together. Defaults: no variable, no file, no user account, no program, the system's clock, HTTP as those variables and files say.
#[derive(Debug)]
pub struct SystemBuilder {
    env: Env,
    files: Files,
    accounts: Accounts,
    clock: Arc<dyn Clock>,
    http: Option<HttpClient>,
    processes: Processes,
    routes: Vec<(String, u16, SocketAddr)>,
}

impl SystemBuilder {
    /// Sets the environment variables. Default: none.
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Sets the file system. Default: in memory, without files.
    pub fn files(mut self, files: Files) -> Self {
        self.files = files;
        self
    }

    /// Sets the user accounts. Default: none.
    pub fn accounts(mut self, accounts: Accounts) -> Self {
        self.accounts = accounts;
        self
    }

    /// Sets the clock. Default: the clock of this machine.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how programs are run. Default: no program is installed.
    pub fn processes(mut self, processes: Processes) -> Self {
        self.processes = processes;
        self
    }

    /// An HTTP client of one's own, with other roots for example. Default: one that takes proxies and roots from the
    /// system's variables and files.
    pub fn http(mut self, http: HttpClient) -> Self {
        self.http = Some(http);
        self
    }

    /// Dials `address` whenever a URL names this host and port, such as 169.254.169.254 and 80.
    pub fn route(mut self, host: &str, port: u16, address: SocketAddr) -> Self {
        self.routes.push((host.to_owned(), port, address));
        self
    }

    /// Builds the [`System`] and adds the routes to its HTTP client.
    pub fn build(self) -> System {
        let mut http = self.http.unwrap_or_else(|| HttpClient::new(&self.env, &self.files));
        for (host, port, address) in self.routes {
            http = http.with_route(&host, port, address);
        }
        System {
            env: self.env,
            files: self.files,
            accounts: self.accounts,
            clock: self.clock,
            http,
            processes: self.processes,
        }
    }
}
