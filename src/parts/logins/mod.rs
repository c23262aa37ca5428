//! Who may log in: the generated admin, the table of users, the pull Secret. A user who is not wanted any more is out as soon as this part can write,
//! whatever else is wrong; who cannot be hashed in this pass follows in the next ones.

pub(super) mod accounts;
pub(super) mod copies;
mod decide;
mod rotated;
mod tokens;
mod untold;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use decide::{Admin, Lent};
use jiff::Timestamp;
use kube::Resource as _;
use operator_engine::apply::{Hold, Live, Outcome, Standing};
use operator_engine::work::backoff::Class;
use operator_engine::work::events::{Happening, Tone};
use rotated::{Rotations, StoredTable};
use untold::{Copies, Entry, Untold};

use super::address::Address;
use super::kubelets::{self, News};
use super::{Keep, Pass, being_deleted};
use crate::api::{condition, reason};
use crate::credentials::plan::HASH_FAILED;
use crate::credentials::users_in;
use crate::desired::{self, kinds, secrets};
use crate::model::{Child, LoginCopy, PullAs, Users};
use crate::secret::Sensitive;
use crate::status::{self, Problem, Reach, summary};

/// How long passwords are hashed in one pass: what is left follows at once in the next, and others are not kept waiting.
const PORTION: Duration = Duration::from_millis(500);

const IMMUTABLE: &str = "Immutable";
const PODS_KEEP_OLD_TABLE: &str = "PodsKeepOldTable";

/// What the part gives back.
#[derive(Default)]
pub struct Logins {
    /// Whether the workload may start: everybody is let in, or there is a table.
    pub is_guarded: bool,
    /// What the status says.
    pub report: status::Logins,
    /// What must stay.
    pub keep: Keep,
    /// What is known of the logins for other namespaces, entry by entry; `None`: nothing, this time.
    pub(super) lent: Option<Vec<Lent>>,
    /// Whether some users are not hashed yet: the next pass goes on at once.
    pub is_unfinished: bool,
    /// What signs tokens, if clients get them and there is one.
    pub tokens: Option<desired::TokenKeys>,
    /// When keys or logins are to be exchanged.
    pub look_again: Option<Timestamp>,
    /// Users whose passwords the operator makes.
    rotations: Rotations,
    /// Whose present login not every pull Secret of the namespace shows.
    untold: Untold,
}

/// Keeps, makes or drops hashes, the generated admin, the pull Secret and the keys of tokens. `is_rolling`: pods are being replaced.
pub async fn settle(pass: &Pass<'_>, address: &Address, is_rolling: bool) -> Logins {
    if pass.registry.policy().is_none() {
        return users(pass, address, None, is_rolling).await;
    }
    let keys = tokens::settle(pass, is_rolling).await;
    let mut users = users(pass, address, keys.live.as_ref(), is_rolling).await;
    users.keep.insert(pass.named(kinds::SECRET, Child::Token));
    users.report.problems.splice(0..0, keys.problem);
    let is_guarded = users.is_guarded && keys.keys.is_some();
    let look_again = users.look_again.into_iter().chain(keys.look_again).min();
    Logins { is_guarded, tokens: keys.keys, look_again, ..users }
}

/// When all who pull with a user's login have been given the present one: `copies` have been, in other namespaces. From then on the time of his former
/// login counts, and not earlier: whoever pulls must not be shown a login that has ended. What somebody in another namespace refuses counts for nobody else,
/// and what is wrong with one login for no other.
pub async fn count_overlaps(pass: &Pass<'_>, logins: &mut Logins, copies: Option<&Reach>) {
    if pass.registry.rotated_users().is_empty() {
        return;
    }
    let untold = logins.untold.clone().or(untold_elsewhere(pass, logins.lent.as_deref(), copies));
    let (look_again, problems) = logins.rotations.count(pass, &mut logins.report.users, &untold).await;
    logins.report.problems.extend(problems);
    logins.look_again = logins.look_again.into_iter().chain(look_again).min();
}

/// Whose former login copies in other namespaces may still show.
fn untold_elsewhere(pass: &Pass<'_>, lent: Option<&[Lent]>, copies: Option<&Reach>) -> Untold {
    // While it cannot be said which namespaces are meant, those that have a login keep it.
    let stay_as_they_are = |copies: &Reach| {
        let is_open = copies.problem.as_ref().is_some_and(|problem| problem.reason == reason::PROGRESSING);
        copies.is_unfinished || copies.fault.is_some() || is_open
    };
    let copies = if copies.is_some_and(stay_as_they_are) { Copies::Unclear } else { Copies::Written };
    let entry = |(number, copy): (usize, &LoginCopy)| match &copy.whom {
        PullAs::User(user) => {
            let is_open = lent.and_then(|lent| lent.get(number)).is_none_or(|lent| matches!(lent, Lent::Open));
            Some(Entry { user: user.clone(), is_open })
        }
        PullAs::ServiceAccount(_) => None,
    };
    let entries: Vec<_> = pass.registry.login_copies.iter().enumerate().filter_map(entry).collect();
    let before = pass.ctx.recall.users_elsewhere(pass.key);
    let (untold, shown) = untold::elsewhere(before.as_ref(), &entries, copies);
    pass.ctx.recall.has_users_elsewhere(pass.key, shown);
    untold
}

/// All of it but the keys of tokens, which are in this Secret.
async fn users(pass: &Pass<'_>, address: &Address, keys: Option<&Live>, is_rolling: bool) -> Logins {
    // The admin's password is never pruned: it is let go on purpose, when others can log in.
    let admin = pass.named(kinds::SECRET, Child::Admin);
    let table_name = pass.named(kinds::SECRET, Child::Htpasswd);
    let all = || {
        let pull = pass.registry.pull_secrets.iter().map(|secret| (kinds::SECRET, secret.name.clone()));
        let own = [admin.clone(), table_name.clone(), pass.named(kinds::SECRET, Child::Pull)];
        own.into_iter().chain(pull).chain(rotated::secrets(pass)).collect::<Keep>()
    };
    if matches!(pass.registry.users, Users::Everybody) {
        let report = status::Logins::default();
        let (keep, lent) = (Keep::from([admin]), Some(Vec::new()));
        return Logins { is_guarded: true, report, keep, lent, ..Logins::default() };
    }
    let table = match read_table(pass).await {
        Ok(table) => table,
        Err(problem) => {
            let report = status::Logins::as_before(pass.before, problem);
            return Logins { is_guarded: true, report, keep: all(), ..Logins::default() };
        }
    };
    let admin_name = admin.clone();
    let is_followed = is_followed(pass, table.as_ref(), keys, is_rolling).await;
    let mut rotations = rotated::settle(pass, &StoredTable::of(pass, table.as_ref()), is_followed).await;
    let (admin, mut problems) = generated_admin(pass, &rotations).await;
    problems.append(&mut rotations.problems);
    let deadline = Instant::now() + PORTION;
    let decided =
        decide::table(pass.registry, pass.observed, table.as_ref(), admin.as_ref(), &rotations, deadline, pass.now);
    let decided = decided.await;
    let decided = match decided {
        Ok(decided) => decided,
        Err(error) => {
            let report = status::Logins::as_before(pass.before, pass.problem(error));
            return Logins { is_guarded: table.is_some(), report, keep: all(), ..Logins::default() };
        }
    };
    let mut report = decided.report;
    let mut is_guarded = table.is_some();
    let mut is_news = false;
    let mut standing = table;
    if let Some(wanted) = &decided.table {
        match pass.apply_random(Child::Htpasswd, secrets::table(pass.registry, wanted)).await {
            Ok(applied) if applied.outcome == Outcome::Replacing => {
                let words = "the Secret of the table of users is being deleted; it is made anew when it is gone, and until then nobody is added or removed";
                problems.push(Problem::retrying(reason::BEING_DELETED, words));
            }
            Ok(applied) => {
                is_guarded = true;
                is_news = kubelets::is_news(pass, applied.outcome);
                standing = Some(applied.live);
            }
            Err(error) => problems.push(pass.problem(error)),
        }
    }
    problems.extend(out_of_reach(pass, standing.as_ref(), keys).await);
    if problems.is_empty() && admin.is_none() && !report.users.is_empty() {
        problems.extend(end_admin(pass).await);
    }
    let look_again = rotations.look_again(pass, &StoredTable::of(pass, standing.as_ref()), is_followed);
    let (refused, untold) = pull(pass, address, &decided.pull, &rotations).await;
    problems.extend(refused);
    if is_news {
        pass.ctx.recall.has_news(pass.key, News::Users);
    }
    if let Some(table) = &decided.table {
        report.untold = told(pass, table).await.map(|problem| problem.message);
    }
    if report.problems.iter().any(|problem| problem.reason == HASH_FAILED) {
        pass.failures.note(HASH_FAILED, Class::Bug);
    }
    report.problems.splice(0..0, problems);
    let pull = decided.pull.into_iter().map(|(name, _)| (kinds::SECRET, name));
    let keep = [admin_name, table_name].into_iter().chain(pull).chain(rotated::secrets(pass)).collect();
    Logins {
        is_guarded,
        keep,
        look_again,
        rotations,
        untold,
        lent: Some(decided.lent),
        is_unfinished: decided.is_unfinished,
        report,
        ..Logins::default()
    }
}

/// Whether running pods follow the table, and are what the manifest says: those of a registry whose clients get tokens take both passwords of a user by one
/// name, and the others do not.
async fn is_followed(pass: &Pass<'_>, table: Option<&Live>, keys: Option<&Live>, is_rolling: bool) -> bool {
    let Some(table) = table.filter(|table| !table.is_leaving()) else { return false };
    let is_known = pass.before.observed_generation == Some(pass.registry.generation);
    is_known && !is_rolling && out_of_reach(pass, Some(table), keys).await.is_none()
}

/// Takes those out of the table who are not wanted any more, of a registry that was deleted and is held by others. Makes nothing anew: the garbage
/// collector may be taking its children.
pub async fn revoke(pass: &Pass<'_>) -> Option<Problem> {
    let table = match read_table(pass).await {
        Ok(table) => table.filter(|table| !table.is_leaving())?,
        Err(problem) => return Some(problem),
    };
    let rotations = rotated::look(pass).await;
    let name = pass.registry.name.child(Child::Admin);
    let admin = match pass.ctx.engine.known_standing(&pass.owner, kinds::SECRET, &name, Hold::Kept).await {
        Ok(Standing::Ours(live) | Standing::Leaving(live)) if decide::wants_admin(pass.registry, &rotations, true) => {
            decide::login_of(&live).map(|login| Admin::of(pass.registry, &login.password))
        }
        Ok(_) => None,
        Err(error) => return Some(pass.problem(error)),
    };
    let deadline = Instant::now() + PORTION;
    let (registry, admin) = (pass.registry, admin.as_ref());
    let decided = decide::table(registry, pass.observed, Some(&table), admin, &rotations, deadline, pass.now).await;
    let wanted = match decided {
        Ok(decided) => decided.table?,
        Err(error) => return Some(pass.problem(error)),
    };
    match pass.apply_random(Child::Htpasswd, secrets::table(pass.registry, &wanted)).await {
        Ok(applied) if applied.outcome == Outcome::Changed => pass.ctx.recall.has_news(pass.key, News::Users),
        Ok(_) => {}
        Err(error) => return Some(pass.problem(error)),
    }
    told(pass, &wanted).await
}

/// Sees to it that running pods hear of a change. Why they could not.
async fn told(pass: &Pass<'_>, table: &desired::Table) -> Option<Problem> {
    // The digest tells one table from the next, not the table: its hashes are salted.
    kubelets::tell(pass, News::Users, || {
        desired::workload::sha256(&[table.file.expose().as_bytes(), table.access.as_bytes()].concat())
    })
    .await
}

/// Why what is written does not reach running pods: a kubelet never looks at an immutable Secret again, not even at another of its name, as long as a pod
/// of its node mounts it.
async fn out_of_reach(pass: &Pass<'_>, table: Option<&Live>, keys: Option<&Live>) -> Option<Problem> {
    table?;
    let way = "set spec.suspend to true until no pod is left, and then back";
    let all = || table.into_iter().chain(keys);
    if let Some(fixed) = all().find(|secret| secret.value()["immutable"] == true) {
        let words = format!(
            "Secret {} is immutable, so that no change of users or keys reaches pods that run; delete it, it is made again, and {way}",
            fixed.name()
        );
        return Some(Problem::stuck(IMMUTABLE, words));
    }
    let secret = format!("Secret {}", all().map(Live::name).collect::<Vec<_>>().join(" or "));
    let before = pass.before.condition(condition::USERS_READY)?;
    // Of other Secrets, which no pod of the registry mounts, the same is said.
    let was_one_of_these = || all().any(|secret| before.message.contains(&format!("{} is ", secret.name())));
    match before.reason.as_str() {
        PODS_KEEP_OLD_TABLE => {}
        IMMUTABLE if was_one_of_these() => {}
        _ => return None,
    }
    let pods = match pass.ctx.pods(pass.key).await {
        Ok(pods) => pods,
        Err(error) => return Some(pass.problem(error)),
    };
    // One that comes in the place of another mounts what its node has kept for that one.
    let holding = pods.iter().filter(|pod| !["Succeeded", "Failed"].contains(&pod.phase.as_str()));
    let holding: Vec<_> = holding.map(|pod| pod.name.as_str()).collect();
    let words = format!(
        "{secret} was immutable, and as long as a pod mounts it, its node shows all of them what it was then: whoever was in that table may still be let \
         in by {}; {way}",
        holding.join(", ")
    );
    (!holding.is_empty()).then(|| Problem::stuck(PODS_KEEP_OLD_TABLE, words))
}

async fn read_table(pass: &Pass<'_>) -> Result<Option<Live>, Problem> {
    pass.read_random(Child::Htpasswd).await.map_err(|error| pass.problem(error))
}

/// The generated admin, stored and proved ours: nothing may be derived from a password that is stored nowhere.
async fn generated_admin(pass: &Pass<'_>, rotations: &Rotations) -> (Option<Admin>, Vec<Problem>) {
    let name = pass.registry.name.child(Child::Admin);
    let none = |problem: Problem| (None, vec![problem]);
    let standing = match pass.ctx.engine.known_standing(&pass.owner, kinds::SECRET, &name, Hold::Kept).await {
        Ok(standing) => standing,
        Err(error) => {
            let admin = decide::wants_admin(pass.registry, rotations, true).then(|| Admin::as_stored(pass.registry));
            return (admin, vec![pass.problem(error)]);
        }
    };
    let stored = match &standing {
        Standing::Ours(live) | Standing::Offered(live) | Standing::Leaving(live) => Some(live),
        Standing::Absent | Standing::Foreign(_) => None,
    };
    if !decide::wants_admin(pass.registry, rotations, stored.is_some()) {
        return (None, Vec::new());
    }
    let login = match (&standing, stored.map(decide::login_of)) {
        (Standing::Foreign(claim), _) => {
            return none(pass.problem(pass.not_ours(kinds::SECRET, &name, claim.clone())));
        }
        // Its password holds while it is there, and nothing is written to it.
        (Standing::Leaving(_), Some(Some(login))) => {
            let how = "when it is gone, a new password is made; take that one, or name users in spec.auth";
            return (
                Some(Admin::of(pass.registry, &login.password)),
                vec![being_deleted(&format!("Secret {name}"), how)],
            );
        }
        (_, Some(None)) => {
            let message = format!(
                "Secret {name} holds no password of 8 to 72 bytes under the key password; put one there, or delete the Secret for a new one"
            );
            return none(Problem::stuck("AdminUnreadable", message));
        }
        (_, Some(Some(login))) => login,
        (_, None) => match decide::new_login() {
            Ok(login) => login,
            Err(error) => return none(pass.problem(error)),
        },
    };
    let admin = Admin::of(pass.registry, &login.password);
    match (pass.apply(secrets::admin(pass.registry, &login)).await, standing) {
        (Ok(_), _) => (Some(admin), Vec::new()),
        // Stored it is, whatever keeps its labels from being put right.
        (Err(error), Standing::Ours(_)) => (Some(admin), vec![pass.problem(error)]),
        (Err(error), _) => none(pass.problem(error)),
    }
}

/// Removes the generated admin, after a table with other users was written. That a password ends is worth an event.
async fn end_admin(pass: &Pass<'_>) -> Option<Problem> {
    let name = pass.registry.name.child(Child::Admin);
    match pass.ctx.engine.read_known_child(&pass.owner, kinds::SECRET, &name).await {
        Ok(Some(_)) => {}
        Ok(None) => return None,
        Err(error) => return Some(pass.problem(error)),
    }
    if let Err(error) = pass.ctx.engine.remove(&pass.owner, kinds::SECRET, &name).await {
        return Some(pass.problem(error));
    }
    let ended = Happening {
        tone: Tone::Normal,
        reason: "AdminRemoved".to_owned(),
        action: condition::USERS_READY.to_owned(),
        note: format!("Secret {name} was removed and its login ended: other users can log in now"),
    };
    pass.ctx.events.publish(&pass.manifest.object_ref(&()), &[ended]).await;
    None
}

/// The logins for pods of the namespace. They name every address, so they wait for the Service. What is not among them any more is pruned.
/// Gives what is wrong, and whose login is not shown where it is to be.
async fn pull(
    pass: &Pass<'_>,
    address: &Address,
    logins: &[(String, Option<decide::PullLogin>)],
    rotations: &Rotations,
) -> (Vec<Problem>, Untold) {
    let Some(service) = address.service() else { return (Vec::new(), Untold::Everybody) };
    let addresses: BTreeSet<_> = summary::image_hosts(pass.registry, service);
    let (mut problems, mut untold) = (Vec::new(), Untold::nobody());
    for (name, login) in logins {
        let is_written = match login {
            // What is there stays.
            None => false,
            Some(login) => {
                let config: Sensitive<String> = login.docker_config(&addresses);
                match pass.apply(secrets::pull(pass.registry, name, &config)).await {
                    Ok(applied) => !matches!(applied.outcome, Outcome::Damped | Outcome::Replacing),
                    Err(error) => {
                        problems.push(pass.problem(error));
                        false
                    }
                }
            }
        };
        if !is_written && rotations.wait_to_count(pass.now) {
            untold = untold.or(shown_by(pass, name, rotations).await);
        }
    }
    (problems, untold)
}

/// Whose former login a pull Secret may show that is not as it should be: whom it is to show, and whom it does.
async fn shown_by(pass: &Pass<'_>, name: &str, rotations: &Rotations) -> Untold {
    let live = match pass.ctx.engine.read_known_child(&pass.owner, kinds::SECRET, name).await {
        Ok(live) => live,
        Err(error) => {
            pass.problem(error);
            return Untold::Everybody;
        }
    };
    let wanted = pass.registry.pull_secrets.iter().find(|secret| secret.name == name);
    let wanted = wanted.and_then(|secret| match &secret.whom {
        PullAs::User(user) => Some(user.clone()),
        PullAs::ServiceAccount(_) => None,
    });
    let shown = live.and_then(|live| decide::text(&live, ".dockerconfigjson")).unwrap_or_default();
    let shown = users_in(&shown).into_iter();
    let shown = shown.map(|name| rotations.whose(&name).cloned().unwrap_or(name));
    Untold::These(wanted.into_iter().chain(shown).collect())
}
