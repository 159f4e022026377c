//! Every failure there is: what it is called, who is to blame, which check of `pgentra doctor` finds it, the next thing to
//! try, and the section of `docs/errors.md` that explains it.

mod kinds;

use crate::doctor::Check;
use crate::problem::Blame;

/// The page that explains every failure, a section each; `pgentra doctor --explain` prints from it.
const PAGE: &str = include_str!("../../../../docs/errors.md");

/// What stands before the name of a failure in the page.
#[cfg(test)]
const HEADING: &str = "### ";

macro_rules! findings {
    ($($name:ident $id:literal $check:ident $blame:ident $hint:literal)*) => {
        /// A failure, or what `pgentra doctor` finds. Its id is stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Finding {
            $(#[doc = $id] $name,)*
        }

        impl Finding {
            /// All of them, in the order of the chain.
            pub(crate) const ALL: &[Finding] = &[$(Finding::$name),*];

            /// The stable name, which is also the anchor in `docs/errors.md`.
            pub(crate) fn id(self) -> &'static str {
                match self { $(Finding::$name => $id),* }
            }

            /// The check that it is a failure of; those after it were not reached.
            pub(crate) fn check(self) -> Check {
                match self { $(Finding::$name => Check::$check),* }
            }

            /// Who is to blame, which is the exit code of every command but `doctor`.
            pub(crate) fn blame(self) -> Blame {
                match self { $(Finding::$name => Blame::$blame),* }
            }

            /// The next thing to try, where the error itself does not know a better one.
            pub(crate) fn hint(self) -> &'static str {
                match self { $(Finding::$name => $hint),* }
            }
        }
    };
}

findings! {
    Usage "usage" Connection Usage
        "pgentra --help, and --help behind every command, name what can be given"
    ConnectionSettings "connection-settings" Connection Usage
        "pgentra doctor prints who gave each setting"
    IdentitySettings "identity-settings" Identity Usage
        "pgentra whoami says which identity is asked for, and why"
    SourceNone "source-none" Answer Token
        "on a machine of your own: az login; on Azure give the host an identity, such as: az vm identity assign -g GROUP -n VM"
    SourceSettings "source-settings" Answer Usage
        "is this the right source for this host? Leave --source out to have it detected"
    SourceProxied "source-proxied" Proxy Token
        "export NO_PROXY=169.254.169.254,localhost,127.0.0.1"
    SourceUnreachable "source-unreachable" Answer Token
        "curl -s -H Metadata:true 'http://169.254.169.254/metadata/instance?api-version=2021-02-01' answers on every Azure VM"
    SourceTimeout "source-timeout" Answer Token
        "give it more time with --token-timeout; a metadata service that restarts may need 70 seconds"
    SourceProxyRefused "source-proxy-refused" Answer Token
        "let the proxy through to login.microsoftonline.com:443, or name the host in NO_PROXY"
    SourceStranger "source-stranger" Answer Token
        "look at what answers: curl -i -H Metadata:true 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'"
    TokenThrottled "token-throttled" Token Token
        "share one process or one token among the programs on this machine: pgentra proxy"
    TokenSourceRestarting "token-source-restarting" Token Token
        "try again in a minute"
    TokenSourceFailing "token-source-failing" Token Token
        "try again in a minute"
    TokenIdentityUnknown "token-identity-unknown" Token Token
        "az vm identity show -g GROUP -n VM lists the identities of a VM; --client-id names one"
    TokenRefusedByEntra "token-refused-by-entra" Token Token
        "the AADSTS code says why"
    TokenRefused "token-refused" Token Token
        "is the identity enabled on this host, and the resource the right one?"
    TokenBadAnswer "token-bad-answer" Token Token
        "look at what the source answers: pgentra token -vv"
    TokenAbandoned "token-abandoned" Token Token
        "try again; if it stays so, it is a fault of pgentra"
    ClaimsAudience "claims-audience" Audience Token
        "leave --resource out and name the server's cloud: --cloud public, usgov or china"
    ClaimsTenant "claims-tenant" Tenant Token
        "a managed identity has the tenant of its subscription: az account show --query tenantId"
    TokenExpired "token-expired" Time Token
        "compare this machine's clock with the true time: timedatectl"
    ClockWrong "clock-wrong" Clock Token
        "timedatectl set-ntp true"
    NameUnresolved "name-unresolved" Name Network
        "is the name spelled right? The name of a server in a private network resolves inside that network only"
    TcpRefused "tcp-refused" Tcp Network
        "is the server running, and are host and port right?"
    TcpUnreachable "tcp-unreachable" Tcp Network
        "is there a route to the server's network from here?"
    TcpTimeout "tcp-timeout" Tcp Network
        "allow this machine's address in the server's firewall rules, or connect from inside its network"
    Timeout "timeout" Tcp Network
        "pgentra doctor tells at which stage"
    TcpDeadAddress "tcp-dead-address" Addresses Network
        "a name should have no address that is not served: look at its records"
    TlsDeclined "tls-declined" Offered Network
        "turn TLS on at the server; Azure has it always, so this may not be the server you mean"
    TlsErrorInTheClear "tls-error-in-the-clear" Offered Network
        "look at the server's log: it may be out of connections, or not be PostgreSQL"
    TlsNotSpoken "tls-not-spoken" Offered Network
        "compare host and port with those of the server"
    TlsHungUp "tls-hung-up" Offered Network
        "is this a PostgreSQL server, and does its firewall let this machine in?"
    TlsTimeout "tls-timeout" Offered Network
        "is this a PostgreSQL server? Give a slow one more time with connect_timeout"
    TlsHandshake "tls-handshake" Offered Network
        "the server must speak TLS 1.2 or 1.3; look at its log"
    TlsName "tls-name" Certificate Network
        "use the name that the certificate is for"
    TlsUnknownIssuer "tls-unknown-issuer" Certificate Network
        "for a private authority name its certificate with sslrootcert=FILE; else somebody may be in between"
    TlsValidity "tls-validity" Certificate Network
        "compare this machine's clock; else the server needs a new certificate"
    TlsCertificate "tls-certificate" Certificate Network
        "the server needs another certificate"
    RefusedNoTls "refused-no-tls" Admitted Server
        "something between here and the server takes the TLS away: connect to the server itself"
    RefusedFirewall "refused-firewall" Admitted Server
        "allow this machine's address in the server's firewall rules"
    TooManyConnections "too-many-connections" Admitted Server
        "wait for a connection to end, or put a pooler in front of the server"
    ServerNotReady "server-not-ready" Admitted Server
        "try again in a few seconds"
    PoolerLimit "pooler-limit" Admitted Server
        "use the server's own port, 5432"
    Protocol "protocol" Admitted Network
        "look at the server's log; a pooler or proxy in between may not take a token of this length"
    SignInTimeout "sign-in-timeout" Admitted Network
        "look at the server's log; give a slow server more time with connect_timeout"
    RoleNotMapped "role-not-mapped" Method Server
        "map the role to the identity, as an Entra administrator in database postgres: pgaadauth_create_principal_with_oid"
    RefusedExpired "refused-expired" Accepted Server
        "compare this machine's clock with the server's; a token is refused at its end"
    RefusedAudience "refused-audience" Accepted Server
        "name the server's cloud with --cloud, or its resource with --resource"
    RefusedFormat "refused-format" Accepted Server
        "look at what the token source answers: pgentra token --decode"
    RefusedValidation "refused-validation" Accepted Server
        "is the server in the tenant of the identity, and is Microsoft Entra authentication enabled on it?"
    RefusedNoObjectId "refused-no-object-id" Accepted Server
        "look at what the token source answers: pgentra token --decode"
    RefusedOther "refused-other" Accepted Server
        "the server's words say why; its log says more"
    RoleOfAnotherIdentity "role-of-another-identity" Owned Server
        "as an Entra administrator, in database postgres: SELECT * FROM pgaadauth_list_principals(false)"
    RoleForService "role-for-service" Owned Server
        "sign in with the managed identity (--source, --client-id), or as your own role"
    RoleForUser "role-for-user" Owned Server
        "name the identity's role with -U"
    RoleGroup "role-group" Owned Server
        "is the identity a member of the group? New memberships appear in new tokens only"
    RoleNoLogin "role-no-login" Login Server
        "as an administrator: ALTER ROLE \"ROLE\" LOGIN"
    RoleMappingDiffers "role-mapping-differs" Mapping Server
        "a pooler in between may have signed in as somebody else: use the server's own port, 5432"
    DatabaseMissing "database-missing" Exists Server
        "name a database with -d, such as postgres"
    DatabaseForbidden "database-forbidden" Connect Server
        "as an administrator: GRANT CONNECT ON DATABASE \"DATABASE\" TO \"ROLE\""
    StatementRefused "statement-refused" Query Server
        "the server's words say why"
    ConnectionLost "connection-lost" Query Network
        "try again, or look at the server's log"
    ThisMachine "this-machine" Query Ours
        "-vv says more"
}

impl Finding {
    /// The failure that a plain blame stands for.
    pub(crate) fn of_blame(blame: Blame) -> Finding {
        match blame {
            Blame::Ours | Blame::Check => Finding::ThisMachine,
            Blame::Usage => Finding::Usage,
            Blame::Token => Finding::TokenBadAnswer,
            Blame::Network => Finding::ConnectionLost,
            Blame::Server => Finding::StatementRefused,
        }
    }

    /// Whether the page says more than a message can.
    pub(crate) fn is_worth_reading(self) -> bool {
        !matches!(self, Finding::Usage | Finding::ThisMachine | Finding::StatementRefused)
    }

    /// The failure of this name.
    pub(crate) fn named(id: &str) -> Option<Finding> {
        Finding::ALL.iter().copied().find(|finding| finding.id() == id)
    }

    /// Its section of the page, without the heading.
    pub(crate) fn section(self) -> &'static str {
        let mut sections = PAGE.split("\n### ").skip(1);
        let section = sections.find_map(|section| section.strip_prefix(self.id())?.strip_prefix('\n'));
        // The next heading of a higher level belongs to what follows.
        let section = section.and_then(|section| section.split("\n## ").next());
        section.unwrap_or_default().trim()
    }

    /// What it means, in a sentence or two: the first paragraph of its section.
    pub(crate) fn cause(self) -> String {
        self.section().split("\n\n").next().unwrap_or_default().replace('\n', " ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The page has a section for each, and none for what does not exist.
    #[test]
    fn the_page_explains_all_of_them_and_nothing_else() {
        for finding in Finding::ALL {
            let id = finding.id();
            assert!(!finding.cause().is_empty(), "docs/errors.md has no section {id}");
            assert!(finding.section().contains("\n\n"), "docs/errors.md says nothing but a sentence of {id}");
            assert!(!finding.hint().is_empty(), "{id}");
            assert_eq!(Finding::named(id), Some(*finding));
        }
        let headings: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix(HEADING)).collect();
        let ids: Vec<_> = Finding::ALL.iter().map(|finding| finding.id()).collect();
        let orphans: Vec<_> = headings.iter().filter(|heading| !ids.contains(heading)).collect();
        assert!(orphans.is_empty(), "docs/errors.md explains what does not exist: {orphans:?}");
        assert_eq!(headings.len(), headings.iter().collect::<HashSet<_>>().len(), "a section twice");
    }

    #[test]
    fn a_blame_and_its_failure_agree() {
        for blame in [Blame::Ours, Blame::Usage, Blame::Token, Blame::Network, Blame::Server] {
            assert_eq!(Finding::of_blame(blame).blame(), blame);
        }
    }
}
