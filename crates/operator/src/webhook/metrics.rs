//! What the webhook counts.

use pgentra_injection::ReviewVerdict;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AnswerLabel {
    answer: &'static str,
}

/// Counters of answers, and the end of the certificate.
#[derive(Clone, Debug, Default)]
pub(super) struct WebhookMetrics {
    answers: Family<AnswerLabel, Counter>,
    certificates: Counter,
    expiry: Gauge,
}

impl WebhookMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let text = "Answers of the webhook: injected, not_asked, refused, looked (a workload), failed";
        registry.register("webhook_answers", text, self.answers.clone());
        registry.register(
            "webhook_certificates",
            "Certificates that this replica has made",
            self.certificates.clone(),
        );
        let text = "End of the certificate that is served, in seconds since 1970";
        registry.register("webhook_certificate_expiry_seconds", text, self.expiry.clone());
    }

    pub(super) fn answered(&self, verdict: ReviewVerdict) {
        self.count(match verdict {
            ReviewVerdict::Injected => "injected",
            ReviewVerdict::NotAsked => "not_asked",
            ReviewVerdict::Refused => "refused",
            ReviewVerdict::Looked => "looked",
        });
    }

    /// A question that got no answer.
    pub(super) fn failed(&self) {
        self.count("failed");
    }

    fn count(&self, answer: &'static str) {
        self.answers.get_or_create(&AnswerLabel { answer }).inc();
    }

    pub(super) fn made_certificate(&self) {
        self.certificates.inc();
    }

    pub(super) fn serves_until(&self, seconds: u64) {
        self.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
