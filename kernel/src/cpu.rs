//! What kind of processor this is, and which defences it needs: a pure function from facts to
//! decisions, so that every case is tested on the host, also those that no emulator shows.
//!
//! Invariant: nothing here reads hardware. `arch` fills in [`Facts`] once at boot.

use bitflags::bitflags;

bitflags! {
    /// Features that the kernel uses when they exist. It boots without any of them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Features: u32 {
        /// Supervisor mode execution prevention.
        const SMEP = 1 << 0;
        /// Supervisor mode access prevention.
        const SMAP = 1 << 1;
        /// User mode instruction prevention.
        const UMIP = 1 << 2;
        /// RDFSBASE and its siblings.
        const FSGSBASE = 1 << 3;
        /// XSAVE and XRSTOR.
        const XSAVE = 1 << 4;
        /// Pages of 1 GiB.
        const GIB_PAGES = 1 << 5;
        /// Global pages.
        const GLOBAL_PAGES = 1 << 6;
        /// Page attribute table (write-combining framebuffer).
        const PAT = 1 << 7;
        /// The time stamp counter runs at one rate in all power states.
        const INVARIANT_TSC = 1 << 8;
        /// Runs under a hypervisor.
        const HYPERVISOR = 1 << 9;
        /// The processor restores x87 error pointers even when no exception is pending.
        const X87_POINTERS = 1 << 10;
        /// IBRS and IBPB (SPEC_CTRL and PRED_CMD exist).
        const IBRS_IBPB = 1 << 11;
        /// IBPB alone (AMD).
        const IBPB = 1 << 12;
        /// VERW clears the buffers (microcode with MD_CLEAR).
        const MD_CLEAR = 1 << 13;
        /// IA32_ARCH_CAPABILITIES exists.
        const ARCH_CAPABILITIES = 1 << 14;
    }
}

/// Who made the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Vendor {
    /// GenuineIntel
    Intel,
    /// AuthenticAMD or HygonGenuine
    Amd,
    /// Anybody else
    #[default]
    Other,
}

/// Bits of IA32_ARCH_CAPABILITIES.
pub mod capability {
    /// Not open to Meltdown.
    pub const RDCL_NO: u64 = 1 << 0;
    /// IBRS may stay on all the time.
    pub const IBRS_ALL: u64 = 1 << 1;
    /// Not open to microarchitectural data sampling.
    pub const MDS_NO: u64 = 1 << 5;
}

/// What CPUID and the capability register said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The maker.
    pub vendor: Vendor,
    /// Display family.
    pub family: u16,
    /// Display model.
    pub model: u8,
    /// What the kernel can use.
    pub features: Features,
    /// IA32_ARCH_CAPABILITIES, 0 where there is none.
    pub capabilities: u64,
}

/// What the kernel does about the processor's weaknesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mitigations {
    /// Ring 3 runs on page tables without the kernel.
    pub kpti: bool,
    /// SPEC_CTRL.IBRS is set once and stays.
    pub ibrs_always: bool,
    /// An indirect branch barrier at each switch to another address space.
    pub ibpb_on_switch: bool,
    /// VERW on the way to ring 3.
    pub verw_on_exit: bool,
}

/// Models of Intel's family 6 that execute in order and so do not speculate past a fault: Bonnell and Saltwell. Whatever
/// else is safe says so by [`capability::RDCL_NO`].
const INTEL_WITHOUT_MELTDOWN: [u8; 5] = [0x1c, 0x26, 0x27, 0x35, 0x36];

/// Decides the mitigations. `kpti` forces that one on or off where the boot flags say so.
#[must_use]
pub fn mitigations(facts: &Facts, kpti: Option<bool>) -> Mitigations {
    let has = |f| facts.features.contains(f);
    let listed = facts.family == 6 && INTEL_WITHOUT_MELTDOWN.contains(&facts.model);
    let meltdown = match facts.vendor {
        Vendor::Amd => false,
        Vendor::Intel => facts.capabilities & capability::RDCL_NO == 0 && !listed,
        Vendor::Other => true,
    };
    let sampling = facts.vendor == Vendor::Intel
        && facts.capabilities & capability::MDS_NO == 0
        && has(Features::MD_CLEAR);
    Mitigations {
        kpti: kpti.unwrap_or(meltdown),
        ibrs_always: has(Features::IBRS_IBPB) && facts.capabilities & capability::IBRS_ALL != 0,
        ibpb_on_switch: has(Features::IBRS_IBPB) || has(Features::IBPB),
        verw_on_exit: sampling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intel(model: u8, capabilities: u64, features: Features) -> Facts {
        Facts { vendor: Vendor::Intel, family: 6, model, features, capabilities }
    }

    #[test]
    fn haswell_needs_kpti_and_a_fixed_part_does_not() {
        assert!(mitigations(&intel(0x3c, 0, Features::empty()), None).kpti);
        let fixed = capability::RDCL_NO | capability::MDS_NO | capability::IBRS_ALL;
        let m = mitigations(&intel(0x6a, fixed, Features::IBRS_IBPB | Features::MD_CLEAR), None);
        assert_eq!(
            m,
            Mitigations { kpti: false, ibrs_always: true, ibpb_on_switch: true, verw_on_exit: false }
        );
    }

    #[test]
    fn in_order_atoms_need_no_kpti_but_only_in_family_6() {
        assert!(!mitigations(&intel(0x1c, 0, Features::empty()), None).kpti);
        let other = Facts { family: 15, ..intel(0x1c, 0, Features::empty()) };
        assert!(mitigations(&other, None).kpti);
    }

    #[test]
    fn amd_needs_no_kpti_and_an_unknown_maker_does() {
        let amd = Facts { vendor: Vendor::Amd, family: 0x17, ..Facts::default() };
        assert!(!mitigations(&amd, None).kpti);
        assert!(mitigations(&Facts::default(), None).kpti);
    }

    #[test]
    fn the_boot_flag_wins_both_ways() {
        let amd = Facts { vendor: Vendor::Amd, ..Facts::default() };
        assert!(mitigations(&amd, Some(true)).kpti);
        assert!(!mitigations(&intel(0x3c, 0, Features::empty()), Some(false)).kpti);
    }

    /// The flags whose bits are set in `choice`.
    fn chosen<T: Copy>(all: &[T], choice: usize) -> impl Iterator<Item = T> {
        all.iter().enumerate().filter(move |(i, _)| choice >> i & 1 == 1).map(|(_, flag)| *flag)
    }

    /// Every vendor, family, model, feature and capability that the decision can depend on, and every boot flag.
    #[test]
    fn every_combination_of_facts_is_decided_by_the_rules() {
        use capability::{IBRS_ALL, MDS_NO, RDCL_NO};
        let bits = [Features::IBRS_IBPB, Features::IBPB, Features::MD_CLEAR, Features::ARCH_CAPABILITIES];
        let bonnell_or_saltwell = |model| matches!(model, 0x1c | 0x26 | 0x27 | 0x35 | 0x36);
        for vendor in [Vendor::Intel, Vendor::Amd, Vendor::Other] {
            for (family, model) in
                [5, 6, 7, 15, 23, 25].into_iter().flat_map(|f| (0..=255).map(move |m| (f, m)))
            {
                for choice in 0..16 * 8 {
                    let features = chosen(&bits, choice % 16).fold(Features::empty(), |all, one| all | one);
                    let capabilities = chosen(&[RDCL_NO, IBRS_ALL, MDS_NO], choice / 16).sum();
                    let facts = Facts { vendor, family, model, features, capabilities };
                    let m = mitigations(&facts, None);
                    let has = |bit: u64| capabilities & bit != 0;
                    let wanted = Mitigations {
                        kpti: match vendor {
                            Vendor::Amd => false,
                            Vendor::Intel => !(has(RDCL_NO) || family == 6 && bonnell_or_saltwell(model)),
                            Vendor::Other => true,
                        },
                        ibrs_always: has(IBRS_ALL) && features.contains(Features::IBRS_IBPB),
                        ibpb_on_switch: features.intersects(Features::IBRS_IBPB | Features::IBPB),
                        verw_on_exit: vendor == Vendor::Intel
                            && !has(MDS_NO)
                            && features.contains(Features::MD_CLEAR),
                    };
                    assert_eq!(m, wanted, "{facts:?}");
                    for kpti in [false, true] {
                        assert_eq!(mitigations(&facts, Some(kpti)), Mitigations { kpti, ..m }, "{facts:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_other_feature_or_capability_changes_a_decision() {
        let facts = intel(0x3c, 0, Features::empty());
        let deciding = Features::IBRS_IBPB | Features::IBPB | Features::MD_CLEAR;
        for one in Features::all().difference(deciding).iter() {
            assert_eq!(mitigations(&Facts { features: one, ..facts }, None), mitigations(&facts, None));
        }
        for bit in (0..64).filter(|bit| ![0, 1, 5].contains(bit)) {
            let odd = Facts { capabilities: 1 << bit, ..facts };
            assert_eq!(mitigations(&odd, None), mitigations(&facts, None), "bit {bit}");
        }
    }
}
