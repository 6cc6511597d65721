//! The trampolines: every way into ring 0 and back, in assembly, on pages of their own.
//!
//! Owns: section `.entry.text`, the only kernel text that user roots map when KPTI is on.
//!
//! Invariants:
//! - On entry all user registers go straight into `PerCpu.entry.current`; nothing of a thread stays on
//!   a CPU stack. A saved `cs` of 0 means "came by SYSCALL": rcx and r11 are then dead and not saved; after
//!   an interrupt bit 63 of it is set. While a thread runs, its saved `cs` is 0.
//! - In ring 0 GS is the kernel's, but for the few instructions next to each SWAPGS, where interrupts
//!   are off and NMI, #MC, #DF and #DB fix GS and CR3 by themselves (`paranoid`).
//! - Ring 3 is resumed only at a canonical lower-half RIP and RSP (else the thread gets a #GP), with
//!   constant selectors and cleaned flags.
//! - Interrupts reach ring 0 only in the verification context and idle; both are saved and resumed
//!   like threads, without SWAPGS and without changing CR3.

use core::arch::global_asm;
use core::mem::offset_of;

use kernel::cpu::{Features, Mitigations};
use kernel::machine::Registers;
use sila_abi::syscall::Call;

use super::descriptors::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};
use super::fpu::Fpu;
use super::layout;
use super::percpu;
use super::regs::msr;
use super::trap::{APART, HIDING, ODD, PLAIN};

unsafe extern "C" {
    /// SYSCALL target when KPTI is off.
    fn syscall_entry_plain();
    /// SYSCALL target when KPTI is off and the processor leaves x87 pointers behind.
    fn syscall_entry_hiding();
    /// SYSCALL target when KPTI is off and a switch takes more than most.
    fn syscall_entry_odd();
    /// SYSCALL target when KPTI is on and a switch takes more than most.
    fn syscall_entry_kpti();
    /// SYSCALL target when KPTI is on.
    fn syscall_entry_apart();
    /// The way to ring 3 when KPTI is off; the save area is in rdi.
    fn exit_plain();
    /// The way to ring 3 when KPTI is on.
    fn exit_kpti();
    /// As `exit_plain`, clearing the processor's buffers first.
    fn exit_verw_plain();
    /// As `exit_kpti`, clearing the processor's buffers first.
    fn exit_verw_kpti();
    /// First of 256 interrupt stubs.
    fn vector_stubs();
    /// Resumes a ring-0 context (verification or idle) from its save area.
    pub fn resume_kernel_context(registers: *const Registers) -> !;
    /// Resumes ring 3 from a save area (the first time, when no entry is to be returned from).
    pub fn resume_user(registers: *const Registers) -> !;
}

/// Bytes of one interrupt stub.
const STUB: u64 = 16;

/// Address of a vector's stub.
pub fn vector_address(vector: usize) -> u64 {
    vector_stubs as *const () as u64 + STUB * vector as u64
}

/// Address of the trampoline that SYSCALL takes.
pub fn syscall_address(fpu: &Fpu, features: Features, mitigations: Mitigations) -> u64 {
    let entry = match way(fpu, features, mitigations) {
        APART => syscall_entry_apart,
        _ if mitigations.kpti => syscall_entry_kpti,
        PLAIN => syscall_entry_plain,
        HIDING => syscall_entry_hiding,
        _ => syscall_entry_odd,
    };
    entry as *const () as u64
}

/// How this processor switches between threads.
fn way(fpu: &Fpu, features: Features, mitigations: Mitigations) -> u8 {
    let simple = fpu.extends() && features.contains(Features::FSGSBASE);
    match (mitigations.kpti, fpu.leaks_pointers()) {
        _ if mitigations.ibpb_on_switch || !simple => ODD,
        (true, _) => APART,
        (false, true) => HIDING,
        (false, false) => PLAIN,
    }
}

/// Address of what handles an exception of ring 3.
pub fn fault_address(fpu: &Fpu, features: Features, mitigations: Mitigations) -> u64 {
    use super::trap::on_fault;
    let entry = match way(fpu, features, mitigations) {
        PLAIN => on_fault::<PLAIN>,
        HIDING => on_fault::<HIDING>,
        APART => on_fault::<APART>,
        _ => on_fault::<ODD>,
    };
    entry as *const () as u64
}

/// Address of the trampoline that leads to ring 3.
pub fn exit_address(mitigations: Mitigations) -> u64 {
    let exit = match (mitigations.kpti, mitigations.verw_on_exit) {
        (false, false) => exit_plain,
        (true, false) => exit_kpti,
        (false, true) => exit_verw_plain,
        (true, true) => exit_verw_kpti,
    };
    exit as *const () as u64
}

/// Flags that ring 3 keeps: the arithmetic ones, DF and ID; and those that it always has: IF and the bit that is one.
const USER_FLAGS: u32 = 0x20_0ed7;

/// The software interrupt by which the verification context ends a job.
pub const VERIFICATION_DONE: u8 = 0x50;

// SAFETY: see the invariants above; each label's comment says what it expects.
global_asm!(
    r#"
.section .entry.text, "ax"

.macro SAVE_ALL_BUT base
    mov [\base + {RBX}], rbx
    mov [\base + {RDX}], rdx
    mov [\base + {RSI}], rsi
    mov [\base + {RDI}], rdi
    mov [\base + {RBP}], rbp
    mov [\base + {R8}], r8
    mov [\base + {R9}], r9
    mov [\base + {R10}], r10
    mov [\base + {R12}], r12
    mov [\base + {R13}], r13
    mov [\base + {R14}], r14
    mov [\base + {R15}], r15
.endm

/* Loads all but rdi, rcx, r11 and rsp from [rdi]. */
.macro LOAD_ALL_BUT
    mov rax, [rdi + {RAX}]
    mov rbx, [rdi + {RBX}]
    mov rdx, [rdi + {RDX}]
    mov rsi, [rdi + {RSI}]
    mov rbp, [rdi + {RBP}]
    mov r8, [rdi + {R8}]
    mov r9, [rdi + {R9}]
    mov r10, [rdi + {R10}]
    mov r12, [rdi + {R12}]
    mov r13, [rdi + {R13}]
    mov r14, [rdi + {R14}]
    mov r15, [rdi + {R15}]
.endm

/* From ring 3: rsp = save area of the thread that runs, whose own rsp is put aside. */
.macro SAVE_AREA
    swapgs
    mov gs:[{SCRATCH}], rsp
    mov rsp, gs:[{CURRENT}]
.endm

/* The same, with the kernel's page tables apart from ring 3's. */
.macro SAVE_AREA_APART
    swapgs
    mov gs:[{SCRATCH}], rsp
    mov rsp, gs:[{KERNEL_ROOT}]
    mov cr3, rsp
    mov rsp, gs:[{CURRENT}]
.endm

/* rsp = save area, rcx = user rip, r11 = user flags; leaves rsp = kernel stack. */
.macro SYSCALL_SAVE call, reply_recv, recv
    mov [rsp + {RAX}], rax
    SAVE_ALL_BUT rsp
    mov [rsp + {RIP}], rcx
    mov [rsp + {RFLAGS}], r11
    mov rcx, gs:[{SCRATCH}]
    mov [rsp + {RSP}], rcx
    mov rsp, gs:[{KERNEL_STACK}]
    cmp al, {CALL}
    je 1f
    cmp al, {REPLY_RECV}
    je 2f
    cmp al, {INVOKE}
    jne 3f
    shr rax, 32
    cmp eax, {OPERATIONS_LEN}
    jae 4f
    call [{operations} + rax * 8]
1:  call \call
2:  call \reply_recv
3:  cmp al, {RECV}
    jne 4f
    call \recv
4:  call {syscall}
.endm

/* rdi = save area of a thread: loads rcx = rip, r11 = clean flags; jumps away where ring 3 must not be resumed by
   SYSRET: after an interrupt, or at an address that is none. */
.macro CHECK_USER other
    mov rcx, [rdi + {RIP}]
    mov rdx, [rdi + {RSP}]
    or rdx, rcx
    or rdx, [rdi + {CS}]
    mov r11, [rdi + {RFLAGS}]
    and r11d, {USER_FLAGS}
    shr rdx, 47
    jnz \other
.endm

/* rdi = save area of a thread, rcx = rip: jumps away where ring 3 must not be resumed at all. */
.macro CHECK_ADDRESSES bad
    mov rdx, [rdi + {RSP}]
    or rdx, rcx
    shr rdx, 47
    jnz \bad
.endm

.balign 64
.global syscall_entry_plain
.global exit_plain
syscall_entry_plain:
    SAVE_AREA
    SYSCALL_SAVE {call}, {reply_recv}, {recv}
exit_plain:
    CHECK_USER .Liret_plain
    LOAD_ALL_BUT
    mov rsp, [rdi + {RSP}]
    mov rdi, [rdi + {RDI}]
    swapgs
    sysretq

/* As syscall_entry_plain, for processors that take more than most to switch between threads. */
.balign 64
.global syscall_entry_odd
syscall_entry_odd:
    SAVE_AREA
    SYSCALL_SAVE {call_oddly}, {reply_recv_oddly}, {recv_oddly}

/* As syscall_entry_plain, for processors that leave x87 pointers behind. */
.balign 64
.global syscall_entry_hiding
syscall_entry_hiding:
    SAVE_AREA
    SYSCALL_SAVE {call_hiding}, {reply_recv_hiding}, {recv_hiding}

/* As syscall_entry_kpti, for processors that switch between threads as syscall_entry_plain does. */
.balign 64
.global syscall_entry_apart
syscall_entry_apart:
    SAVE_AREA_APART
    SYSCALL_SAVE {call_apart}, {reply_recv_apart}, {recv_apart}

.balign 64
.global syscall_entry_kpti
.global exit_kpti
syscall_entry_kpti:
    SAVE_AREA_APART
    SYSCALL_SAVE {call_oddly}, {reply_recv_oddly}, {recv_oddly}
exit_kpti:
    CHECK_USER .Liret_kpti
    LOAD_ALL_BUT
    mov rsp, [rdi + {RSP}]
    mov gs:[{SCRATCH}], rsp
    mov rdi, [rdi + {RDI}]
    mov rsp, gs:[{USER_ROOT}]
    mov cr3, rsp
    mov rsp, gs:[{SCRATCH}]
    swapgs
    sysretq

/* Clears the buffers that other threads' data may be in. The selector is loaded for its side effect only. */
.global exit_verw_plain
exit_verw_plain:
    verw word ptr gs:[{SELECTOR}]
    jmp exit_plain

.global exit_verw_kpti
exit_verw_kpti:
    verw word ptr gs:[{SELECTOR}]
    jmp exit_kpti

/* rdi = save area; resumes ring 3 in whichever way it takes. */
.global resume_user
resume_user:
    jmp qword ptr gs:[{EXIT}]

/* The thread's RIP or RSP is not a lower-half address: it gets a #GP instead. */
.Lbad_return:
    mov rsp, gs:[{KERNEL_STACK}]
    mov edi, 13
    xor esi, esi
    call {interrupt}
    mov rdi, rax
    jmp qword ptr gs:[{EXIT}]

/* rdi = save area, rcx = rip, r11 = flags: builds an interrupt frame on the entry stack; all but rdi is loaded. */
.macro IRET_FRAME
    mov qword ptr [rdi + {CS}], 0
    mov rsp, gs:[{ENTRY_STACK}]
    push {USER_DATA}
    push qword ptr [rdi + {RSP}]
    push r11
    push {USER_CODE}
    push rcx
    LOAD_ALL_BUT
    mov rcx, [rdi + {RCX}]
    mov r11, [rdi + {R11}]
.endm

.Liret_plain:
    CHECK_ADDRESSES .Lbad_return
    IRET_FRAME
    mov rdi, [rdi + {RDI}]
    swapgs
    iretq

.Liret_kpti:
    CHECK_ADDRESSES .Lbad_return
    IRET_FRAME
    push qword ptr [rdi + {RDI}]
    mov rdi, gs:[{USER_ROOT}]
    mov cr3, rdi
    pop rdi
    swapgs
    iretq

/* rdi = save area of a ring-0 context. Its stack takes the frame, so nothing of it stays on ours. */
.global resume_kernel_context
resume_kernel_context:
    mov rcx, [rdi + {RSP}]
    push {KERNEL_DATA}
    push rcx
    push qword ptr [rdi + {RFLAGS}]
    push {KERNEL_CODE}
    push qword ptr [rdi + {RIP}]
    LOAD_ALL_BUT
    mov rcx, [rdi + {RCX}]
    mov r11, [rdi + {R11}]
    mov rdi, [rdi + {RDI}]
    iretq

/* Stack: vector, error code, rip, cs, rflags, rsp, ss. */
.balign 64
interrupt_common:
    cld
    test byte ptr [rsp + 24], 3
    jz 3f
    swapgs
    lfence
    push rax
    mov rax, gs:[{KERNEL_ROOT}]
    test rax, rax
    jz 2f
    mov cr3, rax
2:  mov rax, gs:[{CURRENT}]
    mov [rax + {RCX}], rcx
    mov [rax + {R11}], r11
    SAVE_ALL_BUT rax
    pop qword ptr [rax + {RAX}]
    pop rdi
    pop rsi
    pop qword ptr [rax + {RIP}]
    pop qword ptr [rax + {CS}]
    mov byte ptr [rax + {CS} + 7], 0x80
    pop qword ptr [rax + {RFLAGS}]
    pop qword ptr [rax + {RSP}]
    pop qword ptr [rax + {SS}]
    mov rsp, gs:[{KERNEL_STACK}]
    cmp edi, 32
    jae 5f
    call qword ptr gs:[{FAULT}]
5:  call {interrupt}
    mov rdi, rax
    jmp qword ptr gs:[{EXIT}]
3:  lfence
    cmp qword ptr [rsp], 32
    jb kernel_exception
    push rax
    jmp 2b

.macro PUSH_ALL
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rbp
    push rdi
    push rsi
    push rdx
    push rcx
    push rbx
    push rax
.endm

/* An exception in ring 0 is a bug of ours. */
kernel_exception:
    PUSH_ALL
    mov rdi, rsp
    and rsp, -16
    call {fatal}
    ud2

/* NMI, #MC, #DF, #DB: anything may be loaded in GS and CR3. The top of the stack tells what should. */
.balign 64
paranoid:
    cld
    cmp qword ptr [rsp], 1
    jne 4f
    test byte ptr [rsp + 24], 3
    jnz interrupt_common
4:  PUSH_ALL
    mov rbx, rsp
    mov rbp, rsp
    or rbp, {IST_MASK}
    mov r12, cr3
    mov rax, [rbp - 15]
    mov cr3, rax
    mov ecx, {GS_BASE}
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov r13, rax
    mov rax, [rbp - 7]
    mov rdx, rax
    shr rdx, 32
    wrmsr
    lfence
    mov rdi, rbx
    xor ebp, ebp
    and rsp, -16
    call {paranoid}
    mov ecx, {GS_BASE}
    mov rax, r13
    mov rdx, r13
    shr rdx, 32
    wrmsr
    mov cr3, r12
    mov rsp, rbx
    pop rax
    pop rbx
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop rbp
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    add rsp, 16
    iretq

.balign 64
vector_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    .byte 0x68 /* push imm32: in this syntax a symbol would be a memory operand */
    .long vector
    .if (vector == 1) || (vector == 2) || (vector == 8) || (vector == 18)
    jmp paranoid
    .else
    jmp interrupt_common
    .endif
    .set vector, vector + 1
.endr
.section .text
"#,
    RAX = const offset_of!(Registers, rax),
    RBX = const offset_of!(Registers, rbx),
    RCX = const offset_of!(Registers, rcx),
    RDX = const offset_of!(Registers, rdx),
    RSI = const offset_of!(Registers, rsi),
    RDI = const offset_of!(Registers, rdi),
    RBP = const offset_of!(Registers, rbp),
    R8 = const offset_of!(Registers, r8),
    R9 = const offset_of!(Registers, r9),
    R10 = const offset_of!(Registers, r10),
    R11 = const offset_of!(Registers, r11),
    R12 = const offset_of!(Registers, r12),
    R13 = const offset_of!(Registers, r13),
    R14 = const offset_of!(Registers, r14),
    R15 = const offset_of!(Registers, r15),
    RIP = const offset_of!(Registers, rip),
    CS = const offset_of!(Registers, cs),
    RFLAGS = const offset_of!(Registers, rflags),
    RSP = const offset_of!(Registers, rsp),
    SS = const offset_of!(Registers, ss),
    KERNEL_ROOT = const percpu::KERNEL_ROOT,
    USER_ROOT = const percpu::USER_ROOT,
    SCRATCH = const percpu::SCRATCH,
    CURRENT = const percpu::CURRENT,
    KERNEL_STACK = const percpu::KERNEL_STACK,
    EXIT = const percpu::EXIT,
    FAULT = const percpu::FAULT,
    SELECTOR = const percpu::SELECTOR,
    ENTRY_STACK = const percpu::ENTRY_STACK,
    USER_FLAGS = const USER_FLAGS,
    USER_CODE = const USER_CODE,
    USER_DATA = const USER_DATA,
    KERNEL_CODE = const KERNEL_CODE,
    KERNEL_DATA = const KERNEL_DATA,
    IST_MASK = const layout::IST_SIZE - 1,
    GS_BASE = const msr::GS_BASE,
    CALL = const Call::Call as u8,
    REPLY_RECV = const Call::ReplyRecv as u8,
    call = sym super::trap::on_call::<PLAIN>,
    call_hiding = sym super::trap::on_call::<HIDING>,
    call_oddly = sym super::trap::on_call::<ODD>,
    call_apart = sym super::trap::on_call::<APART>,
    reply_recv = sym super::trap::on_reply_recv::<PLAIN>,
    reply_recv_hiding = sym super::trap::on_reply_recv::<HIDING>,
    reply_recv_oddly = sym super::trap::on_reply_recv::<ODD>,
    reply_recv_apart = sym super::trap::on_reply_recv::<APART>,
    recv = sym super::trap::on_recv::<PLAIN>,
    recv_hiding = sym super::trap::on_recv::<HIDING>,
    recv_oddly = sym super::trap::on_recv::<ODD>,
    recv_apart = sym super::trap::on_recv::<APART>,
    operations = sym super::trap::OPERATIONS,
    OPERATIONS_LEN = const super::trap::OPERATIONS_LEN,
    INVOKE = const Call::Invoke as u8,
    RECV = const Call::Recv as u8,
    syscall = sym super::trap::on_syscall,
    interrupt = sym super::trap::on_interrupt,
    fatal = sym super::trap::on_kernel_exception,
    paranoid = sym super::trap::on_paranoid,
);
