//! The directory of a local Entra tenant: users, groups, applications and their service principals, and Microsoft Graph
//! on them.
//!
//! [`Principals`] holds who is in the tenant. [`GraphApi`] answers a request as Microsoft Graph v1.0 does, as far as the
//! Azure CLI, Terraform and programs that look for identities ask it. [`SignIns`] and [`DeviceCodes`] hold the codes and
//! the refresh tokens of people. There is no socket and no clock here: a request and its answer are values, and whether
//! a caller may ask is decided outside.

mod certificates;
mod device_codes;
pub mod exposed;
mod graph;
mod principals;
mod registration;
mod sign_ins;

pub use certificates::{Certificates, RegisteredCertificate};
pub use device_codes::{DeviceCode, DeviceCodes};
pub use graph::{GraphAnswer, GraphApi, GraphError, GraphRequest};
pub use principals::{Group, ManagedPrincipal, PrincipalKind, Principals, SavedPrincipals, TenantFull, User};
pub use registration::{AgentIdentity, AppRegistration, ApplicationCredential, SecretCheck, credential_flaw};
pub use sign_ins::{AuthorizationCode, RefreshToken, SignIns};
