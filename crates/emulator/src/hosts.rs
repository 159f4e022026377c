//! What a program on each kind of host is told about its identity endpoint: the values of its variables.

use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use uuid::Uuid;

use crate::federation;
use crate::local_azure::LocalAzure;
use crate::token_proxy::{PROXY_NAME, PROXY_PREFIX};
use crate::{azure_arc, machine_learning, service_fabric};
use pgentra_certificates::{CertificateError, Issued, client_certificate};

/// App Service, Functions, Container Apps.
#[derive(Clone, Debug)]
pub struct AppService {
    /// `IDENTITY_ENDPOINT`; in the protocol of 2017, `MSI_ENDPOINT`.
    pub endpoint: String,
    /// `IDENTITY_HEADER`; in the protocol of 2017, `MSI_SECRET`.
    pub header: SecretString,
}

/// Settings of a program on a Service Fabric cluster.
#[derive(Clone, Debug)]
pub struct ServiceFabric {
    /// Value of `IDENTITY_ENDPOINT`.
    pub endpoint: String,
    /// Value of `IDENTITY_HEADER`, the secret that requests must carry.
    pub header: SecretString,
    /// `IDENTITY_SERVER_THUMBPRINT`: SHA-1 of the node's certificate.
    pub thumbprint: String,
}

/// Settings of a program on Azure Machine Learning.
#[derive(Clone, Debug)]
pub struct MachineLearning {
    /// Value of `MSI_ENDPOINT`.
    pub endpoint: String,
    /// Value of `MSI_SECRET`, the secret that requests must carry.
    pub secret: SecretString,
    /// `DEFAULT_IDENTITY_CLIENT_ID`: the machine's own identity.
    pub default_client_id: Uuid,
}

/// Settings of a program on an Azure Arc server.
#[derive(Clone, Debug)]
pub struct AzureArc {
    /// Value of `IDENTITY_ENDPOINT`.
    pub identity_endpoint: String,
    /// Value of `IMDS_ENDPOINT`.
    pub imds_endpoint: String,
}

/// Settings of a job of GitHub Actions with `id-token: write`.
#[derive(Clone, Debug)]
pub struct GitHub {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`; it has a query already.
    pub request_url: String,
    /// Value of `ACTIONS_ID_TOKEN_REQUEST_TOKEN`, the bearer token of requests.
    pub request_token: SecretString,
}

/// A job at Azure Pipelines.
#[derive(Clone, Debug)]
pub struct Pipelines {
    /// Value of `SYSTEM_OIDCREQUESTURI`.
    pub request_uri: String,
    /// Value of `SYSTEM_ACCESSTOKEN`, the bearer token of requests.
    pub access_token: SecretString,
    /// Id of the service connection.
    pub service_connection: Uuid,
}

/// The token proxy of AKS identity bindings.
#[derive(Clone, Debug)]
pub struct TokenProxy {
    /// `AZURE_KUBERNETES_TOKEN_PROXY`; the paths of the authority follow this one.
    pub url: String,
    /// `AZURE_KUBERNETES_SNI_NAME`: the only name it has a certificate for.
    pub sni_name: String,
    /// `AZURE_KUBERNETES_CA_DATA`: certificate of its own authority, in PEM.
    pub ca_pem: String,
}

impl LocalAzure {
    /// App Service: endpoint and secret; the protocols 2019-08-01 and 2017-09-01.
    pub fn app_service(&self) -> AppService {
        AppService {
            endpoint: format!("{}/MSI/token", self.cloud.addresses.metadata),
            header: self.cloud.secrets.app_service.clone(),
        }
    }

    /// Service Fabric; its identity is the machine's.
    pub fn service_fabric(&self) -> ServiceFabric {
        ServiceFabric {
            endpoint: format!("{}{}", self.cloud.addresses.service_fabric, service_fabric::PATH),
            header: self.cloud.secrets.service_fabric.clone(),
            thumbprint: self.cloud.addresses.thumbprint.clone(),
        }
    }

    /// Azure Machine Learning: endpoint, secret and default client id.
    pub fn machine_learning(&self) -> MachineLearning {
        MachineLearning {
            endpoint: format!("{}{}", self.cloud.addresses.metadata, machine_learning::PATH),
            secret: self.cloud.secrets.machine_learning.clone(),
            default_client_id: self.vm().client_id(),
        }
    }

    /// Azure Arc; `None` unless [`Options::arc`](crate::Options::arc) asked for it.
    pub fn arc(&self) -> Option<AzureArc> {
        let address = self.cloud.addresses.arc.clone()?;
        Some(AzureArc { identity_endpoint: format!("{address}{}", azure_arc::PATH), imds_endpoint: address })
    }

    /// GitHub Actions: URL and bearer token of the OIDC request.
    pub fn github(&self) -> GitHub {
        GitHub {
            request_url: format!("{}/github/idtoken?api-version=2.0", self.cloud.addresses.federation),
            request_token: self.cloud.secrets.github.clone(),
        }
    }

    /// Azure Pipelines: URL, access token and service connection.
    pub fn pipelines(&self) -> Pipelines {
        let federation = self.federation();
        Pipelines {
            request_uri: format!(
                "{}{}",
                self.cloud.addresses.federation,
                federation::request_path(federation)
            ),
            access_token: self.cloud.secrets.pipelines.clone(),
            service_connection: federation.service_connection(),
        }
    }

    /// The token proxy of AKS identity bindings: URL, SNI name and certificate.
    pub fn token_proxy(&self) -> TokenProxy {
        TokenProxy {
            url: format!("{}{PROXY_PREFIX}", self.cloud.addresses.token_proxy),
            sni_name: PROXY_NAME.to_owned(),
            ca_pem: self.cloud.addresses.token_proxy_ca.clone(),
        }
    }

    /// Makes an RSA certificate and registers it with the application `myApp`.
    ///
    /// Not cancel-safe: dropped while it runs, it may still register one.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub async fn new_client_certificate(&self) -> Result<Issued, CertificateError> {
        let name = self.application().name().to_owned();
        let made = tokio::task::spawn_blocking(move || client_certificate(&name)).await;
        let issued = made.map_err(CertificateError::new)??;
        for certificate in &issued.chain {
            self.register_certificate(certificate)?;
        }
        Ok(issued)
    }

    /// Registers an X.509 v3 certificate with the application `myApp`: assertions that its RSA key signs are taken.
    ///
    /// # Errors
    /// If it is not such a certificate.
    pub fn register_certificate(&self, certificate: &CertificateDer<'_>) -> Result<(), CertificateError> {
        self.cloud.certificates.register(certificate).map_err(CertificateError::new)
    }
}
