//! Suggests the known name that a misspelled one is most similar to.

/// The most similar known name, as the end of a sentence.
pub fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    nearest_name(name, known).map(|known| format!("; the nearest is {known}")).unwrap_or_default()
}

/// The most similar known name; `None` if none is similar.
pub fn nearest_name(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    /// The least similarity of a suggested name.
    const ALIKE: f64 = 0.7;
    let alike = |known: &'static str| (strsim::normalized_damerau_levenshtein(name, known), known);
    let best = known.map(alike).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(likeness, _)| *likeness >= ALIKE).map(|(_, known)| known)
}
