//! In which order several hosts are tried (libpq, `load_balance_hosts`).

use std::str::FromStr;

use rand::seq::SliceRandom as _;

/// In which order several hosts are tried. The names are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LoadBalanceHosts {
    /// In the order in which they are named; the default.
    #[default]
    Disable,
    /// In another random order for each session, and so are the addresses of each host.
    Random,
}

impl LoadBalanceHosts {
    const ALL: [LoadBalanceHosts; 2] = [LoadBalanceHosts::Disable, LoadBalanceHosts::Random];

    /// The value as libpq's `load_balance_hosts` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            LoadBalanceHosts::Disable => "disable",
            LoadBalanceHosts::Random => "random",
        }
    }

    /// Puts hosts or addresses into the order of one session.
    pub(crate) fn arrange<T>(self, items: &mut [T]) {
        match self {
            LoadBalanceHosts::Disable => {}
            LoadBalanceHosts::Random => items.shuffle(&mut rand::rng()),
        }
    }
}

impl FromStr for LoadBalanceHosts {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_host_may_come_first() {
        let arranged = |mode: LoadBalanceHosts| {
            let mut hosts = [0, 1, 2];
            mode.arrange(&mut hosts);
            hosts
        };
        assert_eq!(arranged(LoadBalanceHosts::Disable), [0, 1, 2]);
        // Each of the six orders is missing with a probability of (5/6)^600.
        let seen: HashSet<_> = (0..600).map(|_| arranged(LoadBalanceHosts::Random)).collect();
        assert_eq!(seen.len(), 6);
        for mode in LoadBalanceHosts::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        assert!("yes".parse::<LoadBalanceHosts>().is_err());
    }
}
