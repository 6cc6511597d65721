//! The boot bundle: `boot/bundle.toml` says what the kernel makes and starts; here it becomes a signed boot manifest
//! with everything it names.

use super::bundle_records::{add_records, check_added, store_of_boot};
use super::description::{ModuleDescription, rights};
use super::keys::{KeySet, list, name};
use super::policy::PolicySection;
use super::{pack, read, read_text, sif_build};
use crate::missing::Usage;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use sila_abi::boot::{
    BOOT_FORMAT, BUNDLE_FORMAT, BUNDLE_MAGIC, BUNDLE_RECORD_LEN, BootGrant, BootManifest, BootModule,
    BootObject, BootObjectKind, Bundle, BundleEntry, BundleHeader, EntryKind, Floor,
};
use sila_abi::device::PciDevice;
use sila_abi::manifest::{Codec, Manifest};
use sila_abi::package::Package;
use sila_abi::record::{Name, Version, VersionRange};
use sila_abi::sif::PAGE_SIZE;
use sila_abi::trust::{Certificate, Purpose, Record, Revocation, RevokedItem};
use sila_crypto::chain::RootKeys;
use sila_crypto::hash::id_digest;
use sila_crypto::scheme::Domain;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// A whole `bundle.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleDescription {
    /// Sequence of the boot manifest.
    pub sequence: u64,
    /// Another description whose objects, modules and packages come first, relative to this file.
    pub include: Option<PathBuf>,
    /// Other limits than the default ones.
    pub policy: Option<PolicySection>,
    /// `[[object]]`.
    #[serde(default, rename = "object")]
    pub objects: Vec<ObjectSection>,
    /// `[[module]]`.
    #[serde(default, rename = "module")]
    pub modules: Vec<ModuleEntry>,
    /// `[[withhold]]`: modules and grants of included descriptions that do not hold here.
    #[serde(default, rename = "withhold")]
    pub withheld: Vec<WithheldEntry>,
    /// `[[package]]`.
    #[serde(default, rename = "package")]
    pub packages: Vec<PackageEntry>,
    /// `[[floor]]`.
    #[serde(default, rename = "floor")]
    pub floors: Vec<FloorEntry>,
    /// `[[revoked]]`: module versions.
    #[serde(default, rename = "revoked")]
    pub revoked: Vec<RevokedEntry>,
    /// `[[test-publisher]]`: more publishers, whose keys follow from the test key.
    #[serde(default, rename = "test-publisher")]
    pub test_publishers: Vec<TestPublisher>,
}

/// `[[object]]`: a name, a kind, and the kind's parameters.
#[derive(Clone, Debug, Deserialize)]
pub struct ObjectSection {
    /// The name that grants use.
    pub name: String,
    /// `pool`, `endpoint`, `notification`, `job`, `io-ports`, `irq-handler`, `key-ring`, `policy`,
    /// `system-control`, `test-control`, `bundle-region`, `clock`, `framebuffer`, `audit-log`, `module-cache`,
    /// `device-region`, `device-ports`, `device-irq`.
    pub kind: String,
    /// The kind's parameters.
    #[serde(flatten)]
    pub parameters: toml::Table,
}

/// `[[module]]`: a bootstrap module.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleEntry {
    /// Name of the built program.
    pub program: String,
    /// Its `sila.toml`, relative to the source tree.
    pub description: PathBuf,
    /// Priority of its first thread.
    pub priority: u8,
    /// Frames of its Pool.
    pub frames: u64,
    /// Object bytes of its Pool.
    pub object_bytes: u64,
    /// The Job it is made in.
    pub job: Option<String>,
    /// Endpoints whose receiver it is.
    #[serde(default)]
    pub receives: Vec<String>,
    /// What satisfies its grant requests.
    #[serde(default, rename = "grant")]
    pub grants: Vec<GrantEntry>,
    /// Whether the kernel starts it.
    #[serde(default = "yes")]
    pub autostart: bool,
}

fn yes() -> bool {
    true
}

/// `[[module.grant]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantEntry {
    /// Grant name in the module's manifest.
    pub request: String,
    /// The boot object; left out: the one of the same name.
    pub object: Option<String>,
    /// Names of rights.
    pub rights: Vec<String>,
    /// The badge; 0 is none.
    #[serde(default)]
    pub badge: u64,
}

/// `[[withhold]]`: a module that an included description starts, or a grant that it makes, and this one takes back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithheldEntry {
    /// The program of the module.
    pub program: String,
    /// Grant name in the module's manifest; left out: the whole module.
    pub request: Option<String>,
}

impl WithheldEntry {
    fn take_from(&self, modules: &mut Vec<ModuleEntry>) -> Result<()> {
        let size =
            |modules: &Vec<ModuleEntry>| modules.iter().map(|module| 1 + module.grants.len()).sum::<usize>();
        let before = size(modules);
        match &self.request {
            None => modules.retain(|module| module.program != self.program),
            Some(request) => {
                for module in modules.iter_mut().filter(|module| module.program == self.program) {
                    module.grants.retain(|grant| grant.request != *request);
                }
            }
        }
        if size(modules) == before {
            let what = self.request.as_deref().unwrap_or("itself");
            bail!("nothing gives the program {:?} {what:?}, so it cannot be withheld", self.program);
        }
        Ok(())
    }
}

/// `[[package]]`: a program that goes into the bundle as a signed and compressed package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageEntry {
    /// Name of the built program.
    pub program: String,
    /// Its `sila.toml`, relative to the source tree.
    pub description: PathBuf,
}

/// `[[floor]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloorEntry {
    /// The module's publisher.
    pub publisher: String,
    /// The module's name.
    pub name: String,
    /// Lower security versions are refused.
    pub security_version: u32,
}

/// `[[revoked]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedEntry {
    /// The module's publisher.
    pub publisher: String,
    /// The module's name.
    pub name: String,
    /// Lowest revoked version.
    pub min: String,
    /// Highest revoked version.
    pub max: String,
}

/// `[[test-publisher]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestPublisher {
    /// Its name.
    pub name: String,
    /// Its name prefixes.
    pub prefixes: Vec<String>,
    /// Whether its key is revoked.
    #[serde(default)]
    pub revoked: bool,
    /// Whether its ceiling is as high as the test publisher's, instead of low.
    #[serde(default)]
    pub ample: bool,
}

impl BundleDescription {
    /// Reads a description and those that it includes.
    pub fn load(path: &Path) -> Result<Self> {
        let mut this: Self =
            toml::from_str(&read_text(path)?).with_context(|| format!("in {}", path.display()))?;
        let Some(include) = this.include.take() else { return Ok(this) };
        let mut base = Self::load(&path.with_file_name(include))?;
        for withheld in &this.withheld {
            withheld.take_from(&mut base.modules).with_context(|| format!("in {}", path.display()))?;
        }
        this.policy = this.policy.or(base.policy);
        this.objects.splice(0..0, base.objects);
        this.modules.splice(0..0, base.modules);
        this.packages.splice(0..0, base.packages);
        this.floors.splice(0..0, base.floors);
        this.revoked.splice(0..0, base.revoked);
        this.test_publishers.splice(0..0, base.test_publishers);
        Ok(this)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolParameters {
    frames: u64,
    object_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointParameters {
    #[serde(default = "highest")]
    ceiling: u8,
    #[serde(default)]
    durable: bool,
}

fn highest() -> u8 {
    u8::MAX
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PortParameters {
    base: u16,
    len: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IrqParameters {
    line: u8,
}

/// Names a PCI function, and for windows a base address register of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceParameters {
    vendor: u16,
    device: u16,
    #[serde(default)]
    index: u8,
    bar: Option<u8>,
    #[serde(default)]
    optional: bool,
}

impl DeviceParameters {
    fn to_kind(&self, kind: &str) -> Result<BootObjectKind> {
        let device = PciDevice { vendor: self.vendor, device: self.device, index: self.index };
        let optional = self.optional;
        Ok(match (kind, self.bar) {
            ("device-region", Some(bar)) => BootObjectKind::DeviceRegion { device, bar, optional },
            ("device-ports", Some(bar)) => BootObjectKind::DevicePorts { device, bar, optional },
            ("device-irq", None) => BootObjectKind::DeviceIrq { device, optional },
            ("device-irq", Some(_)) => bail!("a device-irq takes no parameter \"bar\""),
            _ => bail!("a {kind} needs the number of a base address register: bar = 0 to 5"),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheParameters {
    frames: u64,
    entries: u32,
}

impl ObjectSection {
    fn to_object(&self) -> Result<BootObject> {
        let kind = self.to_kind().with_context(|| format!("in the object {:?}", self.name))?;
        Ok(BootObject { name: name(&self.name)?, kind })
    }

    pub(super) fn to_kind(&self) -> Result<BootObjectKind> {
        let given = self.parameters.clone();
        let plain = match self.kind.as_str() {
            "pool" => {
                let PoolParameters { frames, object_bytes } = given.try_into()?;
                return Ok(BootObjectKind::Pool { frames, object_bytes });
            }
            "endpoint" => {
                let EndpointParameters { ceiling, durable } = given.try_into()?;
                return Ok(BootObjectKind::Endpoint { ceiling, durable });
            }
            "io-ports" => {
                let PortParameters { base, len } = given.try_into()?;
                return Ok(BootObjectKind::IoPorts { base, len });
            }
            "irq-handler" => {
                let IrqParameters { line } = given.try_into()?;
                return Ok(BootObjectKind::IrqHandler { line });
            }
            "module-cache" => {
                let CacheParameters { frames, entries } = given.try_into()?;
                return Ok(BootObjectKind::ModuleCache { frames, entries });
            }
            "device-region" | "device-ports" | "device-irq" => {
                let device: DeviceParameters = given.try_into()?;
                return device.to_kind(&self.kind);
            }
            "notification" => BootObjectKind::Notification,
            "job" => BootObjectKind::Job,
            "key-ring" => BootObjectKind::KeyRing,
            "policy" => BootObjectKind::Policy,
            "system-control" => BootObjectKind::SystemControl,
            "test-control" => BootObjectKind::TestControl,
            "bundle-region" => BootObjectKind::BundleRegion,
            "clock" => BootObjectKind::Clock,
            "framebuffer" => BootObjectKind::Framebuffer,
            "audit-log" => BootObjectKind::AuditLog,
            other => bail!("unknown kind {other:?}"),
        };
        match given.keys().next() {
            Some(key) => bail!("a {} takes no parameter {key:?}", self.kind),
            None => Ok(plain),
        }
    }
}

/// What a bundle is made from.
#[derive(Debug)]
pub struct BundleInput<'a> {
    /// The source tree; descriptions of modules are relative to it.
    pub root: &'a Path,
    /// What the kernel makes and starts.
    pub description: &'a BundleDescription,
    /// Built programs: name → ELF file.
    pub programs: &'a BTreeMap<String, PathBuf>,
    /// More packages; they come before the built ones and are taken as they are.
    pub packages: &'a [PathBuf],
    /// Certificates, revocations, floors and a policy that become part of the boot manifest.
    pub records: &'a [PathBuf],
    /// Data for in-guest tests.
    pub test_data: &'a [(String, Vec<u8>)],
    /// All keys.
    pub keys: &'a KeySet,
}

/// Content and directory entry, before they are placed.
#[derive(Clone, Debug)]
pub struct Content {
    /// What it holds.
    pub kind: EntryKind,
    /// Its name, or a hint.
    pub name: Name,
    /// Its version, or a hint.
    pub version: Version,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Content {
    fn new(kind: EntryKind, name: Name, version: Version, data: Vec<u8>) -> Self {
        Self { kind, name, version, data }
    }
}

/// Builds, signs and lays out a bundle.
pub fn build(input: &BundleInput<'_>) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    let mut modules = Vec::new();
    for entry in &input.description.modules {
        modules.push(bootstrap_module(input, entry, &mut contents)?);
    }
    let root = RootKeys::decode(&input.keys.root_set_bytes).map_err(|e| anyhow!("the root set: {e}"))?;
    let mut boot = boot_manifest(input, modules)?;
    let floors = add_records(&mut boot, input.records, &root)?;
    let encoded = boot.encode().map_err(|e| anyhow!("the boot manifest: {e}"))?;
    let signatures = input.keys.root_signatures(Domain::Boot, &encoded)?;
    let store = store_of_boot(&encoded, &signatures, &root)?;
    let signatures = signatures.encode()?;
    let root_set = input.keys.root_set_bytes.clone();
    let head = [
        (EntryKind::RootSet, "root-set", root_set),
        (EntryKind::BootManifest, "boot-manifest", encoded),
        (EntryKind::BootSignature, "boot-signature", signatures),
    ];
    let mut all = Vec::new();
    for (kind, text, data) in head {
        all.push(Content::new(kind, name(text)?, Version::MIN, data));
    }
    if let Some(data) = floors {
        all.push(Content::new(EntryKind::FloorRecord, name("floors")?, Version::MIN, data));
    }
    all.append(&mut contents);
    for path in input.packages {
        let added = added_package(path)?;
        check_added(path, &added.data, boot.purpose, &store)?;
        all.push(added);
    }
    for entry in &input.description.packages {
        all.push(built_package(input, entry)?);
    }
    for (text, data) in input.test_data {
        all.push(Content::new(EntryKind::TestData, name(text)?, Version::MIN, data.clone()));
    }
    layout(&all)
}

fn program(input: &BundleInput<'_>, wanted: &str) -> Result<Vec<u8>> {
    let path = input.programs.get(wanted);
    read(path.with_context(|| format!("the program {wanted:?} was not built"))?)
}

fn bootstrap_module(
    input: &BundleInput<'_>,
    entry: &ModuleEntry,
    contents: &mut Vec<Content>,
) -> Result<BootModule> {
    let description = ModuleDescription::load(&input.root.join(&entry.description))?;
    let image = sif_build::elf_to_sif(&program(input, &entry.program)?)
        .with_context(|| format!("in the program {:?}", entry.program))?;
    let manifest = pack::manifest(&description, &image, &image, Codec::None, &input.keys.publisher)?;
    let encoded = manifest.encode()?;
    let module = boot_module(entry, &manifest, &encoded)?;
    let (name, version) = (manifest.name, manifest.version);
    contents.push(Content::new(EntryKind::ModuleManifest, name, version, encoded));
    contents.push(Content::new(EntryKind::ModuleImage, name, version, image));
    Ok(module)
}

fn boot_module(entry: &ModuleEntry, manifest: &Manifest, encoded: &[u8]) -> Result<BootModule> {
    let grants = entry.grants.iter().map(GrantEntry::to_grant).collect::<Result<Vec<_>>>()?;
    let receives = entry.receives.iter().map(|text| name(text)).collect::<Result<Vec<_>>>()?;
    Ok(BootModule {
        name: manifest.name,
        manifest_digest: id_digest(encoded),
        image_digest: manifest.image_digest,
        priority: entry.priority,
        frames: entry.frames,
        object_bytes: entry.object_bytes,
        job: entry.job.as_deref().map(name).transpose()?,
        receives: list(receives, "receives")?,
        grants: list(grants, "grants")?,
        autostart: entry.autostart,
    })
}

impl GrantEntry {
    fn to_grant(&self) -> Result<BootGrant> {
        let object = self.object.as_ref().unwrap_or(&self.request);
        let rights = rights(&self.rights).with_context(|| format!("in the grant {:?}", self.request))?;
        Ok(BootGrant { request: name(&self.request)?, object: name(object)?, rights, badge: self.badge })
    }
}

fn boot_manifest(input: &BundleInput<'_>, modules: Vec<BootModule>) -> Result<BootManifest> {
    let description = input.description;
    let (certificates, revocations) = trust_records(input)?;
    let objects = description.objects.iter().map(ObjectSection::to_object).collect::<Result<Vec<_>>>()?;
    let floors = description.floors.iter().map(FloorEntry::to_floor).collect::<Result<Vec<_>>>()?;
    Ok(BootManifest {
        format: BOOT_FORMAT,
        sequence: description.sequence,
        purpose: input.keys.root_set.purpose,
        root_set_digest: id_digest(&input.keys.root_set_bytes),
        policy: description.policy.clone().unwrap_or_default().to_policy()?,
        certificates: list(certificates, "certificates")?,
        revocations: list(revocations, "revocations")?,
        floors: list(floors, "floors")?,
        objects: list(objects, "objects")?,
        modules: list(modules, "modules")?,
    })
}

fn trust_records(input: &BundleInput<'_>) -> Result<(Vec<Certificate>, Vec<Revocation>)> {
    let mut certificates = vec![input.keys.publisher.certificate.clone()];
    let mut items = Vec::new();
    for publisher in &input.description.test_publishers {
        let prefixes: Vec<_> = publisher.prefixes.iter().map(String::as_str).collect();
        let made = input.keys.test_publisher(&publisher.name, &prefixes)?;
        let made = if publisher.ample { input.keys.ample(made) } else { made };
        if publisher.revoked {
            items.push(RevokedItem::Key(made.key.id()));
        }
        certificates.push(made.certificate);
    }
    for entry in &input.description.revoked {
        items.push(entry.to_item()?);
    }
    let numbered = items.into_iter().zip(1..);
    let revocations = numbered.map(|(item, sequence)| Revocation { sequence, item }).collect();
    Ok((certificates, revocations))
}

impl FloorEntry {
    fn to_floor(&self) -> Result<Floor> {
        let (publisher, module) = (name(&self.publisher)?, name(&self.name)?);
        Ok(Floor { publisher, name: module, security_version: self.security_version })
    }
}

impl RevokedEntry {
    fn to_item(&self) -> Result<RevokedItem> {
        let version = super::description::version;
        Ok(RevokedItem::Module {
            publisher: name(&self.publisher)?,
            name: name(&self.name)?,
            versions: VersionRange { min: version(&self.min)?, max: version(&self.max)? },
        })
    }
}

fn built_package(input: &BundleInput<'_>, entry: &PackageEntry) -> Result<Content> {
    let description = ModuleDescription::load(&input.root.join(&entry.description))?;
    let package = pack::pack_elf(&description, &program(input, &entry.program)?, &input.keys.publisher)?;
    let version = super::description::version(&description.module.version)?;
    Ok(Content::new(EntryKind::Package, description.name()?, version, package))
}

/// A package file as it is. Its directory entry is a hint: from the manifest if that can be read, else from the
/// file's name.
pub fn added_package(path: &Path) -> Result<Content> {
    let data = read(path)?;
    if data.is_empty() {
        bail!(Usage(format!("{} is empty", path.display())));
    }
    let (hint, version) = match manifest_of(&data) {
        Ok(manifest) => (manifest.name, manifest.version),
        Err(reason) => {
            let stem = stem_name(path)?;
            eprintln!("sila: {}: {reason:#}; it is in the bundle as `{stem}`", path.display());
            (stem, Version::MIN)
        }
    };
    Ok(Content::new(EntryKind::Package, hint, version, data))
}

/// A package's manifest, or why there is none to be read.
pub(crate) fn manifest_of(data: &[u8]) -> Result<Manifest> {
    let package = Package::parse(data).map_err(|e| anyhow!("not a package ({e})"))?;
    Manifest::decode(package.manifest).map_err(|e| anyhow!("its manifest cannot be read ({e})"))
}

/// The file's stem with every byte that no name may have turned into `-`.
fn stem_name(path: &Path) -> Result<Name> {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("package").to_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    let text: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).take(64).collect();
    name(&text)
}

/// Places contents on pages and writes the directory. The result is checked by the kernel's parser.
pub fn layout(contents: &[Content]) -> Result<Vec<u8>> {
    let page = PAGE_SIZE as usize;
    let mut off = (BUNDLE_RECORD_LEN * (1 + contents.len())).next_multiple_of(page);
    let mut directory = Vec::new();
    let mut body = Vec::new();
    for content in contents {
        let version = [content.version.major, content.version.minor, content.version.patch];
        let entry = BundleEntry {
            kind: U16::new(content.kind.number()),
            version: version.map(U16::new),
            off: U64::new(off as u64),
            len: U64::new(content.data.len() as u64),
            reserved: U64::ZERO,
            name: *content.name.padded(),
        };
        directory.extend_from_slice(entry.as_bytes());
        body.extend_from_slice(&content.data);
        body.resize(body.len().next_multiple_of(page), 0);
        off += content.data.len().next_multiple_of(page);
    }
    let header = BundleHeader {
        magic: BUNDLE_MAGIC,
        format: U32::new(BUNDLE_FORMAT),
        count: U32::new(u32::try_from(contents.len())?),
        total_len: U64::new(off as u64),
        reserved: [0; 72],
    };
    let mut bundle = [header.as_bytes(), &directory].concat();
    bundle.resize(bundle.len().next_multiple_of(page), 0);
    bundle.append(&mut body);
    Bundle::parse(&bundle)?;
    Ok(bundle)
}

/// What a bundle's keys are for. The bundle need not be valid beyond its directory.
pub fn purpose_of(bundle: &[u8]) -> Result<Purpose> {
    let bundle = Bundle::parse(bundle)?;
    let entry = bundle.first(EntryKind::BootManifest).context("the bundle has no boot manifest")?;
    Ok(BootManifest::decode(entry.data).map_err(|e| anyhow!("the boot manifest: {e}"))?.purpose)
}
