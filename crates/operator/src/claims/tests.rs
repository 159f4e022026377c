use super::*;

fn claimant(uid: &str, created: i64, roles: &[&str]) -> Claimant {
    Claimant {
        uid: uid.to_owned(),
        created,
        name: format!("team/{uid}"),
        server: ServerNames { endpoints: ["one:5432".to_owned()].into(), identifier: None },
        wanted: roles.iter().map(|role| ((*role).to_owned(), None)).collect(),
        held: BTreeSet::new(),
        applies: true,
    }
}

fn owners(claimed: &Claimed) -> Vec<(&str, &str)> {
    claimed.conflicts.iter().map(|conflict| (&*conflict.role, &*conflict.owner)).collect()
}

#[test]
fn the_older_resource_gets_a_role_and_all_or_nothing() {
    let claims = Claims::default();
    let (older, newer) = (claimant("older", 1, &["a", "b"]), claimant("newer", 2, &["b", "c"]));
    let all = vec![older.clone(), newer.clone()];
    let claimed = claims.claim(&newer, all.clone());
    assert_eq!(owners(&claimed), [("b", "team/older")]);
    assert_eq!(claims.claim(&older, all.clone()).conflicts, []);
    // The refused resource goes before a newer one, which would get `c` now and lose it later.
    assert_eq!(claims.claim(&claimant("third", 3, &["c"]), vec![older, newer]).conflicts.len(), 1);
}

#[test]
fn who_has_a_role_keeps_it() {
    let claims = Claims::default();
    let newer = claimant("newer", 2, &["a"]);
    assert_eq!(claims.claim(&newer, vec![newer.clone()]).conflicts, []);
    // An older resource names the role later.
    let older = claimant("older", 1, &["a"]);
    let all = vec![older.clone(), newer.clone()];
    assert_eq!(owners(&claims.claim(&older, all.clone())), [("a", "team/newer")]);
    assert_eq!(claims.claim(&newer, all.clone()).conflicts, []);
    // The same by what is in the status alone, as after a change of the leader.
    let claims = Claims::default();
    let held = Claimant { held: ["a".to_owned()].into(), ..newer.clone() };
    assert_eq!(owners(&claims.claim(&older, vec![older.clone(), held])), [("a", "team/newer")]);
    // Gone, it has nothing.
    let claims = Claims::default();
    claims.claim(&newer, vec![newer.clone()]);
    assert_eq!(claims.claim(&older, vec![older.clone()]).conflicts, []);
    let all = vec![older.clone(), newer.clone()];
    assert_eq!(owners(&claims.claim(&newer, all)), [("a", "team/older")]);
}

#[test]
fn another_server_is_another_role_and_another_name_is_not() {
    let claims = Claims::default();
    let one = claimant("one", 1, &["a"]);
    let mut two = claimant("two", 2, &["a"]);
    two.server.endpoints = ["two:5432".to_owned()].into();
    assert_eq!(claims.claim(&two, vec![one.clone(), two.clone()]).conflicts, []);
    let identifier = Some("7".to_owned());
    let mut one = one;
    (one.server.identifier, two.server.identifier) = (identifier.clone(), identifier);
    let claims = Claims::default();
    assert_eq!(claims.claim(&two, vec![one, two.clone()]).conflicts.len(), 1);
}

#[test]
fn a_principal_has_one_role() {
    let claims = Claims::default();
    let id = Some(Uuid::from_u128(1));
    let mut one = claimant("one", 1, &["a"]);
    let mut two = claimant("two", 2, &["b"]);
    one.wanted.insert("a".to_owned(), id);
    two.wanted.insert("b".to_owned(), id);
    let claimed = claims.claim(&two, vec![one, two.clone()]);
    let conflict =
        Conflict { role: "b".to_owned(), as_role: Some("a".to_owned()), owner: "team/one".to_owned() };
    assert_eq!(claimed.conflicts, [conflict]);
}

#[test]
fn a_resource_that_plans_holds_nothing_and_sees_what_others_have() {
    let claims = Claims::default();
    let plans = Claimant { applies: false, ..claimant("plans", 1, &["a"]) };
    assert_eq!(claims.claim(&plans, vec![plans.clone()]).conflicts, []);
    let applies = claimant("applies", 2, &["a"]);
    let all = vec![plans.clone(), applies.clone()];
    let claimed = claims.claim(&applies, all.clone());
    assert_eq!((claimed.conflicts.len(), claimed.foreign.len()), (0, 0));
    let claimed = claims.claim(&plans, all);
    assert_eq!(owners(&claimed), [("a", "team/applies")]);
    assert_eq!(claimed.foreign["a"], "team/applies");
}

#[test]
fn a_resource_that_plans_now_keeps_only_what_it_still_names() {
    let claims = Claims::default();
    let before = claimant("one", 1, &["a", "b"]);
    assert_eq!(claims.claim(&before, vec![before.clone()]).conflicts, []);
    // The status is that of the policy before; the roles of the resource are what it names and had.
    let plans = Claimant { applies: false, held: ["a".to_owned()].into(), ..claimant("one", 1, &["a"]) };
    let next = claimant("next", 2, &["b"]);
    let all = vec![plans.clone(), next.clone()];
    assert_eq!(claims.claim(&plans, all.clone()).conflicts, []);
    assert_eq!(claims.claim(&next, all.clone()).conflicts, []);
    assert_eq!(owners(&claims.claim(&claimant("last", 3, &["a"]), all)), [("a", "team/one")]);
}
