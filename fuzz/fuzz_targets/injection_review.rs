//! What an API server asks, and annotations: no panic, and the answer is for the question.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_injection::{NamespaceDefaults, Review, Sidecar};

fuzz_target!(|body: &[u8]| {
    let Ok(review) = Review::read(body) else { return };
    let answer = review.answer(&NamespaceDefaults::default(), &Sidecar::of_image("pgentra:0.1.0")).review;
    let response = &answer["response"];
    assert!(response["uid"].is_string());
    assert_eq!(response["allowed"] == false, response["status"]["message"].is_string());
});
