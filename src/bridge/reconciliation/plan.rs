//! What to take over from what the Alertmanagers of a source say: pure.
//!
//! An alert that fires there and is not open here may be one whose notification was missed. It may also be one that
//! Alertmanager is about to send, one that has resolved here and lags there, or one that only some of the peers know: a
//! wrong opening adds capacity that nobody needs. So what is not certain *waits*: it is looked at again soon, and as long as
//! something waits, nothing is concluded about a reception gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::notification::Alert;
use crate::domain::reported::{Report, ReportedState};
use crate::domain::time::{ClockReading, Time};

/// How long an alert must be seen with only some of the peers that answer until that is no mere lag: Prometheus sends each
/// alert to all of them about once a minute.
pub(super) const SETTLE_TIME: Duration = Duration::from_mins(1);

/// An alert for which Alertmanager's routes lead to this source, as all peers together say.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub alert: Alert,
    /// The receiver by which it is sent to this source.
    pub receiver: Arc<str>,
    /// How many peers would send it.
    pub sending: usize,
    /// How many peers know it and would not send it.
    pub suppressing: usize,
    /// How many peers know it and have not decided yet.
    pub undecided: usize,
}

/// What is known here of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KnownAlert {
    /// The occurrence that is open, under any rule.
    pub open: Option<KnownOpen>,
    /// Whether a firing of it waits in case its resolve arrives, or cannot be read: both block decreases.
    pub is_waiting: bool,
    /// The last end that was applied.
    pub last_end: Option<LastEnd>,
    /// Whether a rule or the heartbeat takes it.
    pub is_taken: bool,
}

/// The open occurrence of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownOpen {
    pub starts_at: Time,
    /// The store's time at which it was last heard.
    pub heard_at: Time,
}

/// The last end of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastEnd {
    pub ends_at: Time,
    /// The store's time at which it closed the alert; `None` if the alert was not open.
    pub closed_at: Option<Time>,
}

/// What a plan depends on besides the alerts.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    /// When the Alertmanagers were asked.
    pub asked_at: ClockReading,
    /// The number of peers that have answered.
    pub peers: usize,
    pub late_window: Duration,
    pub occurrence_ttl: Duration,
    /// Whether alerts are opened that are not open: notifications may be missing.
    pub opens: bool,
    /// Since when each alert is known to be disputed between the peers.
    pub disputed: &'a BTreeMap<Arc<str>, Time>,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Indices of the candidates that open.
    pub opens: Vec<usize>,
    /// Indices of the candidates that are open and heard again.
    pub hears: Vec<usize>,
    /// How many candidates are looked at again later.
    pub waits: usize,
    /// Whether an open alert was not heard of for so long that its notifications may be missing.
    pub has_quiet: bool,
    /// Since when each alert is disputed between the peers.
    pub disputed: BTreeMap<Arc<str>, Time>,
}

/// The alerts of all peers that are sent to one of the receivers, by fingerprint, with the copy that was started first.
pub(super) fn candidates(reports: &[Report], receivers: &BTreeSet<String>) -> Vec<Candidate> {
    let mut found: BTreeMap<Arc<str>, Candidate> = BTreeMap::new();
    for reported in reports.iter().flat_map(|report| &report.alerts) {
        let receiver = reported.receivers.iter().find(|receiver| receivers.contains(&***receiver));
        let Some(receiver) = receiver else { continue };
        let candidate = found.entry(reported.alert.fingerprint.clone()).or_insert_with(|| Candidate {
            alert: reported.alert.clone(),
            receiver: receiver.clone(),
            sending: 0,
            suppressing: 0,
            undecided: 0,
        });
        *match reported.state {
            ReportedState::Active => &mut candidate.sending,
            ReportedState::Suppressed => &mut candidate.suppressing,
            ReportedState::Undecided => &mut candidate.undecided,
        } += 1;
        if reported.alert.starts_at < candidate.alert.starts_at {
            candidate.alert = reported.alert.clone();
        }
    }
    found.into_values().collect()
}

/// What to do about one alert.
enum Step {
    Nothing,
    Open,
    Hear,
    Wait,
}

/// Decides what to do about each candidate; `known` has what is known of each.
pub(super) fn plan(
    candidates: &[Candidate],
    known: &[KnownAlert],
    circumstances: &Circumstances<'_>,
) -> Plan {
    let mut plan = Plan::default();
    for (at, (candidate, known)) in candidates.iter().zip(known).enumerate() {
        match step(candidate, known, circumstances, &mut plan) {
            Step::Nothing => {}
            Step::Open if circumstances.opens => plan.opens.push(at),
            Step::Hear => plan.hears.push(at),
            Step::Open | Step::Wait => plan.waits += 1,
        }
    }
    plan
}

fn step(
    candidate: &Candidate,
    known: &KnownAlert,
    circumstances: &Circumstances<'_>,
    plan: &mut Plan,
) -> Step {
    let Candidate { alert, sending, suppressing, undecided, .. } = candidate;
    let Circumstances { asked_at, peers, late_window, occurrence_ttl, opens, .. } = *circumstances;
    if sending + undecided == 0 {
        // Alertmanager sends nothing of it.
        return Step::Nothing;
    }
    if let Some(open) = known.open {
        if *sending == 0 {
            return Step::Nothing;
        }
        let is_quiet = open.heard_at.after(quiet_time(occurrence_ttl)) <= asked_at.now;
        plan.has_quiet |= is_quiet;
        let is_newer = alert.starts_at > asked_at.on_wall(open.heard_at) && alert.starts_at > open.starts_at;
        // Taken over at once: the resolve of the old occurrence may still be on its way, and must not close the new one.
        let is_missed = is_newer && opens;
        return if is_quiet || is_missed { Step::Hear } else { Step::Nothing };
    }
    if known.is_waiting || !known.is_taken {
        return Step::Nothing;
    }
    if suppressing + undecided > 0 || alert.starts_at.after(late_window) > asked_at.wall {
        // A silence has not reached all peers, or Alertmanager is about to send it.
        return Step::Wait;
    }
    let agree = *sending == peers;
    if let Some(end) = known.last_end.filter(|end| alert.starts_at <= end.ends_at) {
        // It has resolved here. A peer that lags still shows it; if all do when the resolve could not be later any more, it
        // fires, and the engine takes it for a late copy first.
        let is_old = end.closed_at.is_some_and(|closed_at| closed_at.after(late_window) <= asked_at.now);
        return if agree && is_old { Step::Open } else { Step::Wait };
    }
    if agree {
        return Step::Open;
    }
    let since = circumstances.disputed.get(&alert.fingerprint).copied().unwrap_or(asked_at.now);
    plan.disputed.insert(alert.fingerprint.clone(), since);
    if since.after(SETTLE_TIME) <= asked_at.now { Step::Open } else { Step::Wait }
}

/// After this long without a word about it, an open alert is heard from Alertmanager's API: half of what it has until it
/// expires, so that there is as much time again for Alertmanagers that do not answer.
fn quiet_time(occurrence_ttl: Duration) -> Duration {
    occurrence_ttl / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::notification::Status;
    use crate::domain::reported::{ReportedAlert, SuppressedBy};

    const TTL: Duration = Duration::from_hours(24);
    const NOW: i64 = 1_000_000;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn alert(fingerprint: &str, starts_at: i64) -> Alert {
        Alert {
            status: Status::Firing,
            labels: Arc::default(),
            annotations: Arc::default(),
            starts_at: at(starts_at),
            ends_at: None,
            valid_until: None,
            absence: None,
            generator_url: "".into(),
            fingerprint: fingerprint.into(),
        }
    }

    fn candidate(starts_at: i64, sending: usize, suppressing: usize) -> Candidate {
        Candidate {
            alert: alert("f", starts_at),
            receiver: "scaling".into(),
            sending,
            suppressing,
            undecided: 0,
        }
    }

    /// The plan for one alert with two peers, of which one or both have answered that they would send it.
    fn planned(candidate: Candidate, known: KnownAlert, opens: bool, disputed_since: Option<i64>) -> Plan {
        let disputed = disputed_since.map(|since| ("f".into(), at(since))).into_iter().collect();
        let asked_at = ClockReading { now: at(NOW), wall: at(NOW) };
        let circumstances = Circumstances {
            asked_at,
            peers: 2,
            late_window: Duration::from_secs(360),
            occurrence_ttl: TTL,
            opens,
            disputed: &disputed,
        };
        plan(&[candidate], &[known], &circumstances)
    }

    fn word(plan: &Plan) -> &'static str {
        match (plan.opens.len(), plan.hears.len(), plan.waits) {
            (1, 0, 0) => "opens",
            (0, 1, 0) => "hears",
            (0, 0, 1) => "waits",
            (0, 0, 0) => "nothing",
            _ => "several",
        }
    }

    fn step(starts_at: i64, sending: usize, suppressing: usize, known: KnownAlert) -> &'static str {
        word(&planned(candidate(starts_at, sending, suppressing), known, true, None))
    }

    const TAKEN: KnownAlert = KnownAlert { open: None, is_waiting: false, last_end: None, is_taken: true };

    fn open(starts_at: i64, heard_at: i64) -> KnownAlert {
        let open = KnownOpen { starts_at: at(starts_at), heard_at: at(heard_at) };
        KnownAlert { open: Some(open), ..TAKEN }
    }

    fn ended(ends_at: i64, closed_at: Option<i64>) -> KnownAlert {
        KnownAlert { last_end: Some(LastEnd { ends_at: at(ends_at), closed_at: closed_at.map(at) }), ..TAKEN }
    }

    #[test]
    fn an_alert_opens_if_it_is_sent_by_all_peers_taken_here_and_not_about_to_be_sent() {
        let old = NOW - 360;
        assert_eq!(step(old, 2, 0, TAKEN), "opens");
        assert_eq!(
            step(old + 1, 2, 0, TAKEN),
            "waits",
            "younger than late_window: Alertmanager will send it"
        );
        assert_eq!(step(old, 0, 2, TAKEN), "nothing", "silenced, inhibited or muted");
        assert_eq!(step(old, 1, 1, TAKEN), "waits", "a silence that has not reached the other peer");
        assert_eq!(step(old, 2, 0, KnownAlert { is_taken: false, ..TAKEN }), "nothing", "no rule takes it");
        assert_eq!(step(old, 2, 0, KnownAlert { is_waiting: true, ..TAKEN }), "nothing", "late, or invalid");
        assert_eq!(word(&planned(candidate(old, 2, 0), TAKEN, false, None)), "waits", "nothing is missing");
        let undecided =
            |known| word(&planned(Candidate { undecided: 1, ..candidate(old, 0, 0) }, known, true, None));
        assert_eq!((undecided(TAKEN), undecided(open(old, old))), ("waits", "nothing"));
    }

    #[test]
    fn an_alert_that_only_some_peers_know_opens_after_a_minute() {
        let disputed = |since| planned(candidate(NOW - 1000, 1, 0), TAKEN, true, since);
        let first = disputed(None);
        assert_eq!((word(&first), first.disputed.get("f")), ("waits", Some(&at(NOW))));
        let second = disputed(Some(NOW - 59));
        assert_eq!((word(&second), second.disputed.get("f")), ("waits", Some(&at(NOW - 59))));
        assert_eq!(word(&disputed(Some(NOW - 60))), "opens");
        let settled = planned(candidate(NOW - 1000, 2, 0), TAKEN, true, Some(NOW - 59));
        assert_eq!((word(&settled), settled.disputed.len()), ("opens", 0));
    }

    /// A peer that has not heard of the resolve yet shows the alert as active.
    #[test]
    fn what_has_resolved_here_does_not_open_because_a_peer_lags() {
        let start = NOW - 5000;
        assert_eq!(step(start, 1, 0, ended(NOW - 10, Some(NOW - 5))), "waits", "right after the resolve");
        assert_eq!(step(start, 2, 0, ended(NOW - 10, Some(NOW - 5))), "waits", "if both lag too");
        assert_eq!(step(start, 1, 0, ended(NOW - 900, Some(NOW - 900))), "waits", "as long as one peer lags");
        assert_eq!(step(start, 2, 0, ended(NOW - 900, None)), "waits", "never open here");
        assert_eq!(step(start, 2, 0, ended(NOW - 900, Some(NOW - 359))), "waits");
        assert_eq!(
            step(start, 2, 0, ended(NOW - 900, Some(NOW - 360))),
            "opens",
            "as late, both show it still"
        );
        assert_eq!(step(start, 2, 0, ended(start - 1, Some(NOW - 5))), "opens", "it started after that end");
    }

    #[test]
    fn an_open_alert_is_heard_only_if_its_notifications_may_be_missing() {
        let (start, half) = (NOW - 200_000, 12 * 3600);
        let recent = planned(candidate(start, 2, 0), open(start, NOW - half + 1), true, None);
        assert_eq!((word(&recent), recent.has_quiet), ("nothing", false));
        for opens in [true, false] {
            let quiet = planned(candidate(start, 1, 1), open(start, NOW - half), opens, None);
            assert_eq!((word(&quiet), quiet.has_quiet), ("hears", true), "one peer that sends it is enough");
        }
        assert_eq!(step(start, 0, 2, open(start, NOW - half)), "nothing", "suppressed");
        assert_eq!(
            step(NOW - 360, 2, 0, open(start, NOW - 400)),
            "hears",
            "a new occurrence that was missed"
        );
        assert_eq!(step(NOW - 1, 2, 0, open(start, NOW - 400)), "hears", "also one that will be sent");
        let newer = planned(candidate(NOW - 360, 2, 0), open(start, NOW - 400), false, None);
        assert_eq!(word(&newer), "nothing", "notifications are received");
        assert_eq!(step(NOW - 500, 2, 0, open(start, NOW - 400)), "nothing", "copies differ in their start");
    }

    fn reported(fingerprint: &str, starts_at: i64, receivers: &[&str]) -> ReportedAlert {
        ReportedAlert {
            alert: alert(fingerprint, starts_at),
            receivers: receivers.iter().map(|&receiver| receiver.into()).collect(),
            state: ReportedState::Active,
            suppressed_by: Vec::new(),
        }
    }

    #[test]
    fn candidates_are_what_is_sent_to_a_receiver_of_the_source() {
        let inhibited = |alert: ReportedAlert| ReportedAlert {
            state: ReportedState::Suppressed,
            suppressed_by: vec![SuppressedBy::Inhibition("x".into())],
            ..alert
        };
        let undecided = |alert: ReportedAlert| ReportedAlert { state: ReportedState::Undecided, ..alert };
        let first = vec![reported("a", 10, &["mail", "scaling"]), reported("b", 10, &["mail"])];
        let second = vec![
            inhibited(reported("a", 5, &["scaling"])),
            undecided(reported("c", 1, &["scaling"])),
            reported("d", 1, &["Scaling"]),
        ];
        let reports = [first, second].map(|alerts| Report { alerts, ..Report::default() });
        let found = candidates(&reports, &BTreeSet::from(["scaling".to_owned()]));
        let found: Vec<_> = found
            .iter()
            .map(|it| (&*it.alert.fingerprint, it.alert.starts_at, it.sending, it.suppressing, it.undecided))
            .collect();
        assert_eq!(found, [("a", at(5), 1, 1, 0), ("c", at(1), 0, 0, 1)]);
    }

    fn any_known() -> impl Strategy<Value = KnownAlert> {
        let time = || -1000i64..1000;
        (
            any::<(bool, bool)>(),
            proptest::option::of((time(), time())),
            proptest::option::of((time(), proptest::option::of(time()))),
        )
            .prop_map(|((is_waiting, is_taken), open, end)| KnownAlert {
                open: open.map(|(starts, heard)| KnownOpen {
                    starts_at: at(NOW + starts),
                    heard_at: at(NOW + heard),
                }),
                is_waiting,
                is_taken,
                last_end: end.map(|(ends, closed)| LastEnd {
                    ends_at: at(NOW + ends),
                    closed_at: closed.map(|closed| at(NOW + closed)),
                }),
            })
    }

    proptest! {
        /// Whatever is known: only what the peers would send opens, what is old enough, and not what has just resolved.
        #[test]
        fn nothing_opens_without_reason(
            starts_at in -1000i64..1000, sending in 0usize..3, suppressing in 0usize..3,
            known in any_known(), opens: bool, since in proptest::option::of(-1000i64..1),
        ) {
            prop_assume!(sending + suppressing <= 2);
            let since = since.map(|since| NOW + since);
            let plan = planned(candidate(NOW + starts_at, sending, suppressing), known, opens, since);
            if word(&plan) == "opens" {
                prop_assert!(opens && sending > 0 && suppressing == 0 && known.open.is_none() && known.is_taken);
                prop_assert!(starts_at <= -360);
                let resolved = known.last_end.filter(|end| end.ends_at >= at(NOW + starts_at));
                prop_assert!(resolved.is_none_or(|end| end.closed_at.is_some_and(|closed| closed <= at(NOW - 360))));
            }
            // A gap does not end while something that would be sent is neither open here nor known to block decreases.
            let is_missing = sending > 0 && known.open.is_none() && !known.is_waiting && known.is_taken;
            prop_assert_eq!(is_missing, matches!(word(&plan), "opens" | "waits"));
        }
    }
}
