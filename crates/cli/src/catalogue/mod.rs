//! All findings: the id, the exit code, the check of `pgentra doctor`, and the section of
//! `docs/errors.md` with cause and remedy.

mod kinds;

use crate::blame::Blame;
use crate::doctor::Check;
use crate::markdown::words;

/// The page that explains every failure, a section each; `pgentra doctor --explain` prints from it.
const PAGE: &str = include_str!("../../docs/errors.md");

/// The prefix of a finding's heading in the page.
#[cfg(test)]
const HEADING: &str = "### ";

macro_rules! findings {
    ($($name:ident $id:literal $check:ident $blame:ident)*) => {
        /// A failure, or a finding of `pgentra doctor`. Its id is stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Finding {
            $(#[doc = $id] $name,)*
        }

        impl Finding {
            /// All findings, in the order of the checks.
            pub(crate) const ALL: &[Finding] = &[$(Finding::$name),*];

            /// The stable name, which is also the anchor in `docs/errors.md`.
            pub(crate) fn id(self) -> &'static str {
                match self { $(Finding::$name => $id),* }
            }

            /// The check that fails with this finding; the checks after it are not reached.
            pub(crate) fn check(self) -> Check {
                match self { $(Finding::$name => Check::$check),* }
            }

            /// The cause, which is the exit code of every command but `doctor`.
            pub(crate) fn blame(self) -> Blame {
                match self { $(Finding::$name => Blame::$blame),* }
            }
        }
    };
}

findings! {
    Usage "usage" Connection Usage
    ConnectionSettings "connection-settings" Connection Usage
    IdentitySettings "identity-settings" Identity Usage
    SourceNone "source-none" Answer Token
    SourceSettings "source-settings" Answer Usage
    SourceProxied "source-proxied" Proxy Token
    SourceUnreachable "source-unreachable" Answer Token
    SourceTimeout "source-timeout" Answer Token
    SourceProxyRefused "source-proxy-refused" Answer Token
    SourceIntercepted "source-intercepted" Answer Token
    TokenThrottled "token-throttled" Token Token
    TokenSourceRestarting "token-source-restarting" Token Token
    TokenSourceFailing "token-source-failing" Token Token
    TokenIdentityUnknown "token-identity-unknown" Token Token
    TokenRefusedByEntra "token-refused-by-entra" Token Token
    TokenRefused "token-refused" Token Token
    TokenBadAnswer "token-bad-answer" Token Token
    TokenAbandoned "token-abandoned" Token Token
    ClaimsAudience "claims-audience" Audience Token
    ClaimsTenant "claims-tenant" Tenant Token
    TokenExpired "token-expired" Time Token
    ClockWrong "clock-wrong" Clock Token
    NameUnresolved "name-unresolved" Name Network
    TcpRefused "tcp-refused" Tcp Network
    TcpUnreachable "tcp-unreachable" Tcp Network
    TcpTimeout "tcp-timeout" Tcp Network
    Timeout "timeout" Tcp Network
    TcpDeadAddress "tcp-dead-address" Addresses Network
    TlsDeclined "tls-declined" Offered Network
    TlsErrorInTheClear "tls-error-in-the-clear" Offered Network
    TlsNotSpoken "tls-not-spoken" Offered Network
    TlsHungUp "tls-hung-up" Offered Network
    TlsTimeout "tls-timeout" Offered Network
    TlsHandshake "tls-handshake" Offered Network
    TlsName "tls-name" Certificate Network
    TlsUnknownIssuer "tls-unknown-issuer" Certificate Network
    TlsValidity "tls-validity" Certificate Network
    TlsCertificate "tls-certificate" Certificate Network
    RefusedNoTls "refused-no-tls" Admitted Server
    RefusedFirewall "refused-firewall" Admitted Server
    TooManyConnections "too-many-connections" Admitted Server
    ServerNotReady "server-not-ready" Admitted Server
    PoolerLimit "pooler-limit" Admitted Server
    Protocol "protocol" Admitted Network
    SignInTimeout "sign-in-timeout" Admitted Network
    RoleNotMapped "role-not-mapped" Method Server
    RefusedExpired "refused-expired" Accepted Server
    RefusedAudience "refused-audience" Accepted Server
    RefusedFormat "refused-format" Accepted Server
    RefusedValidation "refused-validation" Accepted Server
    RefusedNoObjectId "refused-no-object-id" Accepted Server
    RefusedOther "refused-other" Accepted Server
    RoleOfAnotherIdentity "role-of-another-identity" Owned Server
    RoleForService "role-for-service" Owned Server
    RoleForUser "role-for-user" Owned Server
    RoleGroup "role-group" Owned Server
    RoleNoLogin "role-no-login" Login Server
    RoleNoReplication "role-no-replication" Login Server
    RoleMappingDiffers "role-mapping-differs" Mapping Server
    DatabaseMissing "database-missing" Exists Server
    DatabaseForbidden "database-forbidden" Connect Server
    StatementRefused "statement-refused" Query Server
    ConnectionLost "connection-lost" Query Network
    AzureNotFound "azure-not-found" Query Usage
    AzureAmbiguous "azure-ambiguous" Query Usage
    AzureForbidden "azure-forbidden" Query Server
    AzureConflict "azure-conflict" Query Server
    AzureThrottled "azure-throttled" Query Server
    AzureStillRunning "azure-still-running" Query Server
    AzureRefused "azure-refused" Query Server
    RolesNotEntra "roles-not-entra" Query Server
    RolesNotAdministrator "roles-not-administrator" Query Server
    ThisMachine "this-machine" Query Ours
    GatewaySettings "gateway-settings" GatewaySettings Usage
    GatewayKeys "gateway-keys" SigningKeys Network
    GatewayUpstreamUnreachable "gateway-upstream-unreachable" GatewaySignIn Network
    GatewaySignIn "gateway-sign-in" GatewaySignIn Server
    GatewayMapping "gateway-mapping" RoleMapping Server
    GatewayToken "gateway-token" TokenJudged Server
}

impl Finding {
    /// Whether the page says more than a message can.
    pub(crate) fn is_worth_reading(self) -> bool {
        !matches!(self, Finding::Usage | Finding::ThisMachine)
    }

    /// The finding with this id.
    pub(crate) fn named(id: &str) -> Option<Finding> {
        Finding::ALL.iter().copied().find(|finding| finding.id() == id)
    }

    /// The section of the page, without the heading.
    pub(crate) fn section(self) -> &'static str {
        let mut sections = PAGE.split("\n### ").skip(1);
        let section = sections.find_map(|section| section.strip_prefix(self.id())?.strip_prefix('\n'));
        // The next heading of a higher level ends the section.
        let section = section.and_then(|section| section.split("\n## ").next());
        section.unwrap_or_default().trim()
    }

    /// The commands in the section.
    fn commands(self) -> impl Iterator<Item = &'static str> {
        self.section().lines().filter_map(|line| line.strip_prefix("$ "))
    }

    /// The next step, for errors without their own hint: the first command of the section that
    /// needs no replacement of example names; else where to read the commands.
    pub(crate) fn hint(self) -> String {
        match self.commands().find(|command| !has_example(command)) {
            Some(command) => format!("try: {command}"),
            None => format!("what to try is in: pgentra doctor --explain {}", self.id()),
        }
    }

    /// The next command: the first of the section that needs no replacement of example names, else
    /// the one that prints the section.
    pub(crate) fn next(self) -> String {
        let command = self.commands().find(|command| !has_example(command));
        command.map_or_else(|| format!("pgentra doctor --explain {}", self.id()), str::to_owned)
    }

    /// The meaning in one line.
    pub(crate) fn summary(self) -> String {
        let cause = self.cause();
        cause.split_once(". ").map_or(cause.clone(), |(first, _)| format!("{first}."))
    }

    /// The meaning in one or two sentences: the first paragraph of the section.
    pub(crate) fn cause(self) -> String {
        words(self.section().split("\n\n").next().unwrap_or_default())
    }
}

/// Whether a command of the page contains an example name.
fn has_example(command: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
    let mut words = command.split(|c| !is_part(c));
    words.any(|word| {
        PLACEHOLDERS.split(' ').any(|one| one == word)
            || EXAMPLES.iter().any(|example| word.contains(example))
    })
}

/// Placeholders in the page for names that the reader has to insert.
const PLACEHOLDERS: &str =
    "GROUP SERVER HOST ROLE ADDRESS ZONE VM APP NAME IDENTITY CLIENT_ID OBJECT_ID RESOURCE_ID NSG";

/// Parts of the page's example names.
const EXAMPLES: [&str; 5] = ["my-", "my.postgres", "contoso.com", "example.com", "00000000-"];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The page has exactly one section for each finding.
    #[test]
    fn the_page_explains_all_of_them_and_nothing_else() {
        for finding in Finding::ALL {
            let id = finding.id();
            assert!(!finding.cause().is_empty(), "docs/errors.md has no section {id}");
            assert!(finding.section().contains("\n\n"), "docs/errors.md says nothing but a sentence of {id}");
            assert_ne!(finding.commands().count(), 0, "docs/errors.md has no command for {id}");
            assert!(!has_example(&finding.hint().replace(id, "")), "{}", finding.hint());
            assert!(!finding.hint().contains("unset"), "{}", finding.hint());
            assert_eq!(Finding::named(id), Some(*finding));
        }
        let headings: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix(HEADING)).collect();
        let ids: Vec<_> = Finding::ALL.iter().map(|finding| finding.id()).collect();
        let orphans: Vec<_> = headings.iter().filter(|heading| !ids.contains(heading)).collect();
        assert!(orphans.is_empty(), "docs/errors.md explains what does not exist: {orphans:?}");
        assert_eq!(headings.len(), headings.iter().collect::<HashSet<_>>().len(), "a section twice");
    }
}
