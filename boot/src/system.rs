//! From sources to a bootable image.
use crate::bare::{self, Built};
use crate::cli::SystemArgs;
use crate::flash;
use crate::image::{self, Contents};
use crate::missing::Usage;
use crate::paths::{self, Scratch};
use crate::pkg::bundle::{self, BundleDescription, BundleInput};
use crate::pkg::keys::{KeySet, test_keys};
use crate::progress::Step;
use crate::{nested, toolchain};
use anyhow::{Context, Result};
use sila_abi::trust::Purpose;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// An image and the kernel's debug information.
#[derive(Debug, Clone)]
pub struct Image {
    /// The disk image.
    pub path: PathBuf,
    /// The kernel's ELF file.
    pub kernel: PathBuf,
}

/// What goes into a boot bundle, besides the programs.
#[derive(Debug, Clone, Default)]
pub struct BundleOptions {
    /// The description; `None` is `boot/bundle.toml`.
    pub description: Option<PathBuf>,
    /// More packages, taken as they are.
    pub packages: Vec<PathBuf>,
    /// Records that become part of the boot manifest.
    pub records: Vec<PathBuf>,
    /// The folder of the keys that sign; `None` is the test keys.
    pub keys: Option<PathBuf>,
    /// The folder of the publisher's key; `None` is the same folder.
    pub publisher_keys: Option<PathBuf>,
    /// Data for in-guest tests.
    pub test_data: Vec<(String, Vec<u8>)>,
}

impl BundleOptions {
    /// Reads the description.
    pub fn describe(&self) -> Result<BundleDescription> {
        match &self.description {
            Some(path) => BundleDescription::load(path),
            None => BundleDescription::load(&paths::root()?.join("boot/bundle.toml")),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| Usage(format!("cannot read {}", path.display())))
}

/// Builds what `args` asks for and writes it as a disk image to `out`.
pub fn make_image(args: &SystemArgs, out: &Path) -> Result<Image> {
    let options = BundleOptions {
        description: args.bundle.clone(),
        packages: args.packages.clone(),
        records: args.records.clone(),
        keys: args.keys.clone(),
        publisher_keys: args.publisher_keys.clone(),
        test_data: Vec::new(),
    };
    let built = build(args.kernel.as_deref(), args.ramdisk.is_none().then_some(&options))?;
    let ramdisk = match &args.ramdisk {
        Some(path) => read(path)?,
        None => make_bundle(&built, &options)?,
    };
    write_image(&built, ramdisk, out)
}

/// Builds the loader, the kernel (or takes this one), and the programs that a bundle needs (or none).
pub fn build(kernel: Option<&Path>, bundle: Option<&BundleOptions>) -> Result<Built> {
    nested::new_log()?;
    let tools = toolchain::select()?;
    let programs = match bundle {
        Some(options) => bare::programs(&tools, &program_names(&options.describe()?))?,
        None => BTreeMap::new(),
    };
    let kernel = match kernel {
        Some(path) => path.to_path_buf(),
        None => bare::kernel(&tools)?,
    };
    Ok(Built { loader: bare::loader(&tools)?, kernel, programs })
}

/// The programs that a bundle is made from, each once.
pub fn program_names(description: &BundleDescription) -> Vec<&str> {
    let modules = description.modules.iter().map(|entry| entry.program.as_str());
    let packages = description.packages.iter().map(|entry| entry.program.as_str());
    modules.chain(packages).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Packs, signs and lays out a boot bundle.
pub fn make_bundle(built: &Built, options: &BundleOptions) -> Result<Vec<u8>> {
    let mut step = Step::start("packing and signing the boot bundle");
    step.at("keys");
    let description = options.describe()?;
    let keys = match &options.keys {
        Some(dir) => KeySet::load_both(dir, options.publisher_keys.as_ref().unwrap_or(dir))?,
        None => test_keys(&paths::state()?)?,
    };
    step.at("modules");
    let bytes = bundle::build(&BundleInput {
        root: &paths::root()?,
        description: &description,
        programs: &built.programs,
        packages: &options.packages,
        records: &options.records,
        test_data: &options.test_data,
        keys: &keys,
    })?;
    step.done();
    Ok(bytes)
}

/// Writes an image with this boot bundle; the kernel goes in without its debug information.
pub fn write_image(built: &Built, ramdisk: Vec<u8>, out: &Path) -> Result<Image> {
    let scratch = Scratch::new()?;
    let stripped = scratch.join("kernel");
    bare::strip(&built.kernel, &stripped)?;
    let contents = Contents { loader: read(&built.loader)?, kernel: read(&stripped)?, ramdisk };
    image::write(out, &contents)?;
    Ok(Image { path: out.to_path_buf(), kernel: built.kernel.clone() })
}

/// What keys a boot bundle is signed with.
pub fn purpose_of(bundle: &[u8]) -> Result<flash::Purpose> {
    Ok(match bundle::purpose_of(bundle)? {
        Purpose::Release => flash::Purpose::Release,
        Purpose::Test => flash::Purpose::Test,
    })
}
