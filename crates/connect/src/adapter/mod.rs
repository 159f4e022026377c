//! Connection pools whose connections sign in with a token that is fresh: one feature for each.
//!
//! | feature | what there is |
//! |---|---|
//! | `deadpool` | [`Connector`](crate::Connector) is a `deadpool_postgres::Connect` |
//! | `bb8` | [`Connector`](crate::Connector) is a `bb8::ManageConnection`; a pool whose timeout error has the cause |
//! | `diesel-async` | a [`Connector`](crate::Connector) becomes the `ManagerConfig` of diesel-async's pools |
//! | `sqlx` | a pool whose password is renewed before it expires |
//! | `sea-orm` | SeaORM's connection on that pool |
//!
//! A session outlives its token: the server checks the token at the sign-in only. So a pool needs a fresh token whenever
//! it opens a connection, and at no other time. All but sqlx ask the [`Connector`](crate::Connector) for each connection;
//! sqlx has no hook for that (transact-rs/sqlx#3117), so its pool is given each new token as soon as there is one.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::Arc;

use crate::error::ConnectError;

#[cfg(feature = "bb8")]
pub mod bb8;
#[cfg(feature = "deadpool")]
mod deadpool;
#[cfg(feature = "diesel-async")]
mod diesel_async;
#[cfg(feature = "sea-orm")]
mod sea_orm;
#[cfg(feature = "sqlx")]
pub mod sqlx;

impl ConnectError {
    /// The reason why there is no connection, out of the error of a pool or a driver that wraps it; `None` if the error
    /// has another one.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConnectError> {
        successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source()).find_map(unwrap)
    }
}

fn unwrap<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConnectError> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // The source of an io::Error is the source of what it wraps: one level would be left out.
        return error.get_ref()?.downcast_ref();
    }
    #[cfg(feature = "diesel-async")]
    if let Some(error) = diesel_async::unwrap(error) {
        return Some(error);
    }
    let shared = || error.downcast_ref::<Arc<ConnectError>>().map(AsRef::as_ref);
    error.downcast_ref().or_else(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_below_others() {
        let config = || ConnectError::config("here");
        let below: [Box<dyn Error>; 3] =
            [Box::new(config()), Box::new(Arc::new(config())), Box::new(io::Error::other(config()))];
        for error in &below {
            assert_eq!(ConnectError::find(error.as_ref()).unwrap().to_string(), "here");
        }
        assert_eq!(
            ConnectError::find(&ConnectError::protocol("outer").because(config())).unwrap().to_string(),
            "outer"
        );
        assert!(ConnectError::find(&io::Error::other("no")).is_none());
        assert!(ConnectError::find(&std::fmt::Error).is_none());
    }
}
