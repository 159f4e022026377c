//! The listen addresses of the targets: which have which, and what is wrong with them.

use pgentra_settings::{HAS_UNIX_SOCKETS, InheritedSockets, ListenAddr, Problems, SettingOrigin};

use crate::listener_kind::ListenerKind;
use crate::settings::{ProcessSettings, TargetSettings};

/// The sockets that no target names.
pub(crate) fn others(inherited: &InheritedSockets, targets: &[TargetSettings]) -> Vec<ListenAddr> {
    let is_named =
        |place: &ListenAddr| targets.iter().flat_map(TargetSettings::all_places).any(|named| named == place);
    inherited.places().filter(|place| !is_named(place)).collect()
}

/// Assigns the process-wide listeners to the targets without their own. They share all of them, if one of them is led only
/// some clients.
pub(crate) fn share_out(listen: &[ListenAddr], targets: &mut [TargetSettings], problems: &mut Problems) {
    if targets.is_empty() {
        return;
    }
    let mut without: Vec<_> = targets.iter_mut().filter(|target| target.listen.is_empty()).collect();
    let number = without.len();
    if number > 1 && without.iter().any(|target| !target.route.is_for_all()) {
        let listen = if listen.is_empty() { &[ListenAddr::default()][..] } else { listen };
        if let Some(place) = listen.iter().find(|place| place.is_any()) {
            let hint = "name a port: each target would get a free one of its own";
            problems.add_with_hint("listen", format!("cannot be {place} for targets that share it"), hint);
        }
        return without.into_iter().for_each(|target| target.listen = listen.to_vec());
    }
    let mut count_up = |first: &ListenAddr| {
        for (at, target) in without.iter_mut().enumerate() {
            match first.further(at) {
                Some(place) => target.listen = vec![place],
                None => {
                    return problems.add(
                        "listen",
                        format!("not so many ports follow on {first}: give one for each target"),
                    );
                }
            }
        }
    };
    match listen {
        [] => count_up(&ListenAddr::default()),
        [first] => count_up(first),
        places if number == 1 => without[0].listen = places.to_vec(),
        places if places.len() == number => {
            for (target, place) in without.into_iter().zip(places) {
                target.listen = vec![place.clone()];
            }
        }
        places => problems.add_with_hint(
            "listen",
            format!("is given {} times for {number} targets that have none of their own", places.len()),
            "give it once for each target, once for all, or leave it out",
        ),
    }
}

/// A listen address of a target.
struct TakenPlace<'a> {
    place: &'a ListenAddr,
    label: &'a str,
    kind: ListenerKind,
    target: &'a TargetSettings,
}

impl TakenPlace<'_> {
    fn origin(&self) -> SettingOrigin {
        SettingOrigin::Target { target: self.label.to_owned(), key: self.kind.key().to_owned() }
    }
}

/// Reports addresses that cannot be, or not for two targets. `labels` are those of the targets.
pub(crate) fn check_places(
    (process, inherited): (&ProcessSettings, &InheritedSockets),
    labels: &[&str],
    targets: &[TargetSettings],
    problems: &mut Problems,
) {
    let mut taken: Vec<TakenPlace<'_>> = Vec::new();
    for (label, target) in labels.iter().zip(targets) {
        check_host_names(label, target, problems);
        for kind in ListenerKind::ALL {
            for place in target.places(kind) {
                let this = TakenPlace { place, label, kind, target };
                check_reach(process, inherited, &this, problems);
                if !place.is_any() {
                    let mut others = taken.iter().filter(|other| other.place == place);
                    if let Some((message, hint)) = others.find_map(|other| conflict(&this, other)) {
                        problems.add_with_hint(this.origin(), message, hint);
                    }
                    taken.push(this);
                }
            }
        }
    }
}

/// Reports an address beyond the loopback interface at which clients prove nothing.
fn check_reach(
    process: &ProcessSettings,
    inherited: &InheritedSockets,
    this: &TakenPlace<'_>,
    problems: &mut Problems,
) {
    let place = this.place;
    let is_local = place.is_local() && inherited.is_local(place);
    let is_open = !is_local && !this.target.client_auth.require_authentication();
    if is_open && !process.danger_listen_beyond_loopback {
        problems.add_with_hint(
            this.origin(),
            format!("cannot be {place}: every client that reaches an address beyond the loopback interface would have the identity's rights"),
            "listen on 127.0.0.1, [::1] or a Unix socket; or ask clients for TLS (listen_tls_cert, listen_tls_key) and for a \
             certificate (listen_tls_client_ca) or a password (listen_auth_file); \
             --danger-listen-beyond-loopback accepts every client",
        );
    }
}

/// Why two cannot have the same address, and what to do.
fn conflict(this: &TakenPlace<'_>, other: &TakenPlace<'_>) -> Option<(String, &'static str)> {
    let (place, label) = (this.place, other.label);
    let (one, two) = (&this.target.route, &other.target.route);
    if this.label == other.label || (one.is_for_all() && two.is_for_all()) {
        let hint = "give another address; or tell the targets apart with databases, host_names or roles";
        return Some((format!("cannot be {place}: it is given twice"), hint));
    }
    // A target for all clients gets those that no other one does.
    let is_rest = one.is_for_all() || two.is_for_all();
    if !is_rest && one.overlaps(two) {
        let hint = "have them name different databases, different host_names or different roles";
        return Some((format!("cannot be {place}: a client may fit both this target and {label}"), hint));
    }
    let key = different(this.target, other.target)?;
    let hint = "it is used before the client says what it wants: set it once, for all targets of the address";
    Some((format!("cannot be {place}: {label} has it with another {key}"), hint))
}

/// A setting that has to be the same for all targets of an address: it is used before the client is led to one.
fn different(first: &TargetSettings, second: &TargetSettings) -> Option<&'static str> {
    let (one, two) = (&first.client_auth, &second.client_auth);
    [
        ("start_up_timeout", first.start_up_timeout != second.start_up_timeout),
        ("first_packet_timeout", first.first_packet_timeout != second.first_packet_timeout),
        ("listen_tls_cert", one.tls_cert != two.tls_cert),
        ("listen_tls_key", one.tls_key != two.tls_key),
        ("listen_tls_client_ca", one.tls_client_ca != two.tls_client_ca),
        ("listen_uids", one.uids != two.uids),
    ]
    .into_iter()
    .find(|(_, is_different)| *is_different)
    .map(|(key, _)| key)
}

/// Reports host names of which the proxy cannot learn.
fn check_host_names(label: &str, target: &TargetSettings, problems: &mut Problems) {
    let message = match () {
        () if target.route.host_names.is_empty() => return,
        () if target.client_auth.tls_cert.is_none() => {
            "needs listen_tls_cert: a client names the host in the TLS handshake"
        }
        () if target.all_places().all(|place| matches!(place, ListenAddr::Unix { .. })) => {
            "is for TCP, and there are only Unix sockets: they have no TLS"
        }
        () => return,
    };
    let origin = SettingOrigin::Target { target: label.to_owned(), key: "host_names".to_owned() };
    problems.add_with_hint(&origin, message, "lead clients by databases or roles, or give them TLS over TCP");
}

/// Reports a setting for a kind of socket that no listener has.
pub(crate) fn check_kinds(targets: &[TargetSettings], problems: &mut Problems) {
    let listens = |is_unix: bool| {
        let mut places = targets.iter().flat_map(TargetSettings::all_places);
        // The kind of the service manager's sockets is not known here.
        places.any(|place| match place {
            ListenAddr::Unix { .. } => is_unix,
            ListenAddr::Tcp(_) => !is_unix,
            ListenAddr::Systemd { .. } => true,
        })
    };
    if targets.iter().any(|target| !target.client_auth.uids.is_empty()) && !listens(true) {
        let hint = match HAS_UNIX_SOCKETS {
            true => "listen on one: --listen /run/pgentra",
            false => "leave it out: Unix sockets are for Linux and macOS alone",
        };
        problems.add_with_hint("listen_uids", "is for Unix sockets, and there is none", hint);
    }
    if targets.iter().any(|target| target.client_auth.tls_cert.is_some()) && !listens(false) {
        let hint = "leave it out: clients use no TLS over a Unix socket, which other machines cannot read";
        problems.add_with_hint("listen_tls_cert", "is for TCP, and there are only Unix sockets", hint);
    }
}
