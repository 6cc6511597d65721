//! A core of a few hundred lines that proves the edge: two ring-3 threads on roots of their own take
//! every way into the kernel and back, and the verification context and idle are entered and preempted.
//!
//! Owns: nothing of the real kernel; it stands in its place in builds with feature `self-check`. Each
//! step is reported as `selfcheck: <step> ok` on the results channel; the first one that fails switches
//! the machine off with `Failure`, the last one with `Success`.

use alloc::boxed::Box;
use core::arch::global_asm;

use kernel::log;
use kernel::machine::{Context, Entry, Frame, FrameReader, Machine, Next, PowerOff, Registers};

use super::core_iface::{BootInfo, Core, Refused, RunJob};
use super::fwcfg;
use super::trap;

// SAFETY: data, as far as the kernel is concerned: it is copied to a user page and runs in ring 3 there.
global_asm!(include_str!("selfcheck.s"));

unsafe extern "C" {
    static selfcheck_start: u8;
    static selfcheck_second: u8;
    static selfcheck_end: u8;
}

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const STACK_TOP: u64 = 0x50_2000;
const SLICE: u64 = 1_000_000;
const COM1_INTERRUPT_ENABLE: u16 = 0x3f9;

struct Thread {
    context: Box<Context>,
}

#[derive(PartialEq, Eq, Clone, Copy, Debug)]
enum Phase {
    Ring3,
    Canonical,
    Verification,
    Idle,
    Device,
}

/// A job that takes its time, and proves that the context can allocate.
pub struct Spin {
    turns: u64,
}

impl RunJob for Spin {
    fn run(&mut self, _: &impl FrameReader) {
        let mut seen = alloc::vec![0u8; 64 * 1024];
        for turn in 0..self.turns {
            let place = &mut seen[turn as usize % (64 * 1024)];
            *place = place.wrapping_add(turn as u8 | 1);
        }
        if seen.iter().any(|byte| *byte != 0) {
            self.turns = 0;
        }
    }
}

/// How the check ends.
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum Ending {
    /// By switching off.
    Off,
    /// By a panic.
    Panic,
    /// By an exception in ring 0.
    Exception,
    /// By running over the kernel stack.
    Overflow,
    /// By allocating after boot.
    Allocation,
    /// Never, with a thread that spins: for interrupts from outside.
    Never,
}

impl Ending {
    /// Reads the flag `ending-NAME=on`.
    pub fn from_flags(flags: Option<([u8; 128], usize)>) -> Self {
        let Some((bytes, length)) = flags else { return Self::Off };
        let named = |name: &[u8]| fwcfg::switch(&bytes[..length], name) == Some(true);
        match () {
            () if named(b"ending-panic") => Self::Panic,
            () if named(b"ending-exception") => Self::Exception,
            () if named(b"ending-overflow") => Self::Overflow,
            () if named(b"ending-allocation") => Self::Allocation,
            () if named(b"ending-never") => Self::Never,
            () => Self::Off,
        }
    }
}

#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    if depth == u64::MAX { room[0] } else { overflow(depth + 1) + room[1] }
}

/// The checking core.
pub struct SelfCheck {
    threads: [Thread; 2],
    running: usize,
    phase: Phase,
    work: Option<Box<Spin>>,
    ticks: u64,
    deadline: u64,
    com1: u8,
    has_serial: bool,
    ending: Ending,
}

struct Frames<'a>(core::slice::Iter<'a, (Frame, u32)>, u32, u32);

impl Frames<'_> {
    fn next<M: Machine>(&mut self, machine: &mut M) -> Frame {
        while self.1 == self.2 {
            let Some((start, count)) = self.0.next() else { super::panic::fatal("self-check: no memory") };
            (self.1, self.2) = (start.0, start.0 + count);
        }
        let frame = Frame(self.1);
        self.1 += 1;
        machine.zero_frame(frame);
        frame
    }
}

const USER_LINK: u64 = 7;
const USER_TEXT: u64 = 5;
const USER_DATA: u64 = 7 | 1 << 63;

fn make_thread<M: Machine>(
    machine: &mut M,
    frames: &mut Frames<'_>,
    code: Frame,
    data: Frame,
    offset: u64,
) -> Thread {
    let [root, l3, l2, l1, stack, fpu] = core::array::from_fn(|_| frames.next(machine));
    let half = *machine.kernel_half();
    machine.frame(root)[256..].copy_from_slice(&half);
    machine.frame(root)[0] = l3.address() | USER_LINK;
    machine.frame(l3)[0] = l2.address() | USER_LINK;
    machine.frame(l2)[2] = l1.address() | USER_LINK;
    machine.frame(l1)[0] = code.address() | USER_TEXT;
    machine.frame(l1)[256] = data.address() | USER_DATA;
    machine.frame(l1)[257] = stack.address() | USER_DATA;
    let user_root = match machine.entry_half().copied() {
        None => root,
        Some(half) => {
            let user = frames.next(machine);
            machine.frame(user)[256..].copy_from_slice(&half);
            machine.frame(user)[0] = l3.address() | USER_LINK;
            user
        }
    };
    let extended = machine.init_fpu(fpu);
    let registers = Registers {
        rip: CODE + offset,
        rsp: STACK_TOP,
        rflags: 0x202,
        fs_base: DATA + 0x100 + 0x100 * u64::from(offset != 0),
        gs_base: DATA + 0x108 + 0x100 * u64::from(offset != 0),
        ..Registers::default()
    };
    let (root, user_root) = (root.address(), user_root.address());
    Thread { context: Box::new(Context { registers, root, user_root, extended }) }
}

impl SelfCheck {
    fn thread(&mut self, index: usize) -> Next {
        self.running = index;
        let thread = &mut self.threads[index];
        Next::Thread(&raw mut *thread.context)
    }

    fn pass<M: Machine>(&self, machine: &mut M, step: &str) {
        log!(Info, "selfcheck: {step} ok");
        let mut line = *b"selfcheck:                                                         ok";
        for (to, from) in line.iter_mut().skip(11).zip(step.bytes().take(50)) {
            *to = from;
        }
        machine.report(&line);
    }

    fn fail<M: Machine>(&mut self, machine: &mut M, entry: Entry, why: &str) -> Next {
        log!(
            Error,
            "selfcheck: {why} in {:?}: {entry:?} {:x?}",
            self.phase,
            self.threads[self.running].context.registers
        );
        machine.report(b"selfcheck: FAILED");
        machine.power_off(PowerOff::Failure);
        Next::Idle
    }

    /// Syscalls of the test program: 1 check registers, 2 step passed, 3 failed, 4 all done.
    fn syscall<M: Machine>(&mut self, machine: &mut M) -> Next {
        let registers = &mut self.threads[self.running].context.registers;
        match registers.rax {
            1 => {
                let got = [
                    registers.rbx,
                    registers.rdx,
                    registers.rsi,
                    registers.rdi,
                    registers.rbp,
                    registers.r8,
                    registers.r9,
                    registers.r10,
                    registers.r12,
                    registers.r13,
                    registers.r14,
                    registers.r15,
                ];
                if got != [0xb1, 0xd1, 0x51, 0xd2, 0xb2, 8, 9, 10, 12, 13, 14, 15] {
                    return self.fail(machine, Entry::Syscall, "registers came in wrong");
                }
                registers.rax = 0x77;
            }
            2 => {
                let steps =
                    ["registers by SYSCALL", "registers by exception", "faults", "SSE, bases, preemption"];
                let step = steps.get(registers.rdi as usize).copied().unwrap_or("?");
                self.pass(machine, step);
            }
            4 => {
                // A thread that is resumed at an address it may not have gets a fault instead.
                self.phase = Phase::Canonical;
                registers.rip = 0x8000_0000_0000;
            }
            _ => return self.fail(machine, Entry::Syscall, "the program says so"),
        }
        self.thread(self.running)
    }

    fn fault<M: Machine>(&mut self, machine: &mut M, entry: Entry, vector: u8, address: u64) -> Next {
        let registers = &mut self.threads[self.running].context.registers;
        if self.phase == Phase::Canonical && vector == 13 {
            self.pass(machine, "canonical addresses only");
            return self.verify(machine);
        }
        // The program says what it expects in r12 (vector), r14 (address), and how long the instruction is in r13.
        if self.phase != Phase::Ring3 || registers.r12 != u64::from(vector) || registers.r14 != address {
            return self.fail(machine, entry, "unexpected fault");
        }
        registers.rip += registers.r13;
        self.thread(self.running)
    }

    fn verify<M: Machine>(&mut self, machine: &mut M) -> Next {
        self.phase = Phase::Verification;
        self.ticks = 0;
        if let Some(work) = self.work.take() {
            let _idle_till_now = trap::start_work(work);
        }
        machine.set_timer(machine.now() + SLICE);
        Next::Verification
    }

    fn verified<M: Machine>(&mut self, machine: &mut M) -> Next {
        self.work = trap::finish_work();
        if self.ticks < 3 || self.work.as_ref().is_none_or(|work| work.turns != 0) {
            return self.fail(machine, Entry::VerificationDone, "verification");
        }
        self.pass(machine, "verification context, preempted by the timer");
        self.phase = Phase::Idle;
        self.deadline = machine.now() + 3 * SLICE;
        machine.set_timer(self.deadline);
        Next::Idle
    }

    fn timer<M: Machine>(&mut self, machine: &mut M) -> Next {
        let now = machine.now();
        self.ticks += 1;
        match self.phase {
            Phase::Idle if now < self.deadline => self.fail(machine, Entry::Timer, "the timer came early"),
            Phase::Idle => {
                self.pass(machine, "idle");
                self.phase = Phase::Device;
                if !self.has_serial {
                    return self.finish(machine);
                }
                machine.release_serial();
                machine.mask_interrupt(self.com1, false);
                machine.port_write(COM1_INTERRUPT_ENABLE, 1, 2);
                machine.set_timer(now + 100 * SLICE);
                Next::Idle
            }
            Phase::Device if self.ending == Ending::Never => {
                machine.set_timer(now + SLICE);
                self.thread(1)
            }
            Phase::Device => self.fail(machine, Entry::Timer, "no interrupt from COM1"),
            Phase::Verification => {
                machine.set_timer(now + SLICE);
                // Now and then a thread runs while the job waits.
                if self.ticks % 4 == 3 { self.thread(1) } else { Next::Verification }
            }
            Phase::Ring3 | Phase::Canonical => {
                machine.set_timer(now + SLICE);
                self.thread(1 - self.running)
            }
        }
    }

    fn finish<M: Machine>(&mut self, machine: &mut M) -> Next {
        machine.report(b"selfcheck: PASS");
        match self.ending {
            Ending::Off => {}
            Ending::Panic => super::panic::fatal("as asked for"),
            Ending::Exception => {
                // SAFETY: it is not safe; the fault is the point.
                unsafe { (0xffff_8fff_0000_0000 as *mut u64).write_volatile(1) };
            }
            Ending::Overflow => log!(Info, "{}", overflow(0)),
            Ending::Allocation => log!(Info, "{:p}", Box::new(core::hint::black_box(7))),
            Ending::Never => return self.thread(1),
        }
        machine.power_off(PowerOff::Success);
        Next::Idle
    }
}

impl Core for SelfCheck {
    fn start_on<M: Machine>(machine: &mut M, info: BootInfo<'_>) -> Result<Self, Refused> {
        let mut frames = Frames(info.usable.iter(), 0, 0);
        let (code, data) = (frames.next(machine), frames.next(machine));
        let (start, end) = (&raw const selfcheck_start, &raw const selfcheck_end);
        // SAFETY: the linker put the program between the two symbols.
        let program = unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) };
        for (index, chunk) in program.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            machine.frame(code)[index] = u64::from_le_bytes(word);
        }
        for (word, value) in [(0x100, 0xa), (0x108, 0x1a), (0x200, 0xb), (0x208, 0x1b)] {
            machine.frame(data)[word / 8] = value;
        }
        let second = &raw const selfcheck_second as u64 - start as u64;
        let threads = [0, second].map(|offset| make_thread(machine, &mut frames, code, data, offset));
        let usable: u64 = info.usable.iter().map(|range| u64::from(range.1)).sum();
        log!(Info, "selfcheck: {usable} frames usable, bundle {:x?}", info.bundle.map(|b| b.0.len()));
        Ok(Self {
            threads,
            running: 0,
            phase: Phase::Ring3,
            work: Some(Box::new(Spin { turns: 100_000_000 })),
            ticks: 0,
            deadline: 0,
            com1: info.com1_line,
            has_serial: info.has_serial,
            ending: info.ending,
        })
    }

    fn first_context<M: Machine>(&mut self, machine: &mut M) -> Next {
        machine.set_timer(machine.now() + SLICE);
        self.thread(0)
    }

    fn handle<M: Machine>(&mut self, machine: &mut M, entry: Entry) -> Next {
        match entry {
            Entry::Syscall => self.syscall(machine),
            Entry::Fault { vector, address, .. } => self.fault(machine, entry, vector, address),
            Entry::Timer => self.timer(machine),
            Entry::VerificationDone => self.verified(machine),
            Entry::Interrupt { line } if line == self.com1 && self.phase == Phase::Device => {
                self.pass(machine, "device interrupt");
                self.finish(machine)
            }
            Entry::Interrupt { .. } => self.fail(machine, entry, "unexpected interrupt"),
        }
    }
}
