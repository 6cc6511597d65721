//! From the loader's entry to the first context.
//!
//! Two halves. The first runs on the loader's stack and page tables: it reads everything that only the
//! loader's map shows (memory map, ACPI, bundle) into [`Found`] and builds the kernel's own tables. The
//! second runs on the kernel's own stack and tables: descriptors, protections, interrupts, clock, core.
//! Invariants: interrupts stay off throughout; nothing of the loader is used after the switch, and its
//! memory goes to the core.

use core::arch::asm;
use core::cell::UnsafeCell;

use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::info::{FrameBufferInfo, MemoryRegionKind};
use kernel::acpi::{MAX_IOAPICS, Tables};
use kernel::cpu::{Facts, Features, Mitigations, mitigations};
use kernel::device_table::DeviceTable;
use kernel::log;
use kernel::log::Hooks;
use kernel::machine::{Frame, Machine, PowerOff};
use spin::Once;

use super::clock::Clock;
use super::core_iface::{ActiveCore, BootInfo, Core};
use super::fpu::Fpu;
use super::lapic::{self, Lapic};
use super::memory_map::Ranges;
use super::paging::Root;
use super::panic::fatal;
use super::{
    acpi, descriptors, entry, features, framebuffer, fwcfg, heap, layout, pci, percpu, power, regs, serial,
    spaces, trap,
};

static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::FixedAddress(layout::PHYSMAP));
    // Clear of the kernel's own layout.
    config.mappings.dynamic_range_start = Some(0xffff_c000_0000_0000);
    config.mappings.dynamic_range_end = Some(0xffff_d000_0000_0000);
    config.kernel_stack_size = 128 * 1024;
    config
};

bootloader_api::entry_point!(first_half, config = &CONFIG);

/// What the first half hands to the second.
struct Found {
    free: Ranges,
    reclaim: Ranges,
    root: Root,
    facts: Facts,
    mitigations: Mitigations,
    tables: Tables,
    firmware: Ranges,
    functions: u32,
    bundle: Option<(u64, u64)>,
    devices: Devices,
    heap: (u64, u64),
    scratch: u64,
    kept: u64,
    physmap_end: u64,
    kernel_half: [u64; 256],
    entry_half: [u64; 256],
    #[cfg(feature = "self-check")]
    has_serial: bool,
}

/// Where devices are mapped; 0 for what is not there.
struct Devices {
    framebuffer: Option<(u64, FrameBufferInfo)>,
    /// Where the framebuffer is, physically.
    screen: Option<(u64, u64)>,
    lapic: u64,
    ioapics: [u64; MAX_IOAPICS],
    hpet: u64,
}

/// Physical memory by its use.
struct Memory {
    /// Free already.
    free: Ranges,
    /// The loader's; free once the kernel stands on its own.
    reclaim: Ranges,
    /// Everything but the kernel's image and the firmware's.
    all: Ranges,
    /// Whatever the firmware's map names.
    firmware: Ranges,
    /// Start and length of the boot bundle.
    bundle: Option<(u64, u64)>,
}

struct FoundCell(UnsafeCell<Option<Found>>);

// SAFETY: written by the first half, taken by the second, on the one CPU that runs.
unsafe impl Sync for FoundCell {}

static FOUND: FoundCell = FoundCell(UnsafeCell::new(None));

fn first_half(info: &'static mut bootloader_api::BootInfo) -> ! {
    // SAFETY: nothing has been set up that an interrupt could reach.
    unsafe { asm!("cli", options(nomem, nostack)) };
    let has_serial = serial::start();
    // Before a frame is taken: nothing that the firmware left running may write to it.
    let functions = pci::silence();
    #[cfg(not(feature = "self-check"))]
    let _nobody_asks = has_serial;
    if features::lacks_no_execute() {
        fatal("this processor has no NX bit");
    }
    let facts = features::facts();
    let mitigations = decide(&facts);
    let Memory { mut free, reclaim, all, firmware, bundle } = sort_memory(info);
    let tables = acpi::read(info.rsdp_addr.into_option());
    power::start(&tables, facts.features.contains(Features::HYPERVISOR));
    let global = !mitigations.kpti && facts.features.contains(Features::GLOBAL_PAGES);
    let gib = facts.features.contains(Features::GIB_PAGES);
    let root = Root::new(&mut free, global, gib);
    let user = Root::new(&mut free, false, gib);
    spaces::map_image(&mut free, &root);
    let physmap_end = spaces::map_physical(&mut free, &root, &all);
    spaces::map_stacks(&mut free, &root, 0);
    spaces::map_entry_area(&mut free, &root, &user, 0);
    let devices = map_devices(info, &tables, &mut free, &root);
    let heap_bytes = heap::boot_size(all.total()).next_multiple_of(4096);
    let heap = (layout::physmap(free.take(heap_bytes, 1 << 21)), heap_bytes);
    let scratch = layout::physmap(free.take(heap::SCRATCH, 4096));
    let kept = layout::physmap(free.take(heap::KEPT, 4096));
    let (kernel_half, entry_half) = (root.upper_half(), user.upper_half());
    // The verification context's stack is the largest, and not in use yet: the core checks signatures on it.
    let (stack, cr3) = (spaces::stack_tops(0).1, root.physical);
    let found = Found {
        free,
        reclaim,
        root,
        facts,
        mitigations,
        tables,
        firmware,
        functions,
        bundle,
        devices,
        heap,
        scratch,
        kept,
        physmap_end,
        kernel_half,
        entry_half,
        #[cfg(feature = "self-check")]
        has_serial,
    };
    // SAFETY: the new root maps the image just as the loader's does, and the stack; the second half takes
    // nothing but what it finds in `FOUND`. Nothing of this stack is used again.
    unsafe {
        *FOUND.0.get() = Some(found);
        asm!(
            "mov cr3, {root}", "mov rsp, {stack}", "xor ebp, ebp", "call {go}", "ud2",
            root = in(reg) cr3, stack = in(reg) stack, go = sym second_half, options(noreturn),
        );
    }
}

fn sort_memory(info: &bootloader_api::BootInfo) -> Memory {
    let (mut free, mut reclaim, mut firmware) = (Ranges::new(), Ranges::new(), Ranges::new());
    for region in info.memory_regions.iter() {
        firmware.cover(region.start, region.end);
        match region.kind {
            MemoryRegionKind::Usable => free.add(region.start, region.end),
            MemoryRegionKind::Bootloader => reclaim.add(region.start, region.end),
            _ => {}
        }
    }
    for list in [&mut free, &mut reclaim] {
        spaces::reserve_image(list);
    }
    let mut all = free;
    for &(start, end) in reclaim.list() {
        all.add(start, end);
    }
    let bundle = bundle(info);
    if let Some((start, bytes)) = bundle {
        free.remove(start, start + bytes);
        reclaim.remove(start, start + bytes);
    }
    Memory { free, reclaim, all, firmware, bundle }
}

fn map_devices(info: &bootloader_api::BootInfo, tables: &Tables, free: &mut Ranges, root: &Root) -> Devices {
    let mut windows = spaces::Windows::new();
    let lapic = match lapic::mode() {
        lapic::Mode::Memory(address) => windows.registers(free, root, address, 4096),
        lapic::Mode::Registers => 0,
    };
    let ioapics = tables.ioapics.map(|(address, _)| windows.registers(free, root, address, 32));
    let hpet = windows.registers(free, root, tables.hpet, 1024);
    let found = info.framebuffer.as_ref().and_then(|fb| {
        let length = fb.info().byte_len as u64;
        let physical = spaces::contiguous(fb.buffer().as_ptr() as u64, length)?;
        Some((physical, length, fb.info()))
    });
    let framebuffer = found.map(|(at, length, info)| (windows.framebuffer(free, root, at, length), info));
    let screen = found.map(|(at, length, _)| (at, at.saturating_add(length)));
    Devices { framebuffer, screen, lapic, ioapics, hpet }
}

/// A boot flag that is on or off; there are none but under a hypervisor.
fn flag(facts: &Facts, name: &[u8]) -> Option<bool> {
    let flags = if facts.features.contains(Features::HYPERVISOR) { fwcfg::flags() } else { None };
    flags.and_then(|(bytes, length)| fwcfg::switch(bytes.get(..length)?, name))
}

/// Mitigations for this processor, with the boot flags' say.
fn decide(facts: &Facts) -> Mitigations {
    mitigations(facts, flag(facts, b"kpti"))
}

/// Physical start and length of the boot bundle.
fn bundle(info: &bootloader_api::BootInfo) -> Option<(u64, u64)> {
    let address = info.ramdisk_addr.into_option()?;
    if info.ramdisk_len == 0 {
        return None;
    }
    match spaces::contiguous(address, info.ramdisk_len) {
        Some(physical) if physical & 4095 == 0 => Some((physical, info.ramdisk_len)),
        _ => fatal("the boot bundle is not contiguous"),
    }
}

extern "C" fn second_half() -> ! {
    // SAFETY: the first half is over; nobody else takes it.
    let Some(mut found) = (unsafe { (*FOUND.0.get()).take() }) else {
        fatal("the second half of boot ran twice")
    };
    let area = percpu::address_of(0);
    // SAFETY: GS becomes this CPU's struct before anything asks for it; `map_entry_area` made the tables, and
    // the heaps' memory was taken from the free list.
    unsafe {
        descriptors::load(area);
        regs::wrmsr(regs::msr::GS_BASE, area);
        regs::wrmsr(regs::msr::KERNEL_GS_BASE, 0);
        heap::start(found.heap.0, found.heap.1, found.scratch, found.kept);
    }
    features::protect(found.facts.features, found.mitigations);
    spaces::freeze_segments(&mut found.free, &found.root, 0);
    // Devices stop decoding for a moment, the screen among them: nothing may be drawn meanwhile.
    let devices = pci::table(&found.tables, &found.firmware, found.devices.screen);
    if let Some((base, info)) = found.devices.framebuffer {
        // SAFETY: mapped by the first half, for good.
        unsafe { framebuffer::start(base, info) };
    }
    start_machine(&found);
    log::connect(Hooks { now, show });
    announce(&found, &devices);
    start_core(&found, devices)
}

/// Fills in the machine: interrupts, clock, extended state, roots.
fn start_machine(found: &Found) {
    // SAFETY: boot; the windows were mapped by the first half, for good.
    let (hardware, cpu, lapic) =
        unsafe { (&mut trap::glue().hardware, trap::cpu(), Lapic::at(found.devices.lapic)) };
    lapic.start();
    // SAFETY: as above.
    unsafe { hardware.lines.start(&found.tables, &found.devices.ioapics, lapic.id()) };
    hardware.lapic = lapic;
    hardware.clock = Clock::measure(&found.tables, lapic, found.devices.hpet);
    LOG_CLOCK.call_once(|| hardware.clock);
    power::enable_acpi(&found.tables);
    hardware.fpu = Fpu::start(found.facts.features);
    hardware.mitigations = found.mitigations;
    hardware.fsgsbase = found.facts.features.contains(Features::FSGSBASE);
    hardware.smap = found.facts.features.contains(Features::SMAP);
    hardware.kernel_half = found.kernel_half;
    hardware.entry_half = found.entry_half;
    hardware.boot_root = found.root.physical;
    hardware.physmap_end = found.physmap_end;
    if found.mitigations.kpti {
        cpu.entry.kernel_root = found.root.physical;
    }
    cpu.entry.exit = entry::exit_address(found.mitigations);
    cpu.entry.fault = entry::fault_address(&hardware.fpu, found.facts.features, found.mitigations);
    cpu.entry.selector = u64::from(descriptors::KERNEL_DATA);
    cpu.disown(found.root.physical);
    features::open_syscall(entry::syscall_address(&hardware.fpu, found.facts.features, found.mitigations));
    trap::prepare_verification(cpu, spaces::stack_tops(0).1, found.physmap_end);
}

fn announce(found: &Found, devices: &DeviceTable) {
    // SAFETY: boot.
    let hardware = unsafe { &trap::glue().hardware };
    let facts = &found.facts;
    log!(Info, "SILA {} starts", env!("CARGO_PKG_VERSION"));
    log!(Info, "processor: {:?} family {:#x} model {:#x}", facts.vendor, facts.family, facts.model);
    log!(Info, "features: {:?}", facts.features);
    log!(Info, "mitigations: {:?}", found.mitigations);
    log!(Info, "extended state: XCR0 {:#x}", hardware.fpu.mask());
    let clock = &hardware.clock;
    log!(
        Info,
        "clock: TSC {} kHz, timer {} kHz, by {}",
        clock.tsc_hz / 1000,
        clock.timer_hz / 1000,
        clock.source
    );
    let (kib, ranges) = ((found.free.total() + found.reclaim.total()) / 1024, found.free.list().len());
    log!(Info, "memory: {kib} KiB free in {ranges} ranges, boot heap {} KiB", found.heap.1 / 1024);
    log!(Info, "devices: {} PCI functions silenced, {} devices listed", found.functions, devices.len());
    if found.tables.far_segments > 0 {
        log!(
            Error,
            "{} PCI segments are out of reach: their devices may reach memory",
            found.tables.far_segments
        );
    }
    if let Some((at, bytes)) = found.bundle {
        log!(Info, "boot bundle: {bytes} bytes at {at:#x}");
    }
}

/// Makes the core and runs what it chooses.
fn start_core(found: &Found, devices: DeviceTable) -> ! {
    const MAX: usize = 256;
    let mut usable = [(Frame(0), 0); MAX];
    let mut count = 0;
    // The loader's own memory is free now: its tables, stack and boot information are in use no more.
    for &(start, end) in found.free.list().iter().chain(found.reclaim.list()) {
        if let (Some(slot), Some(frame)) = (usable.get_mut(count), Frame::containing(start)) {
            *slot = (frame, ((end - start) >> 12) as u32);
            count += 1;
        }
    }
    let info = BootInfo {
        usable: usable.get(..count).unwrap_or(&[]),
        bundle: found.bundle.and_then(|(at, bytes)| Some((bundle_bytes(at, bytes), Frame::containing(at)?))),
        devices,
        audit: flag(&found.facts, b"audit").unwrap_or(false),
        #[cfg(feature = "self-check")]
        com1_line: u8::try_from(found.tables.isa[4].line).unwrap_or(u8::MAX),
        #[cfg(feature = "self-check")]
        has_serial: found.has_serial,
        #[cfg(feature = "self-check")]
        ending: super::selfcheck::Ending::from_flags(fwcfg::flags()),
    };
    // SAFETY: boot.
    let glue = unsafe { trap::glue() };
    let Ok(mut core) = ActiveCore::start_on(&mut glue.hardware, info) else {
        serial::report(b"BOOT REFUSED\n");
        glue.hardware.power_off(PowerOff::Failure);
        regs::halt_for_ever();
    };
    let next = core.first_context(&mut glue.hardware);
    glue.core = Some(core);
    let (used, free) = heap::usage();
    log!(Debug, "boot heap: {} KiB used, {} KiB left", used / 1024, free / 1024);
    heap::seal();
    framebuffer::draw_all();
    trap::start(next)
}

/// The bundle's bytes; what follows them in the last frame, which a process may see, is cleared.
fn bundle_bytes(at: u64, bytes: u64) -> &'static [u8] {
    let start = layout::physmap(at) as *mut u8;
    let whole = bytes.next_multiple_of(4096);
    // SAFETY: the loader put the bundle there and nobody else uses its frames; nobody writes to them again.
    unsafe {
        core::ptr::write_bytes(start.add(bytes as usize), 0, (whole - bytes) as usize);
        core::slice::from_raw_parts(start, bytes as usize)
    }
}

/// The log's own copy of the clock: it is read while the machine is borrowed.
static LOG_CLOCK: Once<Clock> = Once::new();

fn now() -> u64 {
    LOG_CLOCK.get().map_or(0, Clock::now)
}

fn show(line: &[u8]) {
    serial::write(line);
    framebuffer::write(line);
}
