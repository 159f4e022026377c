//! The definition of the resource, as the chart has it.

use kube::CustomResourceExt as _;

use crate::resource::PostgresRoles;

/// The file `deploy/helm/pgentra-operator/files/postgresroles.yaml`.
///
/// # Errors
/// A text that YAML cannot hold.
pub(crate) fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    let text = serde_saphyr::to_string(&PostgresRoles::crd())?;
    Ok(format!("# Written by `pgentra-operator crd`.\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_definition_of_this_program() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../deploy/helm/pgentra-operator/files/postgresroles.yaml"
        );
        let file = std::fs::read_to_string(path).unwrap();
        assert_eq!(file, yaml().unwrap(), "write it again: cargo run -p pgentra-operator -- crd >{path}");
    }
}
