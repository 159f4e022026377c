//! The claims of a payload whose signature was verified.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::object::{ClaimValue, JsonObject};
use crate::principal::{Groups, SubjectKind};
use crate::rejection::{Malformed, Rejection};

/// The end of the year 9999 in seconds since 1970: later times are mistakes, and overflow what displays them.
const LAST_SECOND: u64 = 253_402_300_799;

/// Typed access to the claims. Names and meanings: Microsoft, "Access token claims reference".
#[derive(Debug)]
pub(crate) struct Claims<'a>(JsonObject<'a>);

impl<'a> Claims<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Claims<'a>, Rejection> {
        JsonObject::parse(payload).map(Claims).ok_or(Rejection::NotAToken(Malformed::Payload))
    }

    /// A text that must be there and not be empty. A list is refused: Entra's `aud` is one text.
    pub(crate) fn text(&self, name: &'static str) -> Result<&str, Rejection> {
        self.optional_text(name)?.ok_or(Rejection::MissingClaim(name))
    }

    pub(crate) fn optional_text(&self, name: &'static str) -> Result<Option<&str>, Rejection> {
        match self.0.get(name) {
            None => Ok(None),
            Some(ClaimValue::Text(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(Rejection::BadClaim(name)),
        }
    }

    /// A GUID that must be there.
    pub(crate) fn guid(&self, name: &'static str) -> Result<Uuid, Rejection> {
        guid(self.text(name)?).ok_or(Rejection::BadClaim(name))
    }

    /// A NumericDate (RFC 7519 section 2) that must be there. Entra writes whole seconds; a fraction, a text or a
    /// negative number is refused.
    pub(crate) fn time(&self, name: &'static str) -> Result<SystemTime, Rejection> {
        match self.0.get(name) {
            None => Err(Rejection::MissingClaim(name)),
            Some(ClaimValue::Number(seconds)) if *seconds <= LAST_SECOND => SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(*seconds))
                .ok_or(Rejection::BadClaim(name)),
            Some(_) => Err(Rejection::BadClaim(name)),
        }
    }

    /// The same, where it may be missing.
    pub(crate) fn optional_time(&self, name: &'static str) -> Result<Option<SystemTime>, Rejection> {
        if self.has(name) { self.time(name).map(Some) } else { Ok(None) }
    }

    /// Whether the claim is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    /// A list of texts, empty where it is missing.
    pub(crate) fn texts(&self, name: &'static str) -> Result<Vec<String>, Rejection> {
        match self.0.get(name) {
            None => Ok(Vec::new()),
            Some(ClaimValue::Texts(texts)) => {
                Ok(texts.iter().map(|text| text.clone().into_owned()).collect())
            }
            Some(_) => Err(Rejection::BadClaim(name)),
        }
    }

    /// One text, or a list of them that is not empty (RFC 7519 section 4.1.3).
    pub(crate) fn text_or_texts(&self, name: &'static str) -> Result<Vec<String>, Rejection> {
        match self.0.get(name) {
            Some(ClaimValue::Texts(texts)) if texts.is_empty() => Err(Rejection::BadClaim(name)),
            Some(ClaimValue::Texts(_)) => self.texts(name),
            _ => self.text(name).map(|text| vec![text.to_owned()]),
        }
    }

    /// The OAuth client of another issuer than Entra: `client_id` (RFC 9068) or `azp` (OpenID Connect). Both at once must
    /// agree.
    pub(crate) fn client(&self) -> Result<Option<String>, Rejection> {
        match (self.optional_text("client_id")?, self.optional_text("azp")?) {
            (Some(client), Some(azp)) if client != azp => Err(Rejection::BadClaim("azp")),
            (client, azp) => Ok(client.or(azp).map(str::to_owned)),
        }
    }

    /// `appid` (version 1) or `azp` (version 2). Both at once must agree.
    pub(crate) fn app_id(&self) -> Result<Option<Uuid>, Rejection> {
        let read = |name| match self.optional_text(name)? {
            None => Ok(None),
            Some(text) => guid(text).map(Some).ok_or(Rejection::BadClaim(name)),
        };
        match (read("appid")?, read("azp")?) {
            (Some(appid), Some(azp)) if appid != azp => Err(Rejection::BadClaim("azp")),
            (appid, azp) => Ok(appid.or(azp)),
        }
    }

    pub(crate) fn kind(&self, object_id: Uuid) -> Result<SubjectKind, Rejection> {
        match self.optional_text("idtyp")? {
            Some("app") => return Ok(SubjectKind::App),
            Some("user") => return Ok(SubjectKind::User),
            // `device`, and what may come: neither a person nor an application.
            Some(_) => return Err(Rejection::BadClaim("idtyp")),
            None => {}
        }
        // `idtyp` is an optional claim of version 2. Without it, an application's token has its object id as the subject
        // and no delegated scopes; a user's `sub` is a pairwise value.
        let is_its_own_subject = self.optional_text("sub")?.and_then(guid) == Some(object_id);
        let delegated = self.0.get("scp").is_some();
        Ok(if is_its_own_subject && !delegated { SubjectKind::App } else { SubjectKind::User })
    }

    /// Overage is told by `_claim_names` in tokens of the code flow and by `hasgroups` in those of the implicit flow.
    pub(crate) fn groups(&self) -> Result<Groups, Rejection> {
        match self.0.get("groups") {
            Some(ClaimValue::Texts(groups)) => {
                return Ok(Groups::Listed(groups.iter().filter_map(guid).collect()));
            }
            Some(_) => return Err(Rejection::BadClaim("groups")),
            None => {}
        }
        // Beyond 200 groups, Entra replaces the list by a reference to Graph, which is not called here.
        let elsewhere = match self.0.get("_claim_names") {
            Some(ClaimValue::Names(names)) => names.iter().any(|name| name == "groups"),
            Some(_) => return Err(Rejection::BadClaim("_claim_names")),
            None => false,
        };
        let has_groups = match self.0.get("hasgroups") {
            Some(ClaimValue::Bool(has)) => *has,
            Some(ClaimValue::Text(has)) => has == "true",
            Some(_) => return Err(Rejection::BadClaim("hasgroups")),
            None => false,
        };
        Ok(if elsewhere || has_groups { Groups::Overage } else { Groups::Absent })
    }

    pub(crate) fn multi_factor(&self) -> Result<bool, Rejection> {
        match self.0.get("amr") {
            None => Ok(false),
            Some(ClaimValue::Texts(methods)) => Ok(methods.iter().any(|method| method == "mfa")),
            Some(_) => Err(Rejection::BadClaim("amr")),
        }
    }

    pub(crate) fn user_principal_name(&self) -> Result<Option<String>, Rejection> {
        // `upn` in version 1, `preferred_username` in version 2; `unique_name` for guests, who have no `upn`.
        for name in ["upn", "preferred_username", "unique_name"] {
            if let Some(text) = self.optional_text(name)? {
                return Ok(Some(text.to_owned()));
            }
        }
        Ok(None)
    }
}

/// The hyphenated form only; `Uuid` itself would also read braces, URNs and bare digits.
pub(crate) fn guid(text: impl AsRef<str>) -> Option<Uuid> {
    let text = text.as_ref();
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// The beginning of a claim, short enough for an error message.
pub(crate) fn excerpt(claim: &str) -> String {
    const CHARACTERS: usize = 200;
    let cut: Cow<'_, str> = match claim.char_indices().nth(CHARACTERS) {
        Some((end, _)) => Cow::Borrowed(&claim[..end]),
        None => Cow::Borrowed(claim),
    };
    cut.into_owned()
}
