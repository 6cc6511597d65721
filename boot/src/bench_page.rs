//! The book's page on performance.
use crate::bench_table::{Conditions, Results, lines};

/// The page.
pub fn page(results: &Results, conditions: &Conditions) -> String {
    let Conditions { compiler, cpu, .. } = conditions;
    let (whole, part) = (results.unit / 1000, results.unit % 1000);
    let mut text = format!(
        "# Performance\n\n<!-- Made by `cargo run -- bench --book docs/performance.md`. -->\n\n{INTRODUCTION}\n\
         Compiler: `{compiler}`. CPU model: `{cpu}`. One instruction is {whole}.{part:03} ticks of the time-stamp \
         counter.\n\n"
    );
    let lines = lines(results);
    for (at, line) in lines.iter().enumerate() {
        text += &format!("| {} |\n", line.join(" | "));
        if at == 0 {
            let last = if line.last().is_some_and(|head| head == "expensive") { "---|" } else { "---:|" };
            text += &format!("|---|{}{last}\n", "---:|".repeat(line.len().saturating_sub(2)));
        }
    }
    text + REMARKS
}

const INTRODUCTION: &str = "\
What the kernel's operations cost, in guest instructions. `cargo run -- bench` boots a system whose benchmark
processes (`modules/bench`) measure each other through the public ABI, under QEMU's `-icount shift=6,sleep=off`:
there every instruction takes 64 ns of virtual time, so that differences of the time-stamp counter count
instructions. The counts are the same in every run and on every host. The program calibrates itself with a loop of
known length and takes off what an empty window costs. A window goes from the ring-3 instruction before the stub to
the one after it, loading and storing the stub's registers included. FPU state and the bases of FS and GS are
switched with the thread. Page tables are warm unless the row says otherwise; a frame is zeroed where it is taken.
";

const REMARKS: &str = "
`ratio` compares the median with seL4's (16.0.0-dev, x86_64, with its fast path, counted the same way); `of limit`
with the most that SILA allows itself, for a latency by the worst case. Rows without such figures have none. `with
KPTI` is the same figure (for a latency the worst case) when the kernel's page tables are apart from ring 3's
(`bench --kpti on`). `expensive` counts, in one round of the window, the instructions whose price is far from
that of the rest: writes to CR3, INVLPG, WRMSR, RDMSR, XSAVE, XRSTOR, WRFSBASE and its kin, SWAPGS, loads of
segment registers, SYSCALL, SYSRET, IRET, locked ones, port I/O, RDTSC, divisions, and the iterations of `rep`. They are
counted by having QEMU write down every instruction of a few rounds; a traced round must have as many instructions as
were measured, or the row fails. The entry by an exception or interrupt, which is no instruction, is not among them.

* `ipc_call_reply_Nw`: a call with N words, and as many back, between two processes of the same priority, the
  server's `reply_recv` included. The words are in place and are not read.
* `ipc_cap_transfer`: the same without words, with one capability, which the server deletes before it answers.
* `ipc_send`: a message without words to a process that waits for one, until the sender goes on.
* `null_invocation`: `CapStatus`, which finds a capability and says what it is.
* `yield`: with no other thread of the priority ready.
* `notify_ping_pong`: a signal to another process and the wait for its signal back.
* `cap_revoke` deletes one child, `revoke_900` deletes 900.
* `frame_alloc_map`: `RegionCreate` of one frame, which is zeroed, and `RegionMap` beside a page that is mapped
  already. `region_create` and `page_map` are its parts. `page_unmap`: `MappingUnmap` alone. `region_seal`: one
  frame that was never mapped.
* `thread_create`: `ThreadCreate` without message page, up to the first instruction of the new thread, which has a
  higher priority. `thread_destroy`: `ThreadTerminate` and `CapDelete`.
* `fault_round_trip`: an undefined instruction, the handler in another process, and back behind the instruction.
* `process_create`: `ProcessCreate` of the benchmarks' own image, both signatures and the hash included;
  `process_terminate` is its end.
* `key_decode`, `signature_verify`: decoding a public key, and checking a signature with it, in the kernel's verification
  context (by `TestVerify`; what the operation itself costs is taken off). `hash_1mib`: what a MiB more of an image costs
  it. `load_kernel_35k`: `ProcessCreate` of an image of 36,864 bytes (35.5 KB are not whole pages), keys decoded.
  `load_whole_35k`: the same image as a package, from the request to ModuleManager to its answer: package signature,
  manifest signature, decompression, the kernel's part, and the module's report that it serves; its image is taken out
  of the module cache before. For scale: another operating system in Rust takes about 17.9 M instructions to verify and
  3.6 M to install as much. `load_kernel_cached_35k`, `load_whole_cached_35k`: the same with the image in the module
  cache, by `ProcessCreateCached`.
  `process_create_N_cap(s)`: `ProcessCreate` of that image with so many endowed capabilities. `verification_stack`: bytes,
  not instructions: how much of the verification context's 256 KiB of stack all of this has used. The stack was
  filled with a pattern before the first job, and `TestAccounting` looks for its deepest change.
* `interrupt_to_thread`: from the expiry of a timer to the first ring-3 instruction of the thread that waits for it,
  while a thread of low priority runs in ring 3.
* `dispatch_latency_*`: the same at random instants while the thread of low priority makes the kernel work: verify an
  image (`_verify`), verify one of 16 MiB, nearly all of whose time is the hash (`_hash`), zero 2 MiB (`_zero`),
  revoke 10,000 capabilities of many processes (`_revoke`), or end a process that has used up its Pool: 4096
  frames, its threads, its slots (`_terminate`). `dispatch_latency` is all of them together. The expiry is known to
  within one reading of the clock, which is added. The random instants are the same in every run; that a longer
  stretch exists which none of them met cannot be excluded.

What the counts leave out: caches, TLBs and pipelines do not exist in this emulation, and an instruction counts one
whatever it costs on a processor; a `rep` instruction counts once for each iteration. With KPTI every change of
page tables also empties the TLB on processors without PCID, which no count shows.

`cargo run -- bench --profile NAME` says in which functions a row's instructions are.

`boot/bench-baseline.json` holds the medians (for latencies: worst cases) of earlier runs by compiler, CPU model and
KPTI; `bench --check` fails when one has grown by more than 5 %, a latency only beyond its limit, and
`bench --update-baseline` writes them.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_a_table() {
        let lines = ["bench unit 64000 64", "bench row null_invocation 100 228 130 200 1000", "bench done"];
        let conditions = Conditions { compiler: "rustc 1".into(), cpu: "max".into(), kpti: false };
        let text = page(&Results::read(lines), &conditions);
        assert!(text.contains("| null_invocation | 100 | 228 |") && text.contains("`rustc 1`"));
        let bar = |line: &&str| line.starts_with('|');
        let columns: Vec<usize> = text.lines().filter(bar).map(|line| line.matches('|').count()).collect();
        assert!(columns.len() == 3 && columns.iter().all(|count| *count == columns[0]), "{columns:?}");
    }
}
