//! All of the kernel that an operation can change, as text, so that a difference is seen where it is.

use std::format;
use std::string::String;

use super::super::*;
use crate::cap::view::ALL_SLOTS;
use crate::machine::{FRAME_WORDS, Machine};

/// Lines that name every live object with all it holds, every capability with its relatives, every page, and what is
/// free. Registers of threads are left out: they have the answer.
pub fn picture(w: &mut World) -> Vec<String> {
    let mut lines = objects(&w.k);
    lines.extend(w.k.threads.iter().map(|(id, t)| {
        let own = (t.priority, t.effective, t.caps, t.process, t.quirks, t.fpu, t.message);
        let rest = (t.call, t.building, t.bound, t.fault_endpoint, t.fault, t.prev, t.next);
        // Which of those that can run does run is the tests' own choice.
        let runs = matches!(t.state, ThreadState::Running | ThreadState::Ready);
        let place = (!runs).then_some((t.state, t.link));
        format!("thread {id:?}: {own:?} {rest:?} {place:?}")
    }));
    for at in 0..ALL_SLOTS as u32 {
        if let Some(cap) = w.k.caps.stored(at) {
            lines.push(format!("slot {at}: {cap:?} {:?}", w.k.caps.links(at)));
        }
    }
    for process in 0..Process::SLOTS {
        lines.push(format!("CSpace {process}: {:#b}", w.k.caps.usable(process)));
    }
    let roots: Vec<_> = w.k.processes.iter().filter_map(|(id, p)| Some((id, p.roots?))).collect();
    for (id, roots) in roots {
        for root in [roots.kernel, roots.user] {
            tables(&mut w.m, root, 3, &mut |at, entry| lines.push(format!("table {id:?} {at}: {entry:#x}")));
        }
    }
    let k = &w.k;
    lines.push(format!("timers {:?}", k.timers.heap()));
    lines.push(format!("frames {} {}", k.frames.free_count(), k.frames.quarantined()));
    lines.push(format!("reaper {:?} {:?} {:?} {:?}", k.reap, k.dead_regions, k.doomed, k.grown));
    lines.push(format!("verifier {:?} {}", k.verification_claim(), k.verifier.held()));
    lines.push(format!("floors {} {:?}", k.keyring.floors_left(), k.interrupts));
    lines
}

/// What is in one of two pictures only.
pub fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let only = |these: &[String], others: &[String], sign| -> Vec<String> {
        these.iter().filter(|line| !others.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    [only(before, after, '-'), only(after, before, '+')].concat()
}

fn objects(k: &Kernel) -> Vec<String> {
    let mut lines = Vec::new();
    macro_rules! of {
        ($($arena:ident)*) => { $(
            lines.extend(k.$arena.iter().map(|(id, o)| format!("{} {id:?}: {o:?}", stringify!($arena))));
        )* };
    }
    // A creation that failed counts against the rate, whatever it came to.
    let job = |job: &Job| format!("{:?} {} {}", job.pool, job.caps, job.members);
    lines.extend(k.jobs.iter().map(|(id, j)| format!("jobs {id:?}: {}", job(j))));
    of!(pools regions mappings endpoints notifications processes handovers journals cached);
    lines.push(format!("cache {} {:?}", k.cache.frames, k.is_sweeping()));
    lines
}

/// Visits every entry of the lower half that is not empty.
fn tables(m: &mut impl Machine, table: Frame, level: u32, visit: &mut impl FnMut(usize, u64)) {
    let entries = *m.frame(table);
    let count = if level == 3 { FRAME_WORDS / 2 } else { FRAME_WORDS };
    for (at, entry) in entries.into_iter().enumerate().take(count).filter(|(_, entry)| *entry != 0) {
        visit(at, entry);
        if level > 0 {
            tables(m, Frame((entry >> 12) as u32), level - 1, visit);
        }
    }
}
