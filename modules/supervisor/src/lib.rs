//! The root supervisor's state: which boot agents have reported what, and which of their processes have ended.
//!
//! It parses nothing: reports come as a label and one number, the badge says from whom. The table has one row for
//! each agent, and is bounded. (Restarting agents is not its task yet.)
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

/// The most agents and the most processes that are kept.
pub const CAPACITY: usize = 64;

/// What an agent has said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It serves.
    Ready,
    /// It failed with this code.
    Failed(u64),
}

/// What happens to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent with this badge reports.
    Reported(u64, Report),
    /// A process of the Job was seen in this state (as ProcessStatus numbers them).
    Seen {
        /// The process.
        process: u64,
        /// Its state.
        state: u64,
    },
    /// All processes of the Job have been seen since the last time.
    SweepDone,
}

/// What the event changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    None,
    /// The agent reported this for the first time, or something else than before.
    Agent(u64, Report),
    /// This process has ended.
    Died(u64),
    /// The report is refused: it carries no badge, or the table is full.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    ended: bool,
    seen: bool,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    agents: BTreeMap<u64, Report>,
    processes: BTreeMap<u64, Process>,
    deaths: u64,
}

/// ProcessStatus's number for a process that has ended.
const ENDED: u64 = 4;

impl Supervisor {
    /// An empty table.
    pub const fn new() -> Self {
        Supervisor { agents: BTreeMap::new(), processes: BTreeMap::new(), deaths: 0 }
    }

    /// Takes an event in.
    pub fn handle(&mut self, event: Event) -> Change {
        match event {
            Event::Reported(badge, report) => self.report(badge, report),
            Event::Seen { process, state } => self.see(process, state),
            Event::SweepDone => self.sweep(),
        }
    }

    fn report(&mut self, badge: u64, report: Report) -> Change {
        let room = self.agents.len() < CAPACITY || self.agents.contains_key(&badge);
        if badge == 0 || !room {
            return Change::Refused;
        }
        match self.agents.insert(badge, report) {
            Some(before) if before == report => Change::None,
            _ => Change::Agent(badge, report),
        }
    }

    fn see(&mut self, process: u64, state: u64) -> Change {
        let ended = state == ENDED;
        if let Some(known) = self.processes.get_mut(&process) {
            let died = ended && !known.ended;
            *known = Process { ended: known.ended || ended, seen: true };
            return if died { self.died(process) } else { Change::None };
        }
        if self.processes.len() >= CAPACITY {
            return Change::Refused;
        }
        self.processes.insert(process, Process { ended, seen: true });
        if ended { self.died(process) } else { Change::None }
    }

    /// A process that was not seen any more has ended, and its record is gone.
    fn sweep(&mut self) -> Change {
        let mut first = Change::None;
        let gone = self.processes.extract_if(.., |_, known| !known.seen);
        let died: alloc::vec::Vec<u64> = gone.filter(|(_, known)| !known.ended).map(|(id, _)| id).collect();
        for process in died {
            let change = self.died(process);
            if first == Change::None {
                first = change;
            }
        }
        self.processes.values_mut().for_each(|known| known.seen = false);
        first
    }

    fn died(&mut self, process: u64) -> Change {
        self.deaths += 1;
        Change::Died(process)
    }

    /// What an agent reported last.
    pub fn agent(&self, badge: u64) -> Option<Report> {
        self.agents.get(&badge).copied()
    }

    /// How many processes were seen to end.
    pub const fn deaths(&self) -> u64 {
        self.deaths
    }

    /// The table in words.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (badge, report) in &self.agents {
            text.push_str(&match report {
                Report::Ready => format!("agent {badge}: ready\n"),
                Report::Failed(code) => format!("agent {badge}: failed with code {code}\n"),
            });
        }
        let alive = self.processes.values().filter(|known| !known.ended).count();
        text.push_str(&format!("{alive} processes alive, {} have ended", self.deaths));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(process: u64, state: u64) -> Event {
        Event::Seen { process, state }
    }

    #[test]
    fn reports_are_kept_by_badge() {
        let mut s = Supervisor::new();
        assert_eq!(s.handle(Event::Reported(1, Report::Ready)), Change::Agent(1, Report::Ready));
        assert_eq!(s.handle(Event::Reported(1, Report::Ready)), Change::None);
        let failed = Report::Failed(7);
        assert_eq!(s.handle(Event::Reported(1, failed)), Change::Agent(1, failed));
        assert_eq!((s.agent(1), s.agent(2)), (Some(failed), None));
    }

    #[test]
    fn reports_without_a_badge_are_refused() {
        let mut s = Supervisor::new();
        assert_eq!(s.handle(Event::Reported(0, Report::Ready)), Change::Refused);
        assert_eq!(s, Supervisor::new());
    }

    #[test]
    fn tables_are_bounded() {
        let mut s = Supervisor::new();
        for badge in 1..=CAPACITY as u64 {
            assert_ne!(s.handle(Event::Reported(badge, Report::Ready)), Change::Refused);
            assert_eq!(s.handle(seen(badge, 2)), Change::None);
        }
        assert_eq!(s.handle(Event::Reported(1000, Report::Ready)), Change::Refused);
        assert_eq!(s.handle(seen(1000, 2)), Change::Refused);
        assert_eq!(s.handle(Event::Reported(1, Report::Failed(1))), Change::Agent(1, Report::Failed(1)));
    }

    #[test]
    fn a_death_is_noted_once() {
        let mut s = Supervisor::new();
        assert_eq!(s.handle(seen(5, 2)), Change::None);
        assert_eq!(s.handle(seen(5, 4)), Change::Died(5));
        assert_eq!(s.handle(seen(5, 4)), Change::None);
        assert_eq!(s.handle(Event::SweepDone), Change::None);
        assert_eq!(s.handle(Event::SweepDone), Change::None);
        assert_eq!((s.deaths(), s.processes.len()), (1, 0));
    }

    #[test]
    fn a_process_that_vanishes_has_died() {
        let mut s = Supervisor::new();
        s.handle(seen(5, 2));
        s.handle(seen(6, 2));
        assert_eq!(s.handle(Event::SweepDone), Change::None);
        s.handle(seen(6, 2));
        assert_eq!(s.handle(Event::SweepDone), Change::Died(5));
        s.handle(seen(6, 2));
        assert_eq!(s.handle(Event::SweepDone), Change::None);
        assert_eq!(s.deaths(), 1);
        s.handle(seen(7, 2));
        s.handle(Event::SweepDone);
        assert_eq!(s.handle(Event::SweepDone), Change::Died(7));
        assert_eq!(s.deaths(), 3);
    }

    #[test]
    fn the_table_is_described() {
        let mut s = Supervisor::new();
        s.handle(Event::Reported(1, Report::Ready));
        s.handle(Event::Reported(2, Report::Failed(9)));
        s.handle(seen(3, 2));
        s.handle(seen(4, 4));
        let text = s.describe();
        assert!(text.contains("agent 1: ready") && text.contains("agent 2: failed with code 9"));
        assert!(text.ends_with("1 processes alive, 1 have ended"));
    }
}
