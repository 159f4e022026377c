//! Every pool works over three token lifetimes: see `tests/`.
//!
//! The snippets of `docs/rust.md` are compiled here.

#![cfg_attr(
    all(feature = "deadpool", feature = "bb8", feature = "diesel-async", feature = "sea-orm"),
    doc = include_str!("../../../docs/rust.md")
)]
