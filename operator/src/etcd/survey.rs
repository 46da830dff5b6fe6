//! From what members say to the planner's facts: pure, so that each of its rules has a small test.

use super::{EtcdError, Listed, Report};
use jiff::Timestamp;
use slipway_model::{ComponentVersion, MachineName};
use slipway_plan::{EtcdFacts, Fact, MemberFacts, MemberId, MemberStatus};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Since when members have answered, or have not, over surveys.
#[derive(Debug, Default)]
pub struct Since(BTreeMap<MemberId, (bool, Timestamp)>);

impl Since {
    /// Notes whether a member answers; gives since when it does or does not.
    fn note(&mut self, member: MemberId, answers: bool, now: Timestamp) -> Timestamp {
        let entry = self.0.entry(member).or_insert((answers, now));
        if entry.0 != answers {
            *entry = (answers, now);
        }
        entry.1
    }
}

/// What the machines' members said when they were asked, by machine.
pub type Reports = BTreeMap<MachineName, Result<Report, EtcdError>>;

/// Whose members may be asked for the list: voters that know a leader, the leader first.
pub fn to_be_asked(reports: &Reports) -> Vec<MachineName> {
    let mut able: Vec<(&MachineName, &Report)> = reports.iter().filter_map(|(machine, r)| Some((machine, r.as_ref().ok()?))).collect();
    able.retain(|(_, r)| r.leader.is_some() && !r.learner);
    able.sort_by_key(|(_, r)| (r.leader != Some(r.id), std::cmp::Reverse(r.term)));
    able.into_iter().map(|(machine, _)| machine.clone()).collect()
}

/// The facts, from a list and what members said just before it.
pub fn facts(list: &[Listed], reports: &Reports, since: &mut Since, now: Timestamp) -> Result<EtcdFacts, String> {
    let said: BTreeMap<MemberId, &Report> = reports.values().flatten().map(|r| (r.id, r)).collect();
    // Who is behind may still believe in a former leader.
    let leader = said.values().filter(|r| r.leader.is_some()).max_by_key(|r| r.term).and_then(|r| r.leader);
    let committed = leader.and_then(|id| said.get(&id)).map(|r| r.committed);
    since.0.retain(|id, _| list.iter().any(|m| m.id == *id));
    let member = |listed: &Listed| {
        let status = said.get(&listed.id).ok_or_else(|| silence(listed, reports)).and_then(|r| status(r, leader, committed));
        let since = since.note(listed.id, status.is_ok(), now);
        Ok(MemberFacts {
            id: listed.id,
            name: listed.name.clone(),
            peer: peer(listed)?,
            learner: listed.learner,
            status: match status {
                Ok(status) => Fact::Known(MemberStatus { healthy_since: since, ..status }),
                Err(why) => Fact::unknown(why, since),
            },
        })
    };
    let mut members = list.iter().map(member).collect::<Result<Vec<_>, String>>()?;
    members.sort_by_key(|m| m.id);
    let mut alarms: Vec<(MemberId, String)> = said.values().flat_map(|r| r.errors.iter().filter_map(|e| alarm(e))).collect();
    alarms.sort();
    alarms.dedup();
    Ok(EtcdFacts { members, alarms })
}

/// A member that knows no leader does not work, whatever else it says.
fn status(report: &Report, leader: Option<MemberId>, committed: Option<u64>) -> Result<MemberStatus, String> {
    if report.leader.is_none() {
        return Err("it knows no leader".to_owned());
    }
    let release = report.version.split(['-', '+']).next().unwrap_or_default();
    let version: ComponentVersion = format!("v{release}").parse().map_err(|e| format!("{e}"))?;
    Ok(MemberStatus {
        version,
        leader: leader == Some(report.id),
        // As etcd itself judges a learner before it gives it a vote.
        in_sync: committed.is_some_and(|all| report.applied.saturating_mul(10) >= all.saturating_mul(9)),
        healthy_since: Timestamp::UNIX_EPOCH,
        db_bytes: report.db_bytes,
    })
}

/// Why nothing was heard of a member.
fn silence(listed: &Listed, reports: &Reports) -> String {
    if listed.name.is_empty() {
        return "it was added and has not started yet".to_owned();
    }
    match reports.iter().find(|(machine, _)| machine.as_str() == listed.name) {
        Some((_, Err(error))) => error.to_string(),
        Some((_, Ok(report))) => format!("etcd on its machine says that it is member {}", report.id),
        None => format!("{} has no machine that could be asked", listed.name),
    }
}

fn peer(listed: &Listed) -> Result<Ipv4Addr, String> {
    let address = listed.peer_urls.first().and_then(|url| url.strip_prefix("https://")?.rsplit_once(':')?.0.parse().ok());
    address
        .ok_or_else(|| format!("member {} ({}) has peers at {:?}, which is no address of ours", listed.id, listed.name, listed.peer_urls))
}

/// `memberID:1234 alarm:NOSPACE `, as a status tells it: asking for alarms would go through etcd's log each time.
fn alarm(error: &str) -> Option<(MemberId, String)> {
    let mut words = error.split_whitespace();
    let member = words.next()?.strip_prefix("memberID:")?.parse().ok()?;
    Some((MemberId(member), words.next()?.strip_prefix("alarm:")?.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn name(n: u64) -> MachineName {
        format!("demo-cp-{n}").parse().unwrap()
    }

    fn listed(n: u64) -> Listed {
        let peer_urls = vec![format!("https://198.18.1.{n}:2380")];
        Listed { id: MemberId(n), name: name(n).to_string(), peer_urls, learner: false }
    }

    fn report(n: u64, leader: u64) -> Report {
        Report {
            id: MemberId(n),
            leader: Some(MemberId(leader)).filter(|l| l.0 != 0),
            learner: false,
            term: 3,
            committed: 100,
            applied: 100,
            version: "3.6.14".into(),
            db_bytes: 1,
            errors: vec![],
        }
    }

    fn reports(all: impl IntoIterator<Item = Report>) -> Reports {
        all.into_iter().map(|r| (name(r.id.0), Ok(r))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_leader_is_asked_first_and_learners_and_leaderless_members_never() {
        let learner = Report { learner: true, ..report(4, 2) };
        assert_eq!(to_be_asked(&reports([report(1, 2), report(2, 2), report(3, 0), learner])), [name(2), name(1)]);
    }

    #[test]
    fn a_member_that_knows_no_leader_does_not_answer_and_one_never_started_says_so() {
        let mut since = Since::default();
        let unstarted = Listed { name: String::new(), learner: true, ..listed(4) };
        let list = [listed(1), listed(2), unstarted];
        let facts = facts(&list, &reports([report(1, 1), report(2, 0)]), &mut since, at(10)).unwrap();
        assert!(facts.members[0].status.known().unwrap().leader);
        assert_eq!(facts.members[1].status, Fact::unknown("it knows no leader", at(10)));
        assert_eq!(facts.members[2].status, Fact::unknown("it was added and has not started yet", at(10)));
    }

    #[test]
    fn healthy_since_lasts_over_surveys_and_begins_anew_after_a_silence() {
        let (mut since, list) = (Since::default(), [listed(1)]);
        let well = reports([report(1, 1)]);
        let healthy = |facts: EtcdFacts| facts.members[0].status.known().map(|s| s.healthy_since);
        assert_eq!(healthy(facts(&list, &well, &mut since, at(1)).unwrap()), Some(at(1)));
        assert_eq!(healthy(facts(&list, &well, &mut since, at(9)).unwrap()), Some(at(1)));
        assert_eq!(healthy(facts(&list, &Reports::new(), &mut since, at(10)).unwrap()), None);
        assert_eq!(healthy(facts(&list, &well, &mut since, at(11)).unwrap()), Some(at(11)));
    }

    #[test]
    fn a_learner_is_in_sync_from_nine_tenths_on() {
        let mut since = Since::default();
        let list = [listed(1), Listed { learner: true, ..listed(2) }];
        let mut in_sync = |applied| {
            let learner = Report { learner: true, applied, ..report(2, 1) };
            facts(&list, &reports([report(1, 1), learner]), &mut since, at(1)).unwrap().members[1].status.known().unwrap().in_sync
        };
        assert_eq!([in_sync(89), in_sync(90)], [false, true]);
    }

    #[test]
    fn of_two_leaders_the_later_term_counts() {
        let former = Report { term: 2, ..report(1, 1) };
        let facts = facts(&[listed(1), listed(2)], &reports([former, report(2, 2)]), &mut Since::default(), at(1)).unwrap();
        assert_eq!(facts.leader().unwrap().id, MemberId(2));
    }

    #[test]
    fn alarms_are_read_from_a_status_and_other_errors_are_not_alarms() {
        let ill = Report { errors: vec!["memberID:17 alarm:NOSPACE ".into(), "etcdserver: no leader".into()], ..report(1, 1) };
        let facts = facts(&[listed(1)], &reports([ill]), &mut Since::default(), at(1)).unwrap();
        assert_eq!(facts.alarms, [(MemberId(17), "NOSPACE".to_owned())]);
    }
}
