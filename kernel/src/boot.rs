//! From a signed boot bundle to running processes: exactly what the BootManifest lists.

use alloc::vec::Vec;
use core::fmt;

use sila_abi::boot::{
    BootManifest, BootModule, BootObject, BootObjectKind, Bundle, BundleError, EntryKind, Floor,
};
use sila_abi::facts::KernelFact;
use sila_abi::package::{LoadProof, Package};
use sila_abi::record::Name;
use sila_abi::trust::{FloorRecord, Purpose, Record, SignatureSet};
use sila_abi::{Error, ObjectType, Rights};
use sila_crypto::SecureBool;
use sila_crypto::chain::{self, ChainError, RootKeys, Verified};
use sila_crypto::hash::{bulk_digest, id_digest};

use crate::cap::{Cap, ObjRef, Origin};
use crate::device_table::DeviceTable;
use crate::embryo::{Check, Recipe};
use crate::endow::{self, Authority, Source};
use crate::frames::{Epoch, FrameTable};
use crate::kernel::{Capacities, Fail, Kernel, PERMANENT, reference};
use crate::keyring::KeyRing;
use crate::machine::{FRAME_SIZE, Frame, Machine};
use crate::mint::{self, NotMinted};
use crate::objects::*;
use crate::rate::Bucket;

/// Why the system does not start.
#[derive(Debug)]
pub enum BootError {
    /// There is no boot bundle, or it is malformed.
    Bundle(BundleError),
    /// The bundle lacks a part.
    Missing(EntryKind),
    /// A signature, key or digest is wrong.
    Chain(ChainError),
    /// A module cannot be made.
    Module(Name, Fail),
    /// A module of the bundle lacks its image or manifest.
    ModuleMissing(Name),
    /// An object cannot be made.
    Object(Name, Error),
    /// A part of a device is not handed out.
    Device(Name, NotMinted),
    /// The kernel's own storage does not suffice.
    Memory,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(e) => write!(f, "the boot bundle is unusable: {e}"),
            Self::Missing(kind) => write!(f, "the boot bundle has no {kind:?}"),
            Self::Chain(e) => write!(f, "the boot bundle is not trusted: {e}"),
            Self::Module(n, e) => write!(f, "boot module {n}: {} ({:?})", e.error, e.detail),
            Self::ModuleMissing(n) => write!(f, "boot module {n} is not in the bundle"),
            Self::Object(n, e) => write!(f, "boot object {n}: {e}"),
            Self::Device(n, e) => write!(f, "boot object {n}: {e}"),
            Self::Memory => f.write_str("not enough memory to start"),
        }
    }
}

impl From<ChainError> for BootError {
    fn from(e: ChainError) -> Self {
        BootError::Chain(e)
    }
}

/// What the loader found.
pub struct BootInfo {
    /// The boot bundle's bytes, in memory that nothing else uses, for ever.
    pub bundle: &'static [u8],
    /// The frame that the bundle begins with.
    pub bundle_frame: Frame,
    /// Bytes of usable RAM.
    pub ram_bytes: u64,
    /// Page tables are to be audited, though this is no test system.
    pub audit: bool,
}

/// A boot object and the capability that stands for it.
struct Named {
    name: Name,
    cap: Cap,
}

impl Kernel {
    /// Verifies the bundle and starts what it lists.
    pub fn boot(
        m: &mut impl Machine,
        frames: FrameTable,
        devices: DeviceTable,
        info: &BootInfo,
    ) -> Result<Self, BootError> {
        let bundle = Bundle::parse(info.bundle).map_err(BootError::Bundle)?;
        let root = RootKeys::decode(part(&bundle, EntryKind::RootSet)?)?;
        let signatures =
            SignatureSet::decode(part(&bundle, EntryKind::BootSignature)?).map_err(ChainError::from)?;
        let manifest =
            chain::verify_boot_manifest(part(&bundle, EntryKind::BootManifest)?, &signatures, &root)?;
        let mut kernel = Kernel::new(frames, Capacities::BOOT).ok_or(BootError::Memory)?;
        kernel.ram_bytes = info.ram_bytes;
        kernel.devices = devices;
        kernel.auditing = info.audit;
        kernel.test_hooks = SecureBool::new(manifest.purpose == Purpose::Test);
        if kernel.is_test_system() {
            kernel.verifier.prepare_hold();
        }
        kernel.keyring = KeyRing::from_boot(&manifest, root)?;
        kernel.import_floors(m, &bundle, &manifest)?;
        let mut objects = Vec::new();
        for object in manifest.objects.iter() {
            if let Some(cap) = kernel.boot_object(m, object, info)? {
                objects.push(Named { name: object.name, cap });
            }
        }
        for module in manifest.modules.iter() {
            kernel.boot_module(m, &bundle, info, &manifest, module, &objects)?;
        }
        if kernel.is_test_system() {
            kernel.prepare_checks();
        }
        if kernel.audited() {
            kernel.prepare_audit();
        }
        m.log(format_args!(
            "boot manifest {} ({:?}): {} modules, {} objects verified",
            manifest.sequence,
            manifest.purpose,
            manifest.modules.len(),
            manifest.objects.len()
        ));
        Ok(kernel)
    }

    /// Raises floors as the bundle's unsigned floor record says, each at most as far as a package or boot module of
    /// the bundle goes whose publisher signed for it.
    fn import_floors(
        &mut self,
        m: &mut impl Machine,
        bundle: &Bundle<'static>,
        boot: &Verified<BootManifest>,
    ) -> Result<(), BootError> {
        let Some(entry) = bundle.first(EntryKind::FloorRecord) else { return Ok(()) };
        let record = FloorRecord::decode(entry.data).map_err(ChainError::from)?;
        // What is revoked, or lies below a floor, is not there.
        let ring = &self.keyring;
        let proven = |bytes: &[u8]| {
            let package = Package::parse(bytes).ok()?;
            chain::verify_manifest(&LoadProof::of_package(&package), ring).ok().map(Verified::into_inner)
        };
        let present = |floor: &Floor| {
            let packages = bundle.of_kind(EntryKind::Package).filter(|e| e.name == floor.name);
            let started =
                boot.modules.iter().filter(|module| module.name == floor.name).filter_map(|module| {
                    let encoded = bundle.find(EntryKind::ModuleManifest, &module.name)?.data;
                    chain::verify_boot_module(boot, module, encoded, ring).ok().map(Verified::into_inner)
                });
            let signed = packages.filter_map(|entry| proven(entry.data)).chain(started);
            let ours = signed.filter(|m| m.publisher == floor.publisher && m.name == floor.name);
            ours.map(|m| m.security_version).max().unwrap_or(0)
        };
        let present: Vec<u32> = record.floors.iter().map(present).collect();
        self.keyring.import_floors(&record, &present).map_err(|_| BootError::Memory)?;
        let state = self.keyring.record();
        m.log(format_args!(
            "floor record: {} floors raised, {} above what the bundle holds",
            state.floors_imported, state.floors_clipped
        ));
        Ok(())
    }

    /// Makes a boot object; `None` for an optional part of a device that there is not. The kernel itself
    /// holds one capability to it, so that it never ends.
    pub(crate) fn boot_object(
        &mut self,
        m: &mut impl Machine,
        object: &BootObject,
        info: &BootInfo,
    ) -> Result<Option<Cap>, BootError> {
        let made = match self.mint(m, &object.kind) {
            Some(Err(NotMinted::Device(refusal))) if mint::is_optional(&object.kind) => {
                m.log(format_args!("boot object {} is left out: {refusal}", object.name));
                return Ok(None);
            }
            Some(made) => made.map_err(|e| BootError::Device(object.name, e)),
            None => self.plain_object(object, info).map_err(|e| BootError::Object(object.name, e)),
        };
        let cap = Cap { object: made?, rights: Rights::USE, badge: 0, origin: Origin::NONE };
        self.hold(&cap);
        Ok(Some(cap))
    }

    /// Makes a boot object that is no part of a device.
    fn plain_object(&mut self, object: &BootObject, info: &BootInfo) -> Result<ObjRef, Error> {
        let permanent = |kind, index| ObjRef { kind, index, generation: PERMANENT };
        let root = self.root_pool;
        Ok(match object.kind {
            BootObjectKind::Pool { frames, object_bytes } => {
                reference(ObjectType::Pool, self.split_pool(root, frames, object_bytes)?)
            }
            BootObjectKind::Endpoint { ceiling, durable } => {
                reference(ObjectType::Endpoint, self.new_endpoint(root, None, None, durable, ceiling)?)
            }
            BootObjectKind::Notification => reference(ObjectType::Notification, self.new_notification(root)?),
            BootObjectKind::Job => reference(ObjectType::Job, self.new_job()?),
            BootObjectKind::KeyRing => permanent(ObjectType::KeyRing, 0),
            BootObjectKind::Policy => permanent(ObjectType::Policy, 0),
            BootObjectKind::SystemControl => permanent(ObjectType::SystemControl, 0),
            BootObjectKind::TestControl if self.is_test_system() => permanent(ObjectType::TestControl, 0),
            BootObjectKind::Clock => permanent(ObjectType::Clock, 0),
            BootObjectKind::ModuleCache { frames, entries } => {
                self.make_cache(frames, entries)?;
                permanent(ObjectType::ModuleCache, 0)
            }
            BootObjectKind::BundleRegion => {
                let pages = info.bundle.len().div_ceil(FRAME_SIZE) as u32;
                reference(ObjectType::Region, self.fixed_region(info.bundle_frame, pages)?)
            }
            _ => return Err(Error::InvalidOperation),
        })
    }

    fn new_job(&mut self) -> Result<JobId, Error> {
        let pool = self.root_pool;
        self.charge(pool, 0, cost::<Job>())?;
        self.jobs
            .insert(Job { pool, caps: 0, members: 0, creations: Bucket::default() })
            .map_err(|_| Error::ArenaFull)
    }

    /// A sealed Region over frames that no Pool paid for.
    fn fixed_region(&mut self, first: Frame, pages: u32) -> Result<RegionId, Error> {
        let pool = self.root_pool;
        self.charge(pool, 0, cost::<Region>())?;
        let region = Region {
            pool: None,
            caps: 0,
            backing: Backing::Contiguous(first),
            pages,
            filled: pages,
            sealed: SecureBool::ALLOW,
            dead: false,
            mappings: 0,
            writable: 0,
            pins: 0,
            epoch: Epoch::default(),
        };
        self.regions.insert(region).map_err(|_| Error::ArenaFull)
    }

    fn boot_module(
        &mut self,
        m: &mut impl Machine,
        bundle: &Bundle<'static>,
        info: &BootInfo,
        boot: &Verified<BootManifest>,
        module: &BootModule,
        objects: &[Named],
    ) -> Result<(), BootError> {
        let missing = || BootError::ModuleMissing(module.name);
        let encoded = bundle.find(EntryKind::ModuleManifest, &module.name).ok_or_else(missing)?.data;
        let image = bundle.find(EntryKind::ModuleImage, &module.name).ok_or_else(missing)?;
        let manifest = chain::verify_boot_module(boot, module, encoded, &self.keyring)?;
        let binary =
            chain::check_boot_image(&manifest, boot, image.data.len() as u64, &bulk_digest(image.data))?;
        let page = image.data.get(..FRAME_SIZE).ok_or_else(missing)?;
        let sif = chain::verify_image_header(&manifest, &binary, page)?;
        let first = Frame(info.bundle_frame.0 + (image.off / FRAME_SIZE as u64) as u32);
        let failed = |e: Fail| BootError::Module(module.name, e);
        let region = self
            .fixed_region(first, image.data.len().div_ceil(FRAME_SIZE) as u32)
            .map_err(|e| failed(e.into()))?;
        let plan = endow::plan(&manifest.requests, Authority::BootManifest, |i| {
            let mut source = source_for(&manifest.requests, i, module, objects)?;
            (source.amount, source.whole) = self.amount_of(&source.cap);
            Some(source)
        });
        let plan = plan.map_err(failed)?;
        let job = module.job.as_ref().and_then(|n| objects.iter().find(|o| o.name == *n));
        let job = match job {
            Some(named) => crate::kernel::id_of(&named.cap),
            None => self.root_job().map_err(|e| failed(e.into()))?,
        };
        let recipe = Recipe {
            manifest: &manifest,
            sif: &sif,
            digest: id_digest(encoded),
            image: region,
            payer: self.root_pool,
            quota: (module.frames, module.object_bytes),
            job,
            priority: module.priority,
        };
        let mut embryo = self.conceive(m, &recipe).map_err(failed)?;
        while !embryo.is_whole() {
            self.grow_embryo(m, &mut embryo, &recipe).map_err(failed)?;
        }
        let resolved = manifest.contract.resolve(KernelFact::find);
        let hashed = binary.image_digest == manifest.image_digest;
        let sources = |i| source_for(&manifest.requests, i, module, objects).map(|s| s.cap.object);
        let check = Check { made_by: None, verified: hashed, resolved: &resolved, sources: &sources };
        let process = self.bear(m, &embryo, &plan, &recipe, &check).map_err(failed)?;
        self.keyring.remember(&manifest, recipe.digest);
        self.set_receiver(process, module, objects);
        if module.autostart {
            self.start_boot_process(process);
        }
        Ok(())
    }

    /// The Job of boot modules that name none; made once.
    fn root_job(&mut self) -> Result<JobId, Error> {
        match self.boot_job {
            Some(id) => Ok(id),
            None => {
                let job = self.new_job()?;
                self.boot_job = Some(job);
                Ok(job)
            }
        }
    }

    fn set_receiver(&mut self, process: ProcessId, module: &BootModule, objects: &[Named]) {
        for name in module.receives.iter() {
            if let Some(named) = objects.iter().find(|o| o.name == *name)
                && let Some(e) = self.endpoints.get_mut(crate::kernel::id_of(&named.cap))
            {
                e.receiver = Some(process);
            }
        }
    }

    fn start_boot_process(&mut self, process: ProcessId) {
        let Some(p) = self.processes.get_mut(process) else { return };
        p.state = ProcessState::Running;
        if let Some(t) = p.threads {
            self.make_ready(t);
        }
    }

    /// Counts a capability that the kernel itself holds.
    pub(crate) fn hold(&mut self, cap: &Cap) {
        self.count_cap(cap.object, 1);
        self.held.push(cap.object);
    }
}

fn part<'a>(bundle: &Bundle<'a>, kind: EntryKind) -> Result<&'a [u8], BootError> {
    bundle.first(kind).map(|e| e.data).ok_or(BootError::Missing(kind))
}

/// The source of a boot module's request: the boot object that its grant names, with the grant's rights
/// and badge.
fn source_for(
    requests: &[sila_abi::manifest::CapRequest],
    index: usize,
    module: &BootModule,
    objects: &[Named],
) -> Option<Source> {
    let sila_abi::manifest::Selector::Grant(name) = requests.get(index)?.selector else { return None };
    let grant = module.grants.iter().find(|g| g.request == name)?;
    let object = objects.iter().find(|o| o.name == grant.object)?;
    // A boot grant may be passed on whole whether or not the module itself may copy it.
    let rights = Rights::from_bits(grant.rights)?;
    let cap = Cap {
        object: object.cap.object,
        rights: rights | Rights::ENDOW,
        badge: grant.badge,
        origin: Origin::NONE,
    };
    Some(Source { cap, parent: None, alive: true, amount: 0, whole: 0 })
}
