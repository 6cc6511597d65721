//! The child process of the in-guest tests: asks what to do, and does it.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod state;
mod work;

use core::hint::black_box;
use probe::{Act, COMMAND, HELLO, REPORT, SIGNAL, SURVIVED, WRONG};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::FOREVER;
use sila_abi::{Op, Slot};
use sila_rt::hostile::{self, INSTRUCTIONS};
use sila_rt::ipc::{self, Answer, Message, Received};
use sila_rt::raw::{Registers, exit_thread, yield_now};
use sila_rt::slots::make;
use sila_rt::{CallError, clock, device, op, thread};

sila_rt::entry!(main);

static CONSTANT: [u8; 64] = [0xc3; 64];

fn main() -> u64 {
    let Ok(mut order) = ipc::call(COMMAND, &Message::new(HELLO), 4, FOREVER) else { return WRONG };
    match Act::from_number(order.message.label) {
        Some(act) => perform(act, &mut order),
        None => WRONG,
    }
}

fn perform(act: Act, order: &mut Answer) -> u64 {
    let (first, second) = (order.message.word(0), order.message.word(1));
    match act {
        Act::Exit => return first,
        Act::Read => return hostile::read(first).into(),
        Act::Write => hostile::write(first, 1),
        Act::Execute => hostile::execute(first),
        Act::WriteOwnConstants => hostile::write(address(&CONSTANT), 1),
        Act::WriteOwnCode => hostile::write(main as fn() -> u64 as usize as u64, 0x90),
        Act::ExecuteOwnData => hostile::execute(heap_code()),
        Act::ExecuteOwnStack => {
            let code = black_box([0xc3u8; 16]);
            hostile::execute(address(&code));
        }
        Act::Instruction => {
            if let Some((which, _)) = usize::try_from(first).ok().and_then(|at| INSTRUCTIONS.get(at)) {
                hostile::instruction(*which);
            }
        }
        Act::BadStack => hostile::syscall_with_stack(first),
        Act::Jump => hostile::jump(first),
        Act::TrapFlag => hostile::trap_flag(first == 1),
        Act::AlignmentCheck => return verdict(hostile::alignment_check()),
        Act::DirectionFlag => return verdict(hostile::flags_survive()),
        Act::Spin => loop {
            core::hint::spin_loop();
        },
        Act::Vectors => return verdict(hostile::preserve_vectors(first, second)),
        Act::Recurse => return recurse(first).into(),
        Act::Panic => fail(),
        other => return converse(other, order),
    }
    SURVIVED
}

fn converse(act: Act, order: &mut Answer) -> u64 {
    let first = order.message.word(0);
    match act {
        Act::Serve => serve(first),
        Act::Call | Act::Send => talk(act, order),
        Act::Threads => threads(),
        Act::ExitThread => leave(first),
        Act::Signal => code(op::Signal(SIGNAL, first)),
        Act::Receive => match order.caps.take(0) {
            Some(endpoint) => match ipc::recv(endpoint.slot(), 0, clock::after(clock::SECOND)) {
                Ok(_) => SURVIVED,
                Err(error) => error.error as u64,
            },
            None => WRONG,
        },
        Act::Exhaust => exhaust(),
        Act::Guard => guard(order),
        Act::Secret => secret(),
        Act::RawCall => {
            let mut registers = Registers { rax: first, ..Registers::default() };
            hostile::syscall(&mut registers);
            registers.rax & 0xff
        }
        Act::Create => create(order),
        Act::Drive => drive(order),
        Act::Puppet => probe::puppet::perform(),
        Act::Work => work::work(order),
        Act::Priorities => work::priorities(first),
        other => about_state(other, order),
    }
}

fn about_state(act: Act, order: &mut Answer) -> u64 {
    let [first, second, third] = [0, 1, 2].map(|at| order.message.word(at));
    match act {
        Act::Fresh => state::fresh(),
        Act::Dirty => state::dirty(first, second),
        Act::Flags => state::flags(first, second),
        Act::Bases => state::bases(first, second, third),
        Act::Selector => state::selector(first, second),
        Act::System => state::system(first),
        Act::Faulty => state::faulty(order),
        Act::PendingException => {
            hostile::state::pending_exception(first);
            SURVIVED
        }
        _ => WRONG,
    }
}

fn address<T>(place: &T) -> u64 {
    core::ptr::from_ref(place).expose_provenance() as u64
}

fn verdict(good: bool) -> u64 {
    if good { SURVIVED } else { WRONG }
}

fn code<T>(result: Result<T, CallError>) -> u64 {
    result.err().map_or(0, |error| error.error as u64)
}

/// A `ret` instruction in the heap.
fn heap_code() -> u64 {
    let code = alloc::vec![0xc3u8; 64].leak();
    core::ptr::from_ref(code).cast::<u8>().expose_provenance() as u64
}

#[allow(clippy::panic, reason = "the act")]
fn fail() {
    panic!("as told");
}

#[inline(never)]
fn recurse(depth: u64) -> u8 {
    let mut page = [0u8; 2048];
    black_box(&mut page);
    recurse(depth.wrapping_add(1)).wrapping_add(page[0])
}

/// Modes, by `first`: 0 answer every call with its own words; 1 receive one call and exit; 2 receive nothing and
/// exit when a second has passed; 3 drop the Reply; 4 end at once, as receiver.
fn serve(mode: u64) -> u64 {
    let Ok(endpoint) = make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)) else { return WRONG };
    let report = Message::new(REPORT).cap(endpoint.slot());
    if ipc::call(COMMAND, &report, 0, FOREVER).is_err() {
        return WRONG;
    }
    match mode {
        2 => {
            let _ = ipc::recv(COMMAND, 0, 0);
            let until = clock::after(300 * clock::MILLISECOND);
            while clock::now().is_some_and(|now| now < until) {
                yield_now();
            }
            return SURVIVED;
        }
        4 => return SURVIVED,
        _ => {}
    }
    loop {
        match ipc::recv(endpoint.slot(), 0, FOREVER) {
            Ok(Received::Message(incoming)) => match mode {
                1 => return SURVIVED,
                3 => drop(incoming.reply),
                _ => {
                    let _ = incoming.reply.send(&incoming.message);
                }
            },
            Ok(Received::Flags(_)) => {}
            Err(_) => return WRONG,
        }
    }
}

fn talk(act: Act, order: &mut Answer) -> u64 {
    let [count, from, wait] = [0, 1, 2].map(|at| order.message.word(at));
    let target = order.caps.take(0);
    let target = target.as_ref().map_or(COMMAND, |cap| cap.slot());
    let mut message = Message::new(REPORT);
    (0..count).for_each(|i| message.push(from.wrapping_add(i)));
    for at in 1..4 {
        if let Some(cap) = order.caps.take(at) {
            message = message.cap(cap.leak());
        }
    }
    let deadline = if wait == 0 { FOREVER } else { clock::after(wait) };
    if act == Act::Send {
        return code(ipc::send(target, &message, deadline));
    }
    match ipc::call(target, &message, 4, deadline) {
        Ok(answer) if answer.message.words() == message.words() => SURVIVED,
        Ok(_) => WRONG,
        Err(error) => error.error as u64,
    }
}

fn threads() -> u64 {
    let mut made = 0;
    while thread::spawn(1, || {
        let _ = ipc::wait(SIGNAL, FOREVER);
    })
    .is_ok()
    {
        made += 1;
    }
    made
}

fn leave(exit: u64) -> u64 {
    let other = thread::spawn(2, move || {
        let until = clock::after(100 * clock::MILLISECOND);
        while clock::now().is_some_and(|now| now < until) {
            yield_now();
        }
        sila_rt::raw::exit(exit)
    });
    match other {
        Ok(_) => exit_thread(),
        Err(_) => WRONG,
    }
}

fn exhaust() -> u64 {
    for slot in 64..1000 {
        if let Err(error) = op::RegionCreate(OWN_POOL, 1, Slot(slot)) {
            return error.error as u64;
        }
    }
    WRONG
}

fn guard(order: &mut Answer) -> u64 {
    let (Some(process), Some(test), Some(system)) =
        (order.caps.take(0), order.caps.take(1), order.caps.take(2))
    else {
        return WRONG;
    };
    let Ok(ended) = make(|dst| op::NotificationCreate(OWN_POOL, dst)) else { return WRONG };
    if op::ProcessWatch(process.slot(), ended.slot(), 1).is_err() {
        return WRONG;
    }
    let _ = ipc::wait(ended.slot(), FOREVER);
    let mut words = [0; 120];
    words[0] = order.message.word(0);
    for (to, from) in words.iter_mut().skip(6).zip(order.message.words().iter().skip(1)) {
        *to = *from;
    }
    let _ = op::invoke_long(test.slot(), Op::TestReport, &words, &mut []);
    let _ = op::SystemPowerOff(system.slot(), 1);
    WRONG
}

fn secret() -> u64 {
    let place = alloc::boxed::Box::leak(alloc::boxed::Box::new(0x005e_c2e7_u64));
    let report = Message::with(REPORT, &[address(place)]);
    let _ = ipc::call(COMMAND, &report, 0, FOREVER);
    loop {
        yield_now();
    }
}

/// Register of QEMU's `edu` that raises its interrupt.
const EDU_RAISE: usize = 0x60;

fn drive(order: &mut Answer) -> u64 {
    let (Some(region), Some(irq)) = (order.caps.take(0), order.caps.take(1)) else { return WRONG };
    let mode = order.message.word(0);
    let Ok(registers) = device::Registers::map(region.slot(), mode != probe::DRIVE_WRITE) else {
        return WRONG;
    };
    match mode {
        probe::DRIVE_WRITE => hostile::write(registers.address(), 1),
        probe::DRIVE_EXECUTE => hostile::execute(registers.address()),
        _ => {
            let Ok(note) = make(|dst| op::NotificationCreate(OWN_POOL, dst)) else { return WRONG };
            if op::IrqBind(irq.slot(), note.slot(), 4).is_err() || !registers.write32(EDU_RAISE, 1) {
                return WRONG;
            }
            return ipc::wait(note.slot(), clock::after(clock::SECOND)).unwrap_or(WRONG);
        }
    }
    SURVIVED
}

fn create(order: &mut Answer) -> u64 {
    let (Some(image), Some(proof), Some(pool), Some(job)) =
        (order.caps.take(0), order.caps.take(1), order.caps.take(2), order.caps.take(3))
    else {
        return WRONG;
    };
    let grant = u64::from(probe::REQUEST_COMMAND) << 16 | u64::from(COMMAND.0);
    let made = make(|dst| {
        let (image, proof, pool) = (image.slot().0.into(), proof.slot().0.into(), pool.slot().0.into());
        let words = [image, proof, pool, 10, 1, dst.0.into(), grant];
        hostile::invoke(job.slot(), Op::ProcessCreate, &words)
    });
    let _ = op::ProcessStatus(OWN_PROCESS);
    code(made)
}
