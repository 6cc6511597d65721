//! A worker: does what the driver writes into the block that they share, however wrong it is.

use core::sync::atomic::AtomicU64;
use fuzz::generate::STACK;
use fuzz::order::{ANSWER_AT, ANSWER_WORDS, Act, LANE_BYTES, ORDER_WORDS, Order, TAIL, from_bytes, to_bytes};
use fuzz::random::Random;
use fuzz::{BELL, BLOCK, HELLO, HUB, LANES};
use sila_abi::protocol::layout::OWN_THREAD;
use sila_abi::syscall::{Call, FOREVER, MAX_WORDS, REGISTER_WORDS, Tag};
use sila_abi::{Error, Rights, Slot};
use sila_rt::hostile::{self, syscall};
use sila_rt::ipc::{self, Message};
use sila_rt::memory::SharedRegion;
use sila_rt::raw::{Registers, exit, exit_thread};
use sila_rt::slots::make;
use sila_rt::{CallError, op, thread};

/// Memory for the stacks of threads that orders start.
static STACKS: [AtomicU64; (STACK.0 * STACK.1 / 8) as usize] =
    [const { AtomicU64::new(0) }; (STACK.0 * STACK.1 / 8) as usize];

/// Exit codes of a worker whose means were taken away by what it was told to do.
const NO_BELL: u64 = 70;
const NO_BLOCK: u64 = 71;

/// Serves as long as it can.
pub fn serve() -> u64 {
    match begin_work() {
        Ok(block) => lane(0, block),
        // What workers make of the same image has no block.
        Err(error) => error.error as u64,
    }
}

fn begin_work() -> Result<SharedRegion, CallError> {
    let second = block()?;
    let spawned = thread::spawn(4, move || exit(lane(1, second)))?;
    let entry = begin as extern "C" fn(u64) -> !;
    let words = [entry as usize as u64, STACKS.as_ptr().expose_provenance() as u64, LANES as u64];
    let hello = Message::with(HELLO, &words).cap(OWN_THREAD).cap(spawned.slot());
    ipc::call(HUB, &hello, 0, FOREVER)?;
    block()
}

fn block() -> Result<SharedRegion, CallError> {
    let rights = Rights::READ | Rights::WRITE;
    SharedRegion::map(make(|dst| op::CapCopy(BLOCK, dst, rights.bits().into()))?, true, LANES * LANE_BYTES)
}

/// Where threads that orders start begin: they wait for something, and end.
extern "C" fn begin(slot: u64) -> ! {
    let tag = Tag::new(Call::Recv, 0, 0, 0).0;
    let mut registers = Registers { rax: tag, rdi: slot & 1023, r14: FOREVER, ..Registers::default() };
    syscall(&mut registers);
    exit_thread()
}

/// Does one order after the other; the exit code is why it can't go on.
fn lane(at: usize, mut block: SharedRegion) -> u64 {
    let bell = Slot(BELL.0 + at as u16);
    let mut last = 0;
    loop {
        if let Err(error) = ipc::wait(bell, FOREVER)
            && error.error != Error::Suspended
        {
            return NO_BELL;
        }
        let mut bytes = [0; ORDER_WORDS * 8];
        if !block.read(at * LANE_BYTES, &mut bytes) {
            return NO_BLOCK;
        }
        let (number, order) = Order::decode(&from_bytes(&bytes));
        if number == last {
            continue;
        }
        last = number;
        let answer: [u8; ANSWER_WORDS * 8] = to_bytes(&execute(number, &order));
        if !block.write(at * LANE_BYTES + ANSWER_AT, &answer) {
            return NO_BLOCK;
        }
    }
}

/// The order's number, its outcome, and what came along.
fn execute(number: u64, order: &Order) -> [u64; ANSWER_WORDS] {
    let [rax, rdi, w0, w1, w2, w3, w4, w5, r13, r14, r15] = order.registers;
    match order.act {
        Act::Call => {
            fill_page(order);
            let mut registers = Registers { rax, rdi, words: [w0, w1, w2, w3, w4, w5], r13, r14, r15 };
            syscall(&mut registers);
            let [a, b, c, d, e, f] = registers.words;
            return [number, registers.rax, registers.rdi, a, b, c, d, e, f];
        }
        Act::Read => {
            hostile::read(rdi);
        }
        Act::Write => hostile::write(rdi, 1),
        Act::Undefined => hostile::instruction(hostile::Instruction::Ud2),
    }
    [number, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn fill_page(order: &Order) {
    let count = order.tag().words().min(MAX_WORDS).saturating_sub(REGISTER_WORDS);
    let mut random = Random::new(order.fill);
    let mut words = [0; MAX_WORDS - REGISTER_WORDS];
    for (at, word) in words.iter_mut().enumerate().take(count) {
        let named = order.tail.get(at).copied().filter(|word| at < TAIL && *word != 0);
        *word = named.unwrap_or_else(|| random.draw());
    }
    hostile::set_page_words(words.get(..count).unwrap_or_default());
}
