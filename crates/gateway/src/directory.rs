//! What the directory of a tenant says of a principal and its token does not: further groups, and
//! whether the account is still enabled.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pgentra_session::login_error::{LoginError, chain};
use pgentra_verify::{Groups, Principal, SubjectKind};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::role_mapping::RoleMapping;
use crate::telemetry::with;
use crate::{Gateway, refusal};

/// How long an answer is used again; an account's during sessions at most for half of the interval.
pub const ANSWER_LIFETIME: Duration = Duration::from_secs(30);
/// Time for an answer, with all attempts of the directory.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure, nothing is asked for this time: a login must not wait for a directory that is
/// known to be down.
const PAUSE: Duration = Duration::from_secs(5);
/// Questions at the same time.
const QUESTIONS: usize = 8;
/// Most answers that are kept; each takes about a hundred bytes.
const ANSWERS: usize = 20_000;
/// Most groups that are asked for at a login. Graph takes 20 at once.
const GROUPS: usize = 200;

/// Whom the directory is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectoryPrincipal {
    /// The object id.
    pub object_id: Uuid,
    /// Whether it is a service principal; otherwise it is a user.
    pub is_service: bool,
}

/// A directory, such as Microsoft Graph. Implementations may take their time: the gateway gives up
/// after 10 seconds and drops the future.
pub trait PrincipalDirectory: Send + Sync {
    /// Those of `groups` that the principal is a member of, directly or through other groups.
    ///
    /// # Errors
    /// The directory does not answer, or refuses the gateway.
    fn member_of<'a>(
        &'a self,
        who: DirectoryPrincipal,
        groups: &'a [Uuid],
    ) -> BoxFuture<'a, Result<Vec<Uuid>, QuestionError>>;

    /// Whether the principal exists and may sign in.
    ///
    /// # Errors
    /// The directory does not answer, or refuses the gateway.
    fn is_enabled(&self, who: DirectoryPrincipal) -> BoxFuture<'_, Result<bool, QuestionError>>;
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The directory does not answer, or refuses the gateway: nothing is asked for 5 seconds.
    #[error("the directory of the tenant cannot be asked")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The directory refuses this question. Others are asked.
    #[error("the directory of the tenant refuses a question")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
}

/// When a principal's account is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountCheck {
    /// Never, as on Azure: a token is good until it expires.
    #[default]
    Off,
    /// At each login.
    Login,
    /// At each login, and at this interval during a session, which PostgreSQL ends (SQLSTATE 57P01)
    /// if the account is disabled or gone.
    Session(Duration),
}

/// What the directory is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryQuestions {
    /// Membership, where a token says that there are more groups than it lists.
    pub groups: bool,
    /// The account.
    pub account: AccountCheck,
    /// Whether a login goes on while the directory cannot be asked for the account. An open session
    /// goes on in any case. A login whose groups cannot be looked up is refused in any case.
    pub allow_if_unavailable: bool,
}

/// A directory and what it is asked for, with the last answers. Clones share them.
#[derive(Clone)]
pub struct DirectoryChecks(Arc<DirectoryState>);

struct DirectoryState {
    directory: Arc<dyn PrincipalDirectory>,
    questions: DirectoryQuestions,
    accounts: Answers<DirectoryPrincipal>,
    members: Answers<(DirectoryPrincipal, Uuid)>,
    turns: Semaphore,
    failed_at: Mutex<Option<Instant>>,
}

/// Answers with the time at which they were given.
struct Answers<K> {
    answers: Mutex<HashMap<K, (bool, Instant)>>,
    lifetime: Duration,
}

impl<K: Hash + Eq> Answers<K> {
    fn new(lifetime: Duration) -> Self {
        Self { answers: Mutex::default(), lifetime }
    }

    fn find(&self, key: &K) -> Option<bool> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(_, at)| at.elapsed() < self.lifetime).map(|(answer, _)| *answer)
    }

    fn add(&self, key: K, answer: bool) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.retain(|_, (_, at)| at.elapsed() < self.lifetime);
        }
        if answers.len() >= ANSWERS {
            answers.clear();
        }
        answers.insert(key, (answer, Instant::now()));
    }
}

impl DirectoryChecks {
    /// Asks `directory` these questions.
    pub fn new(directory: Arc<dyn PrincipalDirectory>, questions: DirectoryQuestions) -> Self {
        let lifetime = match questions.account {
            AccountCheck::Session(interval) => ANSWER_LIFETIME.min(interval / 2),
            _ => ANSWER_LIFETIME,
        };
        Self(Arc::new(DirectoryState {
            directory,
            questions,
            accounts: Answers::new(lifetime),
            members: Answers::new(ANSWER_LIFETIME),
            turns: Semaphore::new(QUESTIONS),
            failed_at: Mutex::new(None),
        }))
    }

    /// Whether the account is enabled.
    async fn is_enabled(&self, who: DirectoryPrincipal) -> Result<bool, QuestionError> {
        let state = &*self.0;
        if let Some(known) = state.accounts.find(&who) {
            return Ok(known);
        }
        // The semaphore is never closed.
        let _turn = state.turns.acquire().await;
        // Another session of the principal may have asked meanwhile.
        if let Some(known) = state.accounts.find(&who) {
            return Ok(known);
        }
        let is_enabled = state.ask(state.directory.is_enabled(who)).await?;
        state.accounts.add(who, is_enabled);
        Ok(is_enabled)
    }

    /// Those of the groups that the principal is a member of.
    async fn member_of(&self, who: DirectoryPrincipal, groups: &[Uuid]) -> Result<Vec<Uuid>, QuestionError> {
        let state = &*self.0;
        let known = || -> Option<Vec<Uuid>> {
            let answers: Option<Vec<_>> =
                groups.iter().map(|group| Some((*group, state.members.find(&(who, *group))?))).collect();
            Some(answers?.into_iter().filter_map(|(group, is_member)| is_member.then_some(group)).collect())
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let _turn = state.turns.acquire().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        let mut found = state.ask(state.directory.member_of(who, groups)).await?;
        found.retain(|group| groups.contains(group));
        for group in groups {
            state.members.add((who, *group), found.contains(group));
        }
        Ok(found)
    }
}

impl DirectoryState {
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, QuestionError>>,
    ) -> Result<T, QuestionError> {
        let failed_at = || self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if failed_at().is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(QuestionError::Unavailable("it did not answer a moment ago".into()));
        }
        let answer = timeout(PATIENCE, question).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", PATIENCE.as_secs());
            Err(QuestionError::Unavailable(why.into()))
        });
        // What it refuses of one principal does not stop the questions about others.
        *failed_at() = matches!(answer, Err(QuestionError::Unavailable(_))).then(Instant::now);
        answer
    }
}

impl fmt::Debug for DirectoryChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryChecks").field("questions", &self.0.questions).finish_non_exhaustive()
    }
}

impl DirectoryPrincipal {
    fn of(principal: &Principal) -> Self {
        Self { object_id: principal.object_id(), is_service: principal.kind() == SubjectKind::App }
    }
}

impl Gateway {
    /// The groups of the mapping that the principal is in, where its token says that there are more
    /// than it lists. `None`: nothing is known beyond the token.
    pub(crate) async fn groups_beyond_the_token(
        &self,
        claim: &RoleMapping,
        role: &str,
        principal: &Principal,
    ) -> Result<Option<Vec<Uuid>>, LoginError> {
        let Some(checks) = self.config.directory.as_ref().filter(|checks| checks.0.questions.groups) else {
            return Ok(None);
        };
        if *principal.groups() != Groups::Overage {
            return Ok(None);
        }
        let groups = claim.groups(role);
        if groups.is_empty() {
            return Ok(Some(groups));
        }
        if groups.len() > GROUPS {
            let number = groups.len();
            tracing::error!(role, oid = %principal.object_id(), number, "the mapping of a role names more groups than Graph is asked for");
            return Err(refusal::too_many_groups(role, GROUPS).into());
        }
        let found = checks.member_of(DirectoryPrincipal::of(principal), &groups).await;
        self.count_question(found.is_ok());
        found.map(Some).map_err(|error| {
            tracing::error!(role, oid = %principal.object_id(), error = chain(&error), "the groups of a principal are not known");
            refusal::no_directory().into()
        })
    }

    /// Whether the principal's account is still enabled, if that is to be looked up.
    pub(crate) async fn check_account(&self, role: &str, principal: &Principal) -> Result<(), LoginError> {
        let Some(checks) = &self.config.directory else { return Ok(()) };
        if checks.0.questions.account == AccountCheck::Off {
            return Ok(());
        }
        let oid = principal.object_id();
        let answer = checks.is_enabled(DirectoryPrincipal::of(principal)).await;
        self.count_question(answer.is_ok());
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::warn!(role, %oid, "the principal of a token is disabled or gone");
                Err(refusal::disabled(role, principal).into())
            }
            Err(error) if checks.0.questions.allow_if_unavailable => {
                tracing::warn!(role, %oid, error = chain(&error), "the account is not looked up: allowed by graph_down");
                Ok(())
            }
            Err(error) => {
                tracing::error!(role, %oid, error = chain(&error), "the account cannot be looked up");
                Err(refusal::no_directory().into())
            }
        }
    }

    /// Waits until the principal of a session is disabled or gone; `None`: that is not looked up.
    pub(crate) fn until_disabled<'a>(&'a self, principal: &Principal) -> Option<BoxFuture<'a, ()>> {
        let checks = self.config.directory.as_ref()?;
        let AccountCheck::Session(interval) = checks.0.questions.account else { return None };
        Some(self.watch(checks, DirectoryPrincipal::of(principal), interval).boxed())
    }

    async fn watch(&self, checks: &DirectoryChecks, who: DirectoryPrincipal, interval: Duration) {
        loop {
            sleep(interval).await;
            let answer = checks.is_enabled(who).await;
            self.count_question(answer.is_ok());
            match answer {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(oid = %who.object_id, "the principal of a session is disabled or gone");
                    return;
                }
                // Otherwise all sessions would end while the directory does not answer.
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(oid = %who.object_id, error, "the account of a session cannot be looked up");
                }
            }
        }
    }

    fn count_question(&self, is_answered: bool) {
        let result = if is_answered { "answered" } else { "failed" };
        let questions = &self.config.telemetry.counts().directory;
        questions.get_or_create(&with(&self.config.name, "result", result)).inc();
    }
}
