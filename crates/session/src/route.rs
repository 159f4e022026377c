//! Which clients are led to which of several servers behind one listener.

/// Which clients are led to a server. An empty list means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The databases.
    pub databases: Vec<String>,
    /// The names that clients give in the TLS handshake (SNI); case does not matter.
    pub host_names: Vec<String>,
    /// The roles that clients name.
    pub roles: Vec<String>,
}

impl Route {
    /// Whether every client fits.
    pub fn is_for_all(&self) -> bool {
        self.databases.is_empty() && self.host_names.is_empty() && self.roles.is_empty()
    }

    /// Whether this client fits.
    pub fn fits(&self, host_name: Option<&str>, database: &[u8], role: &[u8]) -> bool {
        let names = |list: &[String], name: &[u8]| {
            list.is_empty() || list.iter().any(|named| named.as_bytes() == name)
        };
        let by_host = self.host_names.is_empty()
            || host_name.is_some_and(|name| self.host_names.iter().any(|it| it.eq_ignore_ascii_case(name)));
        by_host && names(&self.databases, database) && names(&self.roles, role)
    }

    /// Whether some client fits both.
    pub fn overlaps(&self, other: &Route) -> bool {
        let equal: fn(&str, &str) -> bool = |one, two| one == two;
        meet(&self.host_names, &other.host_names, str::eq_ignore_ascii_case)
            && meet(&self.databases, &other.databases, equal)
            && meet(&self.roles, &other.roles, equal)
    }
}

/// Whether two lists have a name in common, where an empty list has all.
fn meet(one: &[String], two: &[String], is_same: fn(&str, &str) -> bool) -> bool {
    one.is_empty() || two.is_empty() || one.iter().any(|one| two.iter().any(|two| is_same(one, two)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(databases: &[&str], host_names: &[&str], roles: &[&str]) -> Route {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Route { databases: owned(databases), host_names: owned(host_names), roles: owned(roles) }
    }

    #[test]
    fn a_client_fits_by_all_that_a_route_names() {
        let all = Route::default();
        assert!(all.is_for_all() && all.fits(None, b"d", b"r"));
        for (named, fits) in [
            (route(&["c", "d"], &[], &[]), true),
            (route(&["D"], &[], &[]), false),
            (route(&[], &["H.example"], &[]), true),
            (route(&[], &["other.example"], &[]), false),
            (route(&[], &[], &["r"]), true),
            (route(&["d"], &[], &["s"]), false),
            (route(&["d"], &["h.example"], &["r"]), true),
        ] {
            assert_eq!(named.fits(Some("h.EXAMPLE"), b"d", b"r"), fits, "{named:?}");
            assert!(!named.is_for_all());
        }
        assert!(!route(&[], &["h.example"], &[]).fits(None, b"d", b"r"), "a client without a name");
    }

    #[test]
    fn routes_overlap_where_a_client_could_fit_both() {
        for (one, two, overlap) in [
            (route(&["a"], &[], &[]), route(&["b"], &[], &[]), false),
            (route(&["a", "c"], &[], &[]), route(&["b", "c"], &[], &[]), true),
            (route(&["a"], &[], &[]), route(&["A"], &[], &[]), false),
            (route(&["a"], &[], &[]), route(&[], &[], &["r"]), true),
            (route(&["a"], &[], &["r"]), route(&["a"], &[], &["s"]), false),
            (route(&[], &["h.example"], &[]), route(&[], &["H.example"], &[]), true),
            (route(&[], &["h.example"], &[]), route(&["a"], &["i.example"], &[]), false),
            (Route::default(), route(&["a"], &[], &[]), true),
        ] {
            assert_eq!((one.overlaps(&two), two.overlaps(&one)), (overlap, overlap), "{one:?} {two:?}");
        }
    }
}
