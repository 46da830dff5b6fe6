//! Whose turn it is to be configured: founders together, a joining member when etcd expects it, and whatever runs one machine at a time.

use crate::draft::{Draft, PROBE_API_SERVER, PROBE_ETCD};
use crate::quorum::{Votes, member_of};
use crate::{MachineRecord, Reason, dead, departure, reconfigure, rollout};
use slipway_model::{MachineName, PlanDigest, Pool};

/// Who may be configured in this pass.
pub(crate) struct Turn<'a> {
    /// All founders are there and claimed, none but them.
    founders_ready: bool,
    /// The one control plane whose running configuration may be changed now.
    control_plane: Option<&'a MachineName>,
    /// Of each pool the one worker, which it can spare, whose running configuration may be changed now.
    workers: Vec<&'a MachineName>,
}

/// Why a machine has to wait.
pub(crate) type Held = (Reason, &'static str);

impl<'a> Turn<'a> {
    pub fn of(draft: &Draft<'a>) -> Self {
        let planes: Vec<&MachineRecord> = draft.control_planes().collect();
        let founders = &draft.observed.cluster.founders;
        let founder = |m: &MachineRecord| founders.contains(&m.name) && m.claimed && !draft.is_gone(m);
        let leaving = draft.leaving_control_planes().next().is_some();
        let founders_ready = !founders.is_empty() && planes.len() == founders.len() && planes.iter().all(|m| founder(m)) && !leaving;
        let workers = draft.spec.pools.iter().filter_map(|p| worker(draft, p)).collect();
        Self { founders_ready, control_plane: control_plane(draft), workers }
    }

    /// Whether this machine may get its wanted configuration now, or what it waits for.
    pub fn may_apply(&self, draft: &Draft<'_>, machine: &MachineRecord, accepted: Option<&PlanDigest>) -> Result<(), Held> {
        let bootstrapped = draft.observed.cluster.bootstrapped;
        let mine = match (machine.is_control_plane(), accepted) {
            (true, None) if bootstrapped => return may_join(draft, machine),
            // All etcd members start together.
            (true, None) if self.founders_ready => true,
            (true, None) => return Err((Reason::WaitingForFounders, "every founder of the control plane to be claimed")),
            // There is no quorum to protect yet, and the change may be what it lacks.
            (true, Some(_)) => !bootstrapped || self.control_plane == Some(&machine.name),
            (false, None) => true,
            // How many of a pool are changed at once was decided when they were told.
            (false, Some(_)) => {
                let told = rollout::is_in_step(draft, machine) && !rollout::has_followed(draft, machine);
                told || self.workers.contains(&&machine.name)
            }
        };
        if mine { Ok(()) } else { Err((Reason::WaitingForOthers, "its turn: another machine is not healthy or not done yet")) }
    }
}

/// A new member is started once, when etcd expects it: its id is recorded, and it has never been started.
fn may_join(draft: &Draft<'_>, machine: &MachineRecord) -> Result<(), Held> {
    let Some(etcd) = draft.observed.etcd.known() else {
        return Err((Reason::MemberJoining, "etcd to be asked whether it expects this member"));
    };
    let expected = machine.join.is_some() && member_of(etcd, machine).is_some_and(|m| m.name.is_empty() && m.learner);
    if expected {
        return Ok(());
    }
    if machine.join.is_some() && member_of(etcd, machine).is_none() {
        return Err((
            Reason::MemberUnhealthy,
            "its etcd member, which was removed before it started: delete the Machine object and it is replaced",
        ));
    }
    Err((Reason::MemberJoining, "etcd to take it in"))
}

/// The control plane whose running configuration may be changed: the one that retires before all others, and none while etcd's members change.
fn control_plane<'a>(draft: &Draft<'a>) -> Option<&'a MachineName> {
    let bootstrapped = draft.observed.cluster.bootstrapped;
    if bootstrapped && draft.membership_changes {
        return None;
    }
    let well = |m: &MachineRecord| {
        draft.heard(&m.name).is_some_and(|s| {
            s.applied.is_some() && s.applied == s.accepted && s.healthy(PROBE_ETCD) && (m.retiring || s.healthy(PROBE_API_SERVER))
        })
    };
    // Those that were never told anything serve nobody yet; those that left etcd, or are dead and leave, serve nobody any more.
    let young = |m: &MachineRecord| !m.claimed || draft.heard(&m.name).is_some_and(|s| s.accepted.is_none());
    let leaving = draft.leaving_control_planes().filter(|m| bootstrapped && !departure::is_released(draft, m) && !dead::is_dead(draft, m));
    let group: Vec<&MachineRecord> = draft.control_planes().chain(leaving).filter(|m| !(bootstrapped && young(m))).collect();
    match group.iter().find(|m| m.retiring) {
        Some(retiring) => {
            let others_well = group.iter().all(|m| m.name == retiring.name || well(m));
            Some(&retiring.name).filter(|_| others_well && may_change(draft, retiring))
        }
        None => pick(draft, &group, well).filter(|name| !bootstrapped || may_restart(draft, name)),
    }
}

/// Whether etcd bears that a machine's member is restarted. One that retires keeps its etcd running; one that is alone in etcd has to be restarted some
/// time; and where etcd cannot be asked, what is wrong may be just what the new configuration cures.
///
/// Two members are fewer than three: after one was lost and removed, what was told before has to wait for its successor. Found by exploration.
fn may_restart(draft: &Draft<'_>, name: &MachineName) -> bool {
    let Some(etcd) = draft.observed.etcd.known() else { return true };
    let votes = Votes::of(draft, etcd);
    let member = etcd.voters().find(|m| m.name == name.as_str() && votes.answers(m));
    member.is_none_or(|m| votes.count() == 1 || votes.bear_its_loss(m))
}

/// Whether a machine was told something else than what it should be told now, and may be told it at this hour. Who has to wait keeps nobody else waiting.
fn may_change(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let accepted = draft.heard(&machine.name).and_then(|s| s.accepted.as_ref());
    accepted.is_some()
        && draft.observed.wanted.get(&machine.name).is_some_and(|w| Some(w) != accepted)
        && !reconfigure::is_held(draft, machine)
}

/// The worker of a pool whose running configuration may be changed.
fn worker<'a>(draft: &Draft<'a>, pool: &Pool) -> Option<&'a MachineName> {
    let working = |m: &MachineRecord| {
        let settled = draft.heard(&m.name).is_some_and(|s| s.applied.is_some() && s.applied == s.accepted);
        settled && draft.node(&m.name).is_some_and(|n| n.ready)
    };
    let group: Vec<&MachineRecord> = draft.workers().filter(|m| m.pool == pool.name).collect();
    rollout::next_to_reconfigure(draft, pool, &candidates(draft, &group, working)).map(|m| &m.name)
}

/// The control plane whose running configuration may be changed.
fn pick<'a>(draft: &Draft<'a>, group: &[&'a MachineRecord], well: impl Fn(&MachineRecord) -> bool) -> Option<&'a MachineName> {
    candidates(draft, group, well).first().map(|m| &m.name)
}

/// The machines of a group whose configuration may be changed: only when all others are well. One that is ill itself comes first: the change may cure it.
fn candidates<'a>(draft: &Draft<'a>, group: &[&'a MachineRecord], well: impl Fn(&MachineRecord) -> bool) -> Vec<&'a MachineRecord> {
    let ill: Vec<&MachineRecord> = group.iter().copied().filter(|m| !well(m)).collect();
    let of = match ill.len() {
        0 => group,
        1 => &ill,
        _ => &[],
    };
    of.iter().copied().filter(|m| may_change(draft, m)).collect()
}
