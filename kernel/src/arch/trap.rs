//! From the trampolines to the core and back: what happens between an entry and the next exit.
//!
//! Owns: the one `Kernel` value and the machine it runs on (`Glue`), and the verification and idle
//! contexts. Invariants: `Glue` is touched only between an entry and its exit, with interrupts off, by
//! one CPU at a time; the contexts in ring 0 never touch it. A context runs only while `current` names
//! its own save area.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::{NonNull, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use alloc::boxed::Box;
use kernel::fast::{LONG, RICH, Rest, SHORT};
use kernel::log;
use kernel::machine::{Context, Entry, Frame, FrameReader, Next, Registers};

use sila_abi::Op;

use super::core_iface::{ActiveCore, Core, Job, RunJob};
use super::descriptors::{KERNEL_CODE, KERNEL_DATA};
use super::entry::{self, VERIFICATION_DONE};
use super::fpu;
use super::hardware::Hardware;
use super::heap;
use super::lapic;
use super::layout;
use super::panic::{fatal, fatal_exception};
use super::percpu::{self, PerCpu};
use super::regs;

/// The core and its machine.
pub struct Glue {
    /// The machine.
    pub hardware: Hardware,
    /// The core, once it has booted.
    pub core: Option<ActiveCore>,
}

struct GlueCell(UnsafeCell<Glue>);

// SAFETY: reached only through `glue`, whose callers are the only ones running in the kernel.
unsafe impl Sync for GlueCell {}

static GLUE: GlueCell = GlueCell(UnsafeCell::new(Glue { hardware: Hardware::OFF, core: None }));

/// The glue.
///
/// # Safety
/// The caller must be boot or an entry, with interrupts off, and hold no other reference to it.
#[inline(always)]
pub unsafe fn glue() -> &'static mut Glue {
    // SAFETY: the caller's promise.
    unsafe { &mut *GLUE.0.get() }
}

/// This CPU's struct, for an entry.
///
/// # Safety
/// As for [`glue`].
#[inline(always)]
pub unsafe fn cpu() -> &'static mut PerCpu {
    // SAFETY: the caller's promise; GS is the kernel's in ring 0.
    unsafe { &mut *percpu::this() }
}

/// What the interrupted stack looked like when an exception hit ring 0.
#[repr(C)]
pub struct ExceptionFrame {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    pub general: [u64; 15],
    /// The vector.
    pub vector: u64,
    /// The error code, or 0.
    pub error: u64,
    /// Where it happened.
    pub rip: u64,
    /// Code segment there.
    pub cs: u64,
    /// Flags there.
    pub rflags: u64,
    /// Stack there.
    pub rsp: u64,
    /// Stack segment there.
    pub ss: u64,
}

// The SYSCALL entries, one for each system call that has a fast path of its own. They never return but jump to the
// exit: nobody's registers have to be kept on the way, and each has its own small set.

/// The way to switch between threads that most processors take.
pub const PLAIN: u8 = 0;
/// The same, where restoring leaves x87 pointers behind.
pub const HIDING: u8 = 1;
/// Whatever the processor needs.
pub const ODD: u8 = 2;
/// As [`HIDING`], needed or not, with the kernel's page tables apart from ring 3's.
pub const APART: u8 = 3;

/// The SYSCALL entry of `call`, for a way to switch.
pub extern "C" fn on_call<const WAY: u8>() -> ! {
    // SAFETY: this is an entry of ring 3, which first runs when the core has booted.
    let (hardware, core) = unsafe { syscall_parts() };
    match Core::fast_call::<SHORT, _>(core, hardware) {
        Ok(context) => go_on_with::<WAY>(hardware, context),
        Err(Rest::Long) => more_call::<WAY, LONG>(),
        Err(Rest::Rich) => more_call::<WAY, RICH>(),
        Err(rest) => general_syscall(rest),
    }
}

/// The SYSCALL entry of `reply_recv`, for a way to switch.
pub extern "C" fn on_reply_recv<const WAY: u8>() -> ! {
    // SAFETY: as for `on_call`.
    let (hardware, core) = unsafe { syscall_parts() };
    match Core::fast_reply_recv::<SHORT, _>(core, hardware) {
        Ok(context) => go_on_with::<WAY>(hardware, context),
        Err(Rest::Long) => more_reply_recv::<WAY, LONG>(),
        Err(Rest::Rich) => more_reply_recv::<WAY, RICH>(),
        Err(rest) => general_syscall(rest),
    }
}

/// A `call` that is not for the shortest path.
#[inline(never)]
fn more_call<const WAY: u8, const PATH: u8>() -> ! {
    // SAFETY: as for `on_call`, whose references are not used any more.
    let (hardware, core) = unsafe { syscall_parts() };
    match Core::fast_call::<PATH, _>(core, hardware) {
        Ok(context) => go_on_with::<WAY>(hardware, context),
        Err(rest) => general_syscall(rest),
    }
}

/// A `reply_recv` that is not for the shortest path.
#[inline(never)]
fn more_reply_recv<const WAY: u8, const PATH: u8>() -> ! {
    // SAFETY: as for `more_call`.
    let (hardware, core) = unsafe { syscall_parts() };
    match Core::fast_reply_recv::<PATH, _>(core, hardware) {
        Ok(context) => go_on_with::<WAY>(hardware, context),
        Err(rest) => general_syscall(rest),
    }
}

/// The SYSCALL entry of `recv`, for a way to switch.
pub extern "C" fn on_recv<const WAY: u8>() -> ! {
    // SAFETY: as for `on_call`.
    let (hardware, core) = unsafe { syscall_parts() };
    match core.fast_recv() {
        Ok(None) => exit(percpu::current()),
        Ok(Some(context)) => go_on_with::<WAY>(hardware, context),
        Err(rest) => general_syscall(rest),
    }
}

/// The SYSCALL entry of an operation that has a fast path.
extern "C" fn on_operation<const OP: u32>() -> ! {
    // SAFETY: as for `on_call`.
    let (hardware, core) = unsafe { syscall_parts() };
    match Core::fast_operation::<OP, _>(core, hardware) {
        Ok(()) => exit(percpu::current()),
        Err(Rest::All) => on_invoke(),
        Err(rest) => general_syscall(rest),
    }
}

/// The SYSCALL entry of every other operation.
extern "C" fn on_invoke() -> ! {
    // SAFETY: as for `on_call`.
    let (hardware, core) = unsafe { syscall_parts() };
    match Core::quick_invoke(core, hardware) {
        Ok(()) => exit(percpu::current()),
        Err(rest) => general_syscall(rest),
    }
}

/// The SYSCALL entry of whatever has no fast path.
pub extern "C" fn on_syscall() -> ! {
    general_syscall(Rest::All)
}

/// How many operations [`OPERATIONS`] has an entry for.
pub const OPERATIONS_LEN: usize = 128;

/// The SYSCALL entry of each operation, by its number.
pub static OPERATIONS: [extern "C" fn() -> !; OPERATIONS_LEN] = {
    let mut entries: [extern "C" fn() -> !; OPERATIONS_LEN] = [on_invoke; OPERATIONS_LEN];
    entries[Op::CapStatus as usize] = on_operation::<{ Op::CapStatus as u32 }>;
    entries[Op::CapCopy as usize] = on_operation::<{ Op::CapCopy as u32 }>;
    entries[Op::CapMint as usize] = on_operation::<{ Op::CapMint as u32 }>;
    entries[Op::CapDelete as usize] = on_operation::<{ Op::CapDelete as u32 }>;
    entries[Op::Signal as usize] = on_operation::<{ Op::Signal as u32 }>;
    entries[Op::RegionCreate as usize] = on_operation::<{ Op::RegionCreate as u32 }>;
    entries[Op::RegionMap as usize] = on_operation::<{ Op::RegionMap as u32 }>;
    entries[Op::MappingUnmap as usize] = on_operation::<{ Op::MappingUnmap as u32 }>;
    entries[Op::ClockNow as usize] = on_operation::<{ Op::ClockNow as u32 }>;
    entries
};

/// The machine and the core.
///
/// # Safety
/// As for [`glue`]; the core must have booted.
#[inline(always)]
unsafe fn syscall_parts() -> (&'static mut Hardware, &'static mut ActiveCore) {
    // SAFETY: the caller's promise.
    unsafe {
        let glue = glue();
        (&mut glue.hardware, glue.core.as_mut().unwrap_unchecked())
    }
}

/// Switches to another thread.
#[inline(always)]
fn go_on_with<const WAY: u8>(hardware: &Hardware, context: NonNull<Context>) -> ! {
    let (owner, context) = (percpu::current().cast(), context.as_ptr());
    // SAFETY: ring 3 ran, so the current context is that of its thread; the core keeps both valid until the next entry,
    // and nobody else looks at them now.
    unsafe { switch::<WAY>(hardware, owner, context) };
    percpu::set_current(context.cast());
    exit(context.cast())
}

/// Leaves for the thread whose save area this is; the CPU is prepared for it.
#[inline(always)]
fn exit(registers: *mut Registers) -> ! {
    // SAFETY: nothing of this stack is used again.
    unsafe {
        asm!("jmp qword ptr gs:[{exit}]", exit = const percpu::EXIT, in("rdi") registers, options(noreturn))
    }
}

/// What the fast path left of a system call.
#[cold]
#[inline(never)]
fn general_syscall(rest: Rest) -> ! {
    // SAFETY: this is an entry, whose references are not used any more.
    let (hardware, core) = unsafe { syscall_parts() };
    let next = core.general_syscall(hardware, rest);
    // SAFETY: as above.
    exit(leave(unsafe { cpu() }, hardware, next))
}

/// The exceptions of ring 3 whose handler may be waiting, for a way to switch.
pub extern "C" fn on_fault<const WAY: u8>(vector: u64, error: u64) -> ! {
    // SAFETY: as for `on_call`.
    let (hardware, core) = unsafe { syscall_parts() };
    if hardware.smap {
        // SAFETY: CLAC exists where SMAP does.
        unsafe { clear_ac() };
    }
    let fault = fault(vector as u8, error);
    match Core::fast_fault(core, fault) {
        Some(context) => go_on_with::<WAY>(hardware, context),
        None => exit(run(fault)),
    }
}

/// An exception, with the address that a page fault was about.
#[inline(always)]
fn fault(vector: u8, error: u64) -> Entry {
    Entry::Fault { vector, error, address: if vector == 14 { regs::cr2() } else { 0 } }
}

/// Ring 3 may have set AC, which lifts SMAP; SYSCALL clears it by itself, and an interrupt does not.
///
/// # Safety
/// The processor must have SMAP.
#[inline(always)]
unsafe fn clear_ac() {
    // SAFETY: the caller's promise.
    unsafe { asm!("clac", options(nomem, nostack)) };
}

/// Every other entry. Returns the save area of the thread to resume.
pub extern "C" fn on_interrupt(vector: u64, error: u64) -> *mut Registers {
    let vector = vector as u8;
    // SAFETY: this is an entry.
    if unsafe { glue().hardware.smap } {
        // SAFETY: CLAC exists where SMAP does.
        unsafe { clear_ac() };
    }
    if vector < 32 {
        return run(fault(vector, error));
    }
    if vector == VERIFICATION_DONE {
        WORK_DONE.store(WORK.swap(null_mut(), Ordering::Relaxed), Ordering::Relaxed);
        return run(Entry::VerificationDone);
    }
    // SAFETY: this is an entry.
    let (hardware, cpu) = unsafe { (&mut glue().hardware, cpu()) };
    report_nmis(cpu);
    if lapic::DEVICE_VECTORS.contains(&vector) {
        if let Some(entry) = hardware.interrupt(vector) {
            return run(entry);
        }
    } else {
        cpu.spurious += 1;
    }
    resume_same(cpu)
}

fn report_nmis(cpu: &mut PerCpu) {
    let nmis = cpu.nmis.load(Ordering::Relaxed);
    if nmis != cpu.nmis_reported {
        cpu.nmis_reported = nmis;
        log!(Warn, "{nmis} non-maskable interrupts so far");
    }
}

/// Goes on with what was interrupted.
fn resume_same(cpu: &mut PerCpu) -> *mut Registers {
    let current = cpu.entry.current;
    if current == addr_of_mut!(cpu.verification) || current == addr_of_mut!(cpu.idle) {
        // SAFETY: the save area was just filled by the entry, and nothing else runs on this CPU.
        unsafe { entry::resume_kernel_context(current) }
    }
    current
}

/// Asks the core what to do and prepares the CPU for it.
#[inline(never)]
fn run(entry: Entry) -> *mut Registers {
    // SAFETY: this is an entry.
    let (glue, cpu) = unsafe { (glue(), cpu()) };
    let Some(core) = &mut glue.core else { fatal("an entry before the core has booted") };
    let next = core.handle(&mut glue.hardware, entry);
    leave(cpu, &mut glue.hardware, next)
}

/// Leaves boot for the first context.
pub fn start(next: Next) -> ! {
    // SAFETY: boot is over, interrupts are off, and nothing else runs.
    let (glue, cpu) = unsafe { (glue(), cpu()) };
    let registers = leave(cpu, &mut glue.hardware, next);
    // SAFETY: `leave` has prepared the CPU for these registers.
    unsafe { entry::resume_user(registers) }
}

#[inline(always)]
fn leave(cpu: &mut PerCpu, hardware: &mut Hardware, next: Next) -> *mut Registers {
    let Next::Thread(context) = next else { leave_for_kernel(cpu, hardware, next) };
    let context = context.as_ptr();
    let owner = cpu.owner();
    if context != owner {
        // SAFETY: the core keeps the context valid until the next entry, and nobody else looks at it now.
        unsafe { switch::<ODD>(hardware, owner, context) };
    }
    // A context begins with its registers.
    let registers = context.cast();
    cpu.entry.current = registers;
    registers
}

const _: () = assert!(core::mem::offset_of!(Context, registers) == 0);

/// Loads a thread's context in place of its owner's.
///
/// # Safety
/// Both contexts must be valid (a thread's that lives, or nobody's), their roots made from `kernel_half`; the way must
/// be one that this processor can take.
#[inline(always)]
unsafe fn switch<const WAY: u8>(hardware: &Hardware, owner: *mut Context, context: *mut Context) {
    // SAFETY: the caller's promise.
    unsafe {
        if WAY == ODD {
            return switch_oddly(hardware, owner, context);
        }
        let root = (*context).root;
        if root != (*owner).root {
            regs::set_cr3(root);
            if WAY == APART {
                let cpu = cpu();
                cpu.entry.kernel_root = root;
                cpu.entry.user_root = (*context).user_root;
            }
        }
        fpu::exchange_extended((*owner).extended, (*context).extended, WAY != PLAIN);
        switch_bases(owner, context);
    }
}

/// As [`switch`], in whichever way the processor needs.
///
/// # Safety
/// As for [`switch`].
#[inline(never)]
unsafe fn switch_oddly(hardware: &Hardware, owner: *mut Context, context: *mut Context) {
    // SAFETY: as in `switch`; the register exists where the mitigation is chosen.
    unsafe {
        let root = (*context).root;
        if root != (*owner).root {
            regs::set_cr3(root);
            if hardware.mitigations.kpti {
                let cpu = cpu();
                cpu.entry.kernel_root = root;
                cpu.entry.user_root = (*context).user_root;
            }
            if hardware.mitigations.ibpb_on_switch {
                regs::wrmsr(regs::msr::PRED_CMD, 1);
            }
        }
        hardware.fpu.exchange((*owner).extended, (*context).extended);
        if hardware.fsgsbase {
            switch_bases(owner, context);
        } else {
            load_bases(context);
        }
    }
}

/// Puts away the segment bases of the thread that leaves, which may have set them by itself, and loads null selectors
/// and the bases of the next one. Always all of them: a thread can change its own selectors and thereby the bases,
/// and the next one must not see that.
///
/// # Safety
/// The contexts must be valid; FSGSBASE must be on.
#[inline(always)]
unsafe fn switch_bases(from: *mut Context, to: *mut Context) {
    // SAFETY: the bases were read by an earlier switch or come from the core, which
    // starts with 0: they are canonical. Ring 0 uses none of DS, ES and FS; GS is exchanged by SWAPGS around the
    // change, with interrupts off, and NMI and its like load GS themselves.
    unsafe {
        let (old_fs, old_gs): (u64, u64);
        asm!(
            "rdfsbase {old_fs}", "swapgs", "rdgsbase {old_gs}",
            "mov ds, {zero:e}", "mov es, {zero:e}", "mov fs, {zero:e}", "mov gs, {zero:e}",
            "wrfsbase {fs}", "wrgsbase {gs}", "swapgs",
            old_fs = out(reg) old_fs, old_gs = out(reg) old_gs, zero = in(reg) 0,
            fs = in(reg) (*to).registers.fs_base, gs = in(reg) (*to).registers.gs_base,
            options(nostack, preserves_flags),
        );
        ((*from).registers.fs_base, (*from).registers.gs_base) = (old_fs, old_gs);
    }
}

/// Loads null selectors and the bases of a thread where, without FSGSBASE, no thread can set a base by itself: there
/// is nothing to put away.
///
/// # Safety
/// The context must be valid.
unsafe fn load_bases(context: *mut Context) {
    // SAFETY: as in `switch_bases`. `mov gs` may clear the base that SWAPGS then puts aside: both are written anew.
    unsafe {
        asm!(
            "mov ds, {zero:e}", "mov es, {zero:e}", "mov fs, {zero:e}",
            "swapgs", "mov gs, {zero:e}", "swapgs",
            zero = in(reg) 0, options(nostack, preserves_flags),
        );
        regs::wrmsr(regs::msr::FS_BASE, (*context).registers.fs_base);
        regs::wrmsr(regs::msr::KERNEL_GS_BASE, (*context).registers.gs_base);
    }
}

/// Runs the verification context or idles.
#[cold]
#[inline(never)]
fn leave_for_kernel(cpu: &mut PerCpu, hardware: &mut Hardware, next: Next) -> ! {
    cpu.stay_owner();
    if next == Next::Verification {
        if WORK.load(Ordering::Relaxed).is_null() {
            fatal("the verification context was chosen without a job");
        }
        cpu.entry.current = addr_of_mut!(cpu.verification);
    } else {
        hardware.draw_log();
        cpu.idle = Registers {
            rip: idle as *const () as u64,
            cs: u64::from(KERNEL_CODE),
            ss: u64::from(KERNEL_DATA),
            rflags: 2,
            rsp: cpu.entry.kernel_stack - 64,
            ..Registers::default()
        };
        cpu.entry.current = addr_of_mut!(cpu.idle);
    }
    // SAFETY: the save area holds a ring-0 context that is not running.
    unsafe { entry::resume_kernel_context(cpu.entry.current) }
}

/// The idle context. STI takes effect after HLT has begun, so that no interrupt is slept through.
extern "C" fn idle() -> ! {
    loop {
        // SAFETY: an interrupt saves nothing of idle but its registers.
        unsafe { asm!("sti", "hlt", options(nomem, nostack)) };
    }
}

/// The job that the verification context has; null when it is idle.
static WORK: AtomicPtr<Job> = AtomicPtr::new(null_mut());
/// The job it has finished.
static WORK_DONE: AtomicPtr<Job> = AtomicPtr::new(null_mut());
/// End of the highest frame that may be read through the physical map.
static PHYSMAP_END: AtomicU64 = AtomicU64::new(0);

/// Gives the context a job. Returns it if the context is busy.
pub fn start_work(work: Box<Job>) -> Result<(), Box<Job>> {
    let busy = !WORK.load(Ordering::Relaxed).is_null() || !WORK_DONE.load(Ordering::Relaxed).is_null();
    if busy {
        return Err(work);
    }
    WORK.store(Box::into_raw(work), Ordering::Relaxed);
    Ok(())
}

/// Takes the finished job back.
pub fn finish_work() -> Option<Box<Job>> {
    let done = WORK_DONE.swap(null_mut(), Ordering::Relaxed);
    // SAFETY: what stands there came from `Box::into_raw` in `start_work`, and the context, which moved it
    // there by its last instruction, no longer uses it.
    (!done.is_null()).then(|| unsafe { Box::from_raw(done) })
}

/// Prepares the verification context: it will begin at the top of its stack.
pub fn prepare_verification(cpu: &mut PerCpu, stack_top: u64, physmap_end: u64) {
    PHYSMAP_END.store(physmap_end, Ordering::Relaxed);
    cpu.verification = Registers {
        rip: verification as *const () as u64,
        cs: u64::from(KERNEL_CODE),
        ss: u64::from(KERNEL_DATA),
        rflags: 0x202,
        // As after a call.
        rsp: stack_top - 8,
        ..Registers::default()
    };
}

struct PhysicalFrames;

impl PhysicalFrames {
    fn pointer(frame: Frame) -> *const [u64; 512] {
        if frame.address() >= PHYSMAP_END.load(Ordering::Relaxed) {
            fatal("the verification context was given a frame that is not RAM");
        }
        layout::physmap(frame.address()) as *const [u64; 512]
    }
}

impl FrameReader for PhysicalFrames {
    fn bytes(&self, frame: Frame) -> &[u8; 4096] {
        // SAFETY: the frame is RAM and mapped; what is read so is sealed: nobody writes to it while the job exists.
        unsafe { &*Self::pointer(frame).cast() }
    }

    fn copy(&self, frame: Frame, into: &mut [u8]) {
        let words: *const u64 = Self::pointer(frame).cast();
        for (i, bytes) in into.chunks_mut(8).enumerate().take(512) {
            // SAFETY: word i of a frame that is RAM and mapped. Each is read once, whatever ring 3 writes meanwhile.
            let word = unsafe { words.add(i).read_volatile() };
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
    }

    fn keep(&self, what: Option<kernel::machine::Keep>) -> bool {
        heap::keep(what)
    }
}

/// What the stack of the verification context holds where nothing was ever put.
const UNUSED: u64 = 0x756e_7573_6564_2121;
/// Bytes below the stack pointer that are left alone when the rest is filled: an interrupt puts its frame there.
const MARGIN: u64 = 4096;

/// Lowest address of the verification context's stack, and the one behind it.
fn verification_stack() -> (u64, u64) {
    let start = layout::STACKS + layout::VERIFICATION_STACK.0;
    (start, start + layout::VERIFICATION_STACK.1)
}

/// Fills the stack below the caller: boot has used it, too.
#[inline(never)]
fn fill_verification_stack() {
    let here = 0u64;
    let end = (&raw const here as u64).saturating_sub(MARGIN) & !7;
    for address in (verification_stack().0..end).step_by(8) {
        // SAFETY: mapped memory of this context's own stack, far below everything in use: nothing is called from here,
        // and what an interrupt puts on the stack fits into the margin.
        unsafe { (address as *mut u64).write_volatile(UNUSED) };
    }
}

/// Bytes of the verification context's stack that were ever in use.
pub fn verification_stack_peak() -> u64 {
    let (start, end) = verification_stack();
    let is_used = |address: &u64| {
        // SAFETY: mapped memory that is written by this CPU only, which is here; any value will do.
        let word = unsafe { (*address as *const u64).read_volatile() };
        word != UNUSED
    };
    (start..end).step_by(8).find(is_used).map_or(0, |deepest| end - deepest)
}

/// The verification context: runs one job after another, with interrupts on, on its own stack.
extern "C" fn verification() -> ! {
    fill_verification_stack();
    loop {
        let work = WORK.load(Ordering::Relaxed);
        // SAFETY: as below.
        if unsafe { (*work).is_alone() } {
            heap::reset_scratch();
        }
        // SAFETY: the context runs only with a job (see `leave_for_kernel`), which it has to itself until the
        // software interrupt. That enters the kernel from ring 0 and saves this context; it goes on here with
        // the next job.
        unsafe {
            (*work).run(&PhysicalFrames);
            asm!("int {}", const VERIFICATION_DONE);
        }
    }
}

/// An exception in ring 0: a bug of the kernel.
pub extern "C" fn on_kernel_exception(frame: &ExceptionFrame) -> ! {
    fatal_exception(frame, "exception in the kernel")
}

/// NMI, #MC, #DF and ring-0 #DB, from any origin. Returns only for an NMI.
pub extern "C" fn on_paranoid(frame: &ExceptionFrame) {
    match frame.vector {
        2 => {
            // SAFETY: the trampoline has loaded GS; the counter is atomic, so it may be changed under any code.
            unsafe { (*percpu::this()).nmis.fetch_add(1, Ordering::Relaxed) };
        }
        8 => fatal_exception(frame, "double fault (kernel stack overflow?)"),
        18 => fatal_exception(frame, "machine check"),
        _ => fatal_exception(frame, "debug exception in the kernel"),
    }
}
