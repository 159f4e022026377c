//! What the directory of the tenant is asked: groups that a token does not list, and whether an account is enabled.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventually::{DEADLINE, eventually};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pgentra_emulator::Draft;
use pgentra_gateway::{
    AccountCheck, DirectoryChecks, DirectoryPrincipal, DirectoryQuestions, PrincipalDirectory, PrincipalRule,
    QuestionError, RoleRules, RoleSource, SharedRules,
};
use serde_json::json;
use uuid::Uuid;

use crate::fixture::{RESOURCE, Stage, run};

/// A directory that a test writes. It counts its questions.
#[derive(Default)]
struct Scripted {
    members: Mutex<BTreeSet<(Uuid, Uuid)>>,
    disabled: Mutex<BTreeSet<Uuid>>,
    is_down: Mutex<bool>,
    /// Principals that it refuses to be asked about.
    unanswered: Mutex<BTreeSet<Uuid>>,
    questions: AtomicUsize,
}

impl Scripted {
    fn asked(&self, who: DirectoryPrincipal) -> Result<(), QuestionError> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        if self.unanswered.lock().unwrap().contains(&who.object_id) {
            return Err(QuestionError::Refused("a refusal of the test".into()));
        }
        if *self.is_down.lock().unwrap() {
            Err(QuestionError::Unavailable("a fault of the test".into()))
        } else {
            Ok(())
        }
    }

    fn count(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

impl PrincipalDirectory for Scripted {
    fn member_of<'a>(
        &'a self,
        who: DirectoryPrincipal,
        groups: &'a [Uuid],
    ) -> BoxFuture<'a, Result<Vec<Uuid>, QuestionError>> {
        async move {
            self.asked(who)?;
            let members = self.members.lock().unwrap();
            Ok(groups.iter().copied().filter(|group| members.contains(&(who.object_id, *group))).collect())
        }
        .boxed()
    }

    fn is_enabled(&self, who: DirectoryPrincipal) -> BoxFuture<'_, Result<bool, QuestionError>> {
        async move {
            self.asked(who)?;
            Ok(!self.disabled.lock().unwrap().contains(&who.object_id))
        }
        .boxed()
    }
}

fn checks(directory: &Arc<Scripted>, questions: DirectoryQuestions) -> DirectoryChecks {
    DirectoryChecks::new(directory.clone(), questions)
}

/// A token that says that its principal is in more groups than it lists.
fn overage(draft: Draft) -> Draft {
    draft.without("groups").claim("_claim_names", json!({ "groups": "src1" }))
}

#[test]
fn groups_beyond_the_token_are_looked_up_and_kept() {
    run(async {
        let stage = Stage::flexible().await;
        let azure = stage.azure();
        let group = azure.new_group("Beyond 200");
        let administrator = {
            let gateway = stage.gateway().await;
            stage.administrator(&gateway).await
        };
        let sql = "SELECT pgaadauth_create_principal_with_oid('beyond', $1, 'group', false, false)";
        administrator.query_one(sql, &[&group.object_id().to_string()]).await.unwrap();
        let user = azure.new_user("In Many Groups");
        let token = stage.token(&overage(Draft::of_user(&user, RESOURCE)));

        // Not listed is not proven.
        let gateway = stage.gateway().await;
        let (sqlstate, message, _) = gateway.refusal("beyond", "postgres", &token).await;
        assert!(sqlstate == "28000" && message.contains("does not contain group ID"), "{message}");

        let directory = Arc::new(Scripted::default());
        let asks = checks(&directory, DirectoryQuestions { groups: true, ..DirectoryQuestions::default() });
        let gateway = stage.gateway_with(|config| config.directory = Some(asks)).await;
        gateway.refusal("beyond", "postgres", &token).await;
        assert_eq!(directory.count(), 1);
        // The answer is kept, and a gateway of its own asks for itself.
        gateway.refusal("beyond", "postgres", &token).await;
        assert_eq!(directory.count(), 1);
        directory.members.lock().unwrap().insert((user.object_id(), group.object_id()));
        let asks = checks(&directory, DirectoryQuestions { groups: true, ..DirectoryQuestions::default() });
        let gateway = stage.gateway_with(|config| config.directory = Some(asks)).await;
        for _ in 0..3 {
            gateway.connect("beyond", "postgres", &token).await.unwrap();
        }
        assert_eq!(directory.count(), 2);
        // A token that lists its groups is asked about in no case.
        let listed = stage.token(&Draft::of_user(&user, RESOURCE));
        gateway.refusal("beyond", "postgres", &listed).await;
        assert_eq!(directory.count(), 2);

        // A login whose groups cannot be looked up is refused, also if accounts need not be looked up.
        *directory.is_down.lock().unwrap() = true;
        let allows =
            DirectoryQuestions { groups: true, allow_if_unavailable: true, ..DirectoryQuestions::default() };
        let asks = checks(&directory, allows);
        let gateway = stage.gateway_with(|config| config.directory = Some(asks)).await;
        let (sqlstate, message, _) = gateway.refusal("beyond", "postgres", &token).await;
        assert!(sqlstate == "57P03" && message.contains("cannot ask Microsoft Graph"), "{message}");
        // It is not asked again at once.
        gateway.refusal("beyond", "postgres", &token).await;
        assert_eq!(directory.count(), 3);
    });
}

#[test]
fn a_question_that_is_refused_stops_no_other() {
    run(async {
        let stage = Stage::flexible().await;
        let (owner, other) = (stage.azure().administrator(), stage.azure().new_user("No Answer"));
        let role = owner.user_principal_name();
        let group = Uuid::new_v4();
        let rules = SharedRules::new(RoleRules {
            roles: [(
                role.to_owned(),
                vec![
                    PrincipalRule { groups: vec![group], ..PrincipalRule::default() },
                    PrincipalRule { object_ids: vec![owner.object_id()], ..PrincipalRule::default() },
                ],
            )]
            .into(),
            ..RoleRules::default()
        });
        let directory = Arc::new(Scripted::default());
        directory.unanswered.lock().unwrap().insert(other.object_id());
        let third = stage.azure().new_user("Member");
        directory.members.lock().unwrap().insert((third.object_id(), group));
        let asks = checks(&directory, DirectoryQuestions { groups: true, ..DirectoryQuestions::default() });
        let gateway = stage
            .gateway_with(|config| {
                config.roles = RoleSource::Rules(rules);
                config.directory = Some(asks);
            })
            .await;
        let token = |user| stage.token(&overage(Draft::of_user(user, RESOURCE)));
        let (sqlstate, ..) = gateway.refusal(role, "postgres", &token(&other)).await;
        assert_eq!((sqlstate.as_str(), directory.count()), ("57P03", 1));
        gateway.connect(role, "postgres", &token(&third)).await.unwrap();
        assert_eq!(directory.count(), 2);
        // The object id is enough: the directory is not asked.
        gateway.connect(role, "postgres", &token(owner)).await.unwrap();
        assert_eq!(directory.count(), 2);
    });
}

#[test]
fn more_groups_than_can_be_asked_for_are_no_fault_that_passes() {
    run(async {
        let stage = Stage::flexible().await;
        let owner = stage.azure().administrator();
        let role = owner.user_principal_name();
        let member = stage.azure().new_user("Of One Of Many");
        let directory = Arc::new(Scripted::default());
        let questions = DirectoryQuestions { groups: true, ..DirectoryQuestions::default() };
        let token = stage.token(&overage(Draft::of_user(&member, RESOURCE)));
        for (number, is_asked) in [(200, true), (201, false)] {
            let groups: Vec<Uuid> = (0..number).map(|_| Uuid::new_v4()).collect();
            directory.members.lock().unwrap().insert((member.object_id(), groups[0]));
            let rules = RoleRules {
                roles: [(
                    role.to_owned(),
                    vec![
                        PrincipalRule { groups, ..PrincipalRule::default() },
                        PrincipalRule { object_ids: vec![owner.object_id()], ..PrincipalRule::default() },
                    ],
                )]
                .into(),
                ..RoleRules::default()
            };
            let asks = checks(&directory, questions);
            let gateway = stage
                .gateway_with(|config| {
                    config.roles = RoleSource::Rules(SharedRules::new(rules));
                    config.directory = Some(asks);
                })
                .await;
            let before = directory.count();
            if is_asked {
                gateway.connect(role, "postgres", &token).await.unwrap();
            } else {
                let (sqlstate, message, hint) = gateway.refusal(role, "postgres", &token).await;
                assert_eq!(sqlstate, "28000", "{message}");
                assert!(message.contains("more than 200 groups decide who may use the role"), "{message}");
                assert!(hint.contains("fewer groups"), "{hint}");
            }
            assert_eq!(directory.count() - before, usize::from(is_asked));
            // A token that is enough by itself, and one that lists its groups, need no answer.
            let own = stage.token(&overage(Draft::of_user(owner, RESOURCE)));
            gateway.connect(role, "postgres", &own).await.unwrap();
            let listed = stage.token(&Draft::of_user(&member, RESOURCE));
            let (sqlstate, message, _) = gateway.refusal(role, "postgres", &listed).await;
            assert!(sqlstate == "28000" && message.contains("no rule of the role"), "{message}");
        }
    });
}

#[test]
fn a_denied_group_that_the_token_may_hide_refuses() {
    run(async {
        let stage = Stage::flexible().await;
        let owner = stage.azure().administrator();
        let role = owner.user_principal_name();
        let denied = Uuid::new_v4();
        let rules = || {
            let rule = PrincipalRule { object_ids: vec![owner.object_id()], ..PrincipalRule::default() };
            SharedRules::new(RoleRules {
                roles: [(role.to_owned(), vec![rule])].into(),
                denied: vec![PrincipalRule { groups: vec![denied], ..PrincipalRule::default() }],
                ..RoleRules::default()
            })
        };
        let token = stage.token(&overage(Draft::of_user(owner, RESOURCE)));
        let gateway = stage.gateway_with(|config| config.roles = RoleSource::Rules(rules())).await;
        let (_, message, hint) = gateway.refusal(role, "postgres", &token).await;
        assert!(message.contains("does not list the groups") && hint.contains("group_overage"), "{message}");
        gateway.connect(role, "postgres", &stage.token(&Draft::of_user(owner, RESOURCE))).await.unwrap();

        let directory = Arc::new(Scripted::default());
        let questions = DirectoryQuestions { groups: true, ..DirectoryQuestions::default() };
        let asks = checks(&directory, questions);
        let gateway = stage
            .gateway_with(|config| {
                config.roles = RoleSource::Rules(rules());
                config.directory = Some(asks);
            })
            .await;
        gateway.connect(role, "postgres", &token).await.unwrap();
        directory.members.lock().unwrap().insert((owner.object_id(), denied));
        let asks = checks(&directory, questions);
        let gateway = stage
            .gateway_with(|config| {
                config.roles = RoleSource::Rules(rules());
                config.directory = Some(asks);
            })
            .await;
        let (_, message, _) = gateway.refusal(role, "postgres", &token).await;
        assert!(message.contains("its principal is denied"), "{message}");
    });
}

#[test]
fn a_disabled_principal_gets_no_session_and_keeps_none() {
    run(async {
        let stage = Stage::flexible().await;
        let owner = stage.azure().administrator();
        let (role, token) = (owner.user_principal_name(), stage.token(&Draft::of_user(owner, RESOURCE)));
        let directory = Arc::new(Scripted::default());
        let questions = DirectoryQuestions {
            account: AccountCheck::Session(Duration::from_millis(50)),
            ..DirectoryQuestions::default()
        };
        let asks = checks(&directory, questions);
        let gateway = stage.gateway_with(|config| config.directory = Some(asks)).await;
        let client = gateway.connect(role, "postgres", &token).await.unwrap();
        // Several rounds change nothing, also while the directory is down.
        let rounds = directory.count();
        *directory.is_down.lock().unwrap() = true;
        eventually(DEADLINE, "it was asked again", async || {
            if directory.count() > rounds { Ok(()) } else { Err(directory.count()) }
        })
        .await;
        client.simple_query("SELECT 1").await.unwrap();
        *directory.is_down.lock().unwrap() = false;
        directory.disabled.lock().unwrap().insert(owner.object_id());
        let error = client.simple_query("SELECT pg_sleep(60)").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "57P01", "{error:?}");
        let (sqlstate, message, _) = gateway.refusal(role, "postgres", &token).await;
        assert!(sqlstate == "28000" && message.contains("is disabled or was deleted"), "{message}");
    });
}

#[test]
fn what_happens_while_the_directory_is_down_is_a_choice() {
    run(async {
        let stage = Stage::flexible().await;
        let owner = stage.azure().administrator();
        let (role, token) = (owner.user_principal_name(), stage.token(&Draft::of_user(owner, RESOURCE)));
        for allows in [false, true] {
            let directory = Arc::new(Scripted::default());
            *directory.is_down.lock().unwrap() = true;
            let asks = checks(
                &directory,
                DirectoryQuestions {
                    groups: false,
                    account: AccountCheck::Login,
                    allow_if_unavailable: allows,
                },
            );
            let gateway = stage.gateway_with(|config| config.directory = Some(asks)).await;
            if allows {
                gateway.connect(role, "postgres", &token).await.unwrap();
            } else {
                let (sqlstate, ..) = gateway.refusal(role, "postgres", &token).await;
                assert_eq!(sqlstate, "57P03");
            }
            assert_eq!(directory.count(), 1);
        }
    });
}
