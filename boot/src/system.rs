//! From sources to a bootable image.
use crate::bare::{self, Built};
use crate::cli::SystemArgs;
use crate::flash::Purpose;
use crate::image::{self, Contents};
use crate::paths::Scratch;
use crate::{nested, toolchain};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An image and the kernel's debug information.
#[derive(Debug, Clone)]
pub struct Image {
    /// The disk image.
    pub path: PathBuf,
    /// The kernel's ELF file.
    pub kernel: PathBuf,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Builds what `args` asks for and writes it as a disk image to `out`.
pub fn make_image(args: &SystemArgs, out: &Path) -> Result<Image> {
    nested::new_log()?;
    let tools = toolchain::select()?;
    let loader = bare::loader(&tools)?;
    let kernel = match &args.kernel {
        Some(path) => path.clone(),
        None => bare::kernel(&tools)?,
    };
    let programs = match &args.ramdisk {
        Some(_) => BTreeMap::new(),
        None => bare::programs(&tools, &bare::PROGRAMS)?,
    };
    let built = Built { kernel, programs, loader };
    let ramdisk = match &args.ramdisk {
        Some(path) => read(path)?,
        None => bundle(&built, &args.packages)?,
    };
    write_image(&built, ramdisk, out)
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

/// The boot bundle of the built programs, with more packages if there are any.
pub fn bundle(_built: &Built, _packages: &[PathBuf]) -> Result<Vec<u8>> {
    Ok(Vec::new())
}

/// What keys a boot bundle is signed with.
pub fn purpose_of(_bundle: &[u8]) -> Result<Purpose> {
    Ok(Purpose::Test)
}
