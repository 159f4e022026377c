//! The checks as data, in the order of the sign-in.

/// A part of the sign-in, from the command line to the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Link {
    Configuration,
    Source,
    Token,
    Claims,
    Dns,
    Tcp,
    Tls,
    Authentication,
    Role,
    Database,
    Query,
    Issuer,
    Upstream,
    Mapping,
}

impl Link {
    /// The name in a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Link::Configuration => "configuration",
            Link::Source => "source",
            Link::Token => "token",
            Link::Claims => "claims",
            Link::Dns => "dns",
            Link::Tcp => "tcp",
            Link::Tls => "tls",
            Link::Authentication => "authentication",
            Link::Role => "role",
            Link::Database => "database",
            Link::Query => "query",
            Link::Issuer => "issuer",
            Link::Upstream => "upstream",
            Link::Mapping => "mapping",
        }
    }
}

/// The effect of a check that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckSeverity {
    /// No sign-in is possible, and the checks after it are not reached.
    Fatal,
    /// Unusual, and may be the cause of another failure.
    Warning,
}

macro_rules! checks {
    ($($list:ident: $about:literal { $($name:ident $link:ident $id:literal $severity:ident $proves:literal)* })*) => {
        /// A condition that must hold for a sign-in to succeed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Check {
            $($(#[doc = $proves] $name,)*)*
        }

        impl Check {
            $(#[doc = $about] pub(crate) const $list: &[Check] = &[$(Check::$name),*];)*

            /// The stable id: the link and the condition.
            pub(crate) fn id(self) -> &'static str {
                match self { $($(Check::$name => $id,)*)* }
            }

            /// The link that the check belongs to.
            pub(crate) fn link(self) -> Link {
                match self { $($(Check::$name => Link::$link,)*)* }
            }

            /// The effect if the check fails.
            pub(crate) fn severity(self) -> CheckSeverity {
                match self { $($(Check::$name => CheckSeverity::$severity,)*)* }
            }

            /// What a passed check proves.
            pub(crate) fn proves(self) -> &'static str {
                match self { $($(Check::$name => $proves,)*)* }
            }
        }
    };
}

checks! {
SIGN_IN: "The checks of a sign-in, in order." {
    Connection Configuration "configuration.connection" Fatal "server, role and database are named, and the connection is one that a token may be sent over"
    Identity Configuration "configuration.identity" Fatal "the identity, the cloud and the resource that are asked for fit together"
    Source Source "source.choice" Fatal "it is known which token sources are asked, and why"
    Proxy Source "source.proxy" Warning "no proxy stands between programs on this machine and their token source"
    Answer Source "source.answer" Fatal "a token source applies here, can be reached, and is what it seems to be"
    Token Token "token.obtained" Fatal "the token source gives a token"
    Form Claims "claims.form" Warning "the token is one that can be read"
    Audience Claims "claims.audience" Fatal "the token is for PostgreSQL, in the cloud of the server"
    Tenant Claims "claims.tenant" Warning "the token is of the tenant that was named"
    Time Claims "claims.time" Fatal "the token has not ended"
    Clock Claims "claims.clock" Warning "this machine's clock agrees with the token source's"
    Owner Claims "claims.identity" Warning "the token says whose it is"
    Name Dns "dns.name" Fatal "the server's name has an address"
    Tcp Tcp "tcp.connect" Fatal "the server's port can be reached"
    Addresses Tcp "tcp.addresses" Warning "no address of the server stays silent"
    Offered Tls "tls.offered" Fatal "the server speaks TLS"
    Certificate Tls "tls.certificate" Fatal "the server is who it should be: chain, name and validity of its certificate"
    Admitted Authentication "authentication.admitted" Fatal "the server lets this machine in and has room"
    Method Authentication "authentication.method" Fatal "the server asks for a token: the role is mapped to Entra"
    Accepted Authentication "authentication.token" Fatal "the server accepts the token"
    Owned Role "role.identity" Fatal "the role belongs to the identity of the token"
    Login Role "role.login" Fatal "the role may log in"
    Mapping Role "role.mapping" Warning "the role's mapping names the identity of the token"
    Exists Database "database.exists" Fatal "the database exists"
    Connect Database "database.connect" Fatal "the role may connect to the database"
    Query Query "query.result" Fatal "a query has a result"
}
GATEWAY: "The checks of a gateway from its operator's side, in order." {
    GatewaySettings Configuration "configuration.gateway" Fatal "the configuration of the gateway and the files that it names are valid"
    SigningKeys Issuer "issuer.keys" Fatal "the issuer is reachable, and its signing keys are fresh"
    GatewaySignIn Upstream "upstream.sign-in" Fatal "every server is reachable, and the gateway signs in there as its own role"
    RoleMapping Mapping "mapping.read" Fatal "the mapping of roles to principals can be read"
    TokenJudged Token "token.judged" Fatal "a client with this token would be signed in as the role"
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_its_link_and_is_the_only_one() {
        let all = [Check::SIGN_IN, Check::GATEWAY].concat();
        for (number, check) in all.iter().enumerate() {
            let (link, what) = check.id().split_once('.').unwrap();
            assert_eq!(link, check.link().name());
            assert!(!what.is_empty());
            assert!(all[..number].iter().all(|other| other.id() != check.id() && other < check));
        }
    }
}
