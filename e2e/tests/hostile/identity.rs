//! Start-up parameters that try to make one role pass for another.

use crate::papers::Papers;
use crate::stage::{Door, LONG, Stage};
use crate::wire::{Stream, TERMINATE, Talk, V3, message, packet, query, send, start, start_as};

const AREA: &str = "identity";
/// What a session answers that is the machine's.
const OWN: &str = "R0 ZI T D[myVm,myVm,postgres] C ZI .";

/// Names that the map does not have.
fn mapped(stage: &Stage<'_>) {
    let one_more = format!("{LONG}x");
    for (name, user) in [
        ("the role behind the map", "myVm"),
        ("in capitals", "APP"),
        ("with a space behind", "app "),
        ("with a space in front", " app"),
        ("with a tab", "app\t"),
        ("with a line feed", "app\n"),
        ("with a zero-width space", "app\u{200b}"),
        ("with a soft hyphen", "a\u{ad}pp"),
        ("full width", "ａｐｐ"),
        ("Cyrillic", "арр"),
        ("combining", "app\u{301}"),
        ("in quotes", "\"app\""),
        ("with a tenant", "app@contoso.onmicrosoft.com"),
        ("with a server", "app@my-server"),
        ("a list", "app,myVm"),
        ("two words", "app myVm"),
        ("what PostgreSQL would cut to a name of the map", one_more.as_str()),
        ("all of them", "*"),
        ("a pattern", "/^app$"),
        ("a group", "+app"),
    ] {
        let got = stage.identity(Door::Mapped, &[("user", user), ("database", "postgres")]);
        stage.answered(AREA, &format!("a mapped name, {name}"), &got, "E28000 .");
    }
    for (name, user) in [("the longest", LONG), ("with a space inside", "with space")] {
        let got = stage.identity(Door::Mapped, &[("user", user), ("database", "postgres")]);
        stage.answered(AREA, &format!("a mapped name, {name}"), &got, OWN);
    }
    let got = stage.identity(Door::Mapped, &[("user", "app")]);
    stage.answered(AREA, "a mapped name without a database", &got, "E3D000 .");
    let got = stage.identity(Door::Mapped, &[("user", "app"), ("database", "")]);
    stage.answered(AREA, "a mapped name with an empty database", &got, "E3D000 .");
    let replicates = [("user", "app"), ("database", "postgres"), ("replication", "database")];
    stage.answered(
        AREA,
        "a mapped name that replicates",
        &stage.identity(Door::Mapped, &replicates),
        "E42501 .",
    );
    let body = b"user\0app\xff\0database\0postgres\0\0";
    let got = Talk::of(stage.connect(Door::Mapped), &[send(packet(V3, body))]);
    stage.answered(AREA, "a mapped name that is no text", &got, "E28000 .");
}

/// The target's role and database, and no others.
fn named(stage: &Stage<'_>) {
    for (name, user, database) in [
        ("another case of the role", "myvm", "postgres"),
        ("another case of the database", "myVm", "POSTGRES"),
        ("another database", "myVm", "template1"),
        ("a database with a space", "myVm", "postgres "),
        ("a database in quotes", "myVm", "\"postgres\""),
        ("a database of a URI", "myVm", "postgresql://localhost/postgres"),
        ("the database for the role", "postgres", "postgres"),
        ("the role for the database", "myVm", "myVm"),
    ] {
        let got = stage.identity(Door::Named, &[("user", user), ("database", database)]);
        stage.answered(AREA, &format!("a named target, {name}"), &got, "E28000 .");
    }
    for (name, parameters, expected) in [
        ("no database", &[("user", "myVm")][..], OWN),
        ("an empty database", &[("user", "myVm"), ("database", "")], OWN),
        ("dbname for database", &[("user", "myVm"), ("dbname", "template1")], "E42704 ."),
        ("host among the parameters", &[("user", "myVm"), ("host", "evil.example")], "E42704 ."),
        ("a password among the parameters", &[("user", "myVm"), ("password", "x")], "E42704 ."),
        ("sslmode among the parameters", &[("user", "myVm"), ("sslmode", "disable")], "E42704 ."),
    ] {
        stage.answered(
            AREA,
            &format!("a named target, {name}"),
            &stage.identity(Door::Named, parameters),
            expected,
        );
    }
    for (name, user, database) in [
        ("another role", "postgres", "postgres"),
        ("another database", "myVm", "template1"),
        ("a name of quotes", "\"'; DROP ROLE x --", "'\"\n"),
        ("names of kilobytes", &"u".repeat(3000), &"d".repeat(3000)),
    ] {
        let got = stage.identity(Door::Pinned, &[("user", user), ("database", database)]);
        stage.answered(AREA, &format!("a pinned target, {name}"), &got, OWN);
    }
    for (name, options) in [
        ("the role of an administrator", "-c role=azure_pg_admin"),
        ("a superuser's role", "-c role=postgres"),
        ("a superuser's role, escaped", "-c\\ role=postgres"),
        ("a superuser's role, spelt out", "--role=postgres"),
        ("a superuser's session", "--session-authorization=postgres"),
        ("the mark of a superuser", "--is-superuser=on"),
    ] {
        let parameters = [("user", "myVm"), ("options", options)];
        let got = stage.identity(Door::Pinned, &parameters);
        stage.answered(
            AREA,
            &format!("a pinned target, {name}"),
            &got,
            "E22023 . | E42501 . | E55P02 . | E42704 . | E42601 .",
        );
    }
}

/// Roles of other identities than the token's.
fn others(stage: &Stage<'_>) {
    for user in [
        "myIdentity",
        "myApp",
        "postgres",
        "azure_pg_admin",
        "azure_ad_user",
        "azure_ad_admin",
        "azuresu",
        "pg_read_all_data",
        "pg_signal_backend",
        "public",
        "none",
        "current_user",
        "myVm@contoso.onmicrosoft.com",
        "myVm\u{200d}",
        "MYVM",
    ] {
        let got = stage.identity(Door::Plain, &[("user", user), ("database", "postgres")]);
        stage.answered(AREA, &format!("the role {}", user.escape_unicode()), &got, "E28*");
    }
    // A session that was opened for one start-up is not given to a similar one.
    for (name, parameters, expected) in [
        ("role and database in one", &[("user", "myVm\u{1}database"), ("database", "postgres")][..], "E28*"),
        ("another order", &[("database", "postgres"), ("user", "myVm")], OWN),
        ("the same twice", &[("user", "myVm"), ("user", "myVm"), ("database", "postgres")], OWN),
    ] {
        for door in [Door::Warm, Door::Reuse] {
            let got = stage.identity(door, parameters);
            stage.answered(AREA, &format!("a kept session, {name}, {door:?}"), &got, expected);
        }
    }
    let two = [start_as(V3, &[("user", "myVm"), ("database", "postgres")]), start(&[("user", "postgres")])]
        .concat();
    let got = Talk::of(stage.connect(Door::Plain), &[send(two)]);
    stage.answered(AREA, "a second start-up behind the first", &got, "R0 ZI E08P01 . | R0 ZI .");
}

/// Certificates whose name is almost right.
fn certificates(stage: &Stage<'_>) {
    use rcgen::{CustomExtension, DnType, ExtendedKeyUsagePurpose, date_time_ymd};

    use crate::papers::client_params;
    let cn = |name: &str| client_params(&[(DnType::CommonName, name)]);
    let with = |mut params: rcgen::CertificateParams, change: &dyn Fn(&mut rcgen::CertificateParams)| {
        change(&mut params);
        params
    };
    let issued = |params: &rcgen::CertificateParams| stage.papers.issue(params);
    let san_only = {
        let mut params = client_params(&[(DnType::OrganizationName, "app")]);
        params.subject_alt_names = vec![rcgen::SanType::DnsName("app".try_into().unwrap())];
        params
    };
    let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    for (name, paper, expected) in [
        ("the name", issued(&cn("app")), OWN),
        (
            "for clients and servers",
            issued(&with(cn("app"), &|it| it.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth))),
            OWN,
        ),
        ("in capitals", issued(&cn("APP")), "E28000 ."),
        ("a space behind", issued(&cn("app ")), "E28000 ."),
        ("a line feed", issued(&cn("app\n")), "E28000 ."),
        ("a zero-width space", issued(&cn("app\u{200b}")), "E28000 ."),
        ("an empty name", issued(&cn("")), "E28000 ."),
        ("a subject in the name", issued(&cn("app,CN=app")), "E28000 ."),
        ("no common name", issued(&client_params(&[(DnType::OrganizationalUnitName, "app")])), "E28000 ."),
        ("an alternative name only", issued(&san_only), "E28000 ."),
        ("a pattern", issued(&cn("*")), "E28000 ."),
        (
            "not valid yet",
            issued(&with(cn("app"), &|it| it.not_before = date_time_ymd(2096, 1, 1))),
            "alert. | .",
        ),
        ("signed by itself", Papers::alone(&cn("app")), "alert. | ."),
        ("the authority's own", stage.papers.own(), "alert. | . | E28000 ."),
        (
            "for signing mail",
            issued(&with(cn("app"), &|it| {
                it.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]
            })),
            "alert. | .",
        ),
        (
            "a critical extension that is unknown",
            issued(&with(cn("app"), &|it| {
                let mut unknown = unknown.clone();
                unknown.set_criticality(true);
                it.custom_extensions.push(unknown);
            })),
            "alert. | .",
        ),
    ] {
        let stream =
            Stream::tls(stage.port(Door::Certificate), &stage.papers.client(Some(&paper), &[]), false);
        let asked = query("SELECT session_user, current_user, current_database()");
        let bytes = [start(&[("user", "app"), ("database", "postgres")]), asked, TERMINATE.to_vec()].concat();
        stage.probe(AREA, &format!("a certificate, {name}"), (stream, &[send(bytes)]), expected);
    }
    let paper = issued(&cn("app"));
    for (name, user) in [("another role of the map", "other"), ("the role behind the map", "myVm")] {
        let stream =
            Stream::tls(stage.port(Door::Certificate), &stage.papers.client(Some(&paper), &[]), false);
        let steps = [send(start(&[("user", user), ("database", "postgres")]))];
        stage.probe(AREA, &format!("a certificate for {name}"), (stream, &steps), "E28000 .");
    }
    let stream = Stream::tls(stage.port(Door::Certificate), &stage.papers.client(Some(&paper), &[]), false);
    let steps = [send([start(&[("user", "other")]), message(b'p', b"secret\0")].concat())];
    stage.probe(AREA, "a certificate for another role, and a password", (stream, &steps), "E28000 .");
}

pub(crate) fn probes(stage: &Stage<'_>) {
    mapped(stage);
    named(stage);
    others(stage);
    certificates(stage);
}
