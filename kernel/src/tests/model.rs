//! The kernel against a reference model: random operations of several processes, by the real system calls on the
//! simulated machine, and after each the same result, capabilities, ancestors, balances, objects and waits in both.
//!
//! The model ([`reference`]) shares neither code nor layout with the kernel: sets of capabilities, each with the
//! set of its ancestors. Every invariant of the kernel is checked after every system call, too.
//!
//! A seed decides an episode: what the processes do from a fresh kernel on. A failure names it, and
//! `SILA_MODEL_SEED=… cargo test -p kernel --lib model` runs that episode alone and shows each of its acts.

mod acts;
mod compare;
mod driver;
mod messages;
mod random;
mod reference;

use std::collections::BTreeMap;
use std::string::String;

use acts::Act;
use driver::{Driver, outcome_name};
use random::Random;
use reference::{Course, Ended};

/// Operations of all tests together.
const OPERATIONS: usize = 1_000_000;
/// Operations of an episode.
const EPISODE: usize = 2_500;
/// Tests that share the episodes, so that processors do.
const PARTS: u64 = 4;

/// How often each kind of act came to each end.
type Tally = BTreeMap<(&'static str, &'static str), usize>;

fn name_of(act: &Act) -> &'static str {
    match act {
        Act::Invoke { op, .. } => op.info().name,
        Act::Send { letter, .. } if letter.call => "Call",
        Act::Send { .. } => "Send",
        Act::Receive { .. } => "Recv",
        Act::Reply { .. } => "Reply",
        Act::ReplyReceive { .. } => "ReplyRecv",
        Act::Exit => "Exit",
        Act::Fault => "Fault",
        Act::Endow { .. } => "Endow",
        Act::Time => "Time",
    }
}

fn count_up(tally: &mut Tally, what: &'static str, course: Course) {
    *tally.entry((what, outcome_name(course))).or_default() += 1;
    if let Some(Ended { message: Some(message), .. }) = course {
        let names = ["no capability", "1 capabilities", "2 capabilities", "3 capabilities", "4 capabilities"];
        *tally.entry(("received", names[message.caps])).or_default() += 1;
    }
}

/// Runs an episode; says how many acts there were.
fn episode(seed: u64, tally: &mut Tally, show: bool) -> Result<usize, String> {
    let mut driver = Driver::new();
    // The model knows of no paths: what holds with the fast path must hold without it.
    driver.w.general = seed / PARTS % 4 == 3;
    let mut random = Random::new(seed);
    for count in 0..EPISODE {
        let Some((who, act)) = random::next(&driver, &mut random) else { return Ok(count) };
        if show {
            std::println!("{count}: process {who}: {act:?}");
        }
        match driver.step(who, &act) {
            Ok(course) => {
                if show {
                    std::println!("    {}", outcome_name(course));
                }
                count_up(tally, name_of(&act), course);
                driver.model.woken.iter().for_each(|(_, ended)| count_up(tally, "woken", Some(*ended)));
            }
            Err(what) => {
                let place = std::format!("act {count}, process {who}: {act:?}");
                return Err(std::format!("{what}\n  at {place}\n  SILA_MODEL_SEED={seed}"));
            }
        }
    }
    Ok(EPISODE)
}

/// Runs one of the [`PARTS`], or the episode that is asked for.
fn part(number: u64) {
    let mut tally = Tally::new();
    if let Some(seed) = std::env::var("SILA_MODEL_SEED").ok().and_then(|text| text.parse::<u64>().ok()) {
        if seed % PARTS == number {
            episode(seed, &mut tally, true).unwrap();
        }
        return;
    }
    let mut done = 0;
    let mut seed = number;
    while done < OPERATIONS / PARTS as usize {
        let run =
            std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| episode(seed, &mut tally, false)));
        match run {
            Ok(Ok(acts)) => done += acts,
            Ok(Err(what)) => panic!("{what}"),
            Err(cause) => {
                std::eprintln!("SILA_MODEL_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
        seed += PARTS;
    }
    if std::env::var_os("SILA_MODEL_TALLY").is_some() {
        std::println!("{tally:#?}");
    }
    for ((act, outcome), least) in WANTED {
        let found = tally.get(&(act, outcome)).copied().unwrap_or(0);
        assert!(found >= least, "{act} came to {outcome} only {found} times: {tally:#?}");
    }
}

/// What must have happened, and how often at least, in each part: the test is not to become idle unseen.
const WANTED: [((&str, &str), usize); 38] = [
    (("CapCopy", "Ok"), 10_000),
    (("CapCopy", "MissingRight"), 500),
    (("CapCopy", "EndowOnly"), 500),
    (("CapCopy", "ObjectGone"), 500),
    (("CapCopy", "OutOfObjectBytes"), 50),
    (("CapMint", "Ok"), 4_000),
    (("CapMint", "AlreadyBadged"), 500),
    (("CapMove", "Ok"), 5_000),
    (("CapDelete", "Ok"), 10_000),
    (("CapRevoke", "Ok"), 2_000),
    (("PoolCreate", "Ok"), 1_000),
    (("PoolCreate", "OutOfFrames"), 200),
    (("PoolCreate", "ArenaFull"), 100),
    (("RegionCreate", "Ok"), 2_000),
    (("RegionCreate", "OutOfFrames"), 100),
    (("EndpointCreate", "Ok"), 2_000),
    (("EndpointBind", "Ok"), 1),
    (("NotificationCreate", "Ok"), 1_000),
    (("RegionMap", "Ok"), 1_000),
    (("RegionMap", "AlreadyMapped"), 100),
    (("MappingUnmap", "Ok"), 500),
    (("RegionSeal", "StillWritable"), 50),
    (("ProcessTerminate", "Ok"), 50),
    (("Exit", "waits"), 200),
    (("Fault", "waits"), 200),
    (("Endow", "Ok"), 1_000),
    (("Endow", "RequestRights"), 5),
    (("Recv", "Ok"), 300),
    (("Send", "Ok"), 300),
    (("Reply", "Ok"), 200),
    (("Reply", "CallerGone"), 50),
    (("ReplyRecv", "waits"), 50),
    (("received", "1 capabilities"), 100),
    (("received", "4 capabilities"), 10),
    (("woken", "Timeout"), 1_000),
    (("woken", "PeerDied"), 50),
    (("woken", "PeerDiedDelivered"), 50),
    (("woken", "ObjectGone"), 30),
];

#[test]
fn the_kernel_agrees_with_the_reference_model_0() {
    part(0);
}

#[test]
fn the_kernel_agrees_with_the_reference_model_1() {
    part(1);
}

#[test]
fn the_kernel_agrees_with_the_reference_model_2() {
    part(2);
}

#[test]
fn the_kernel_agrees_with_the_reference_model_3() {
    part(3);
}
