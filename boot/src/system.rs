//! From sources to a bootable image.
use crate::cli::SystemArgs;
use crate::flash::Purpose;
use crate::{bare, image, nested, toolchain};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// An image and the kernel's debug information.
#[derive(Debug, Clone)]
pub struct Image {
    /// The disk image.
    pub path: PathBuf,
    /// The kernel's ELF file.
    pub kernel: PathBuf,
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
    let ramdisk = match &args.ramdisk {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => bundle(&tools, args)?,
    };
    image::write_from(out, &loader, &kernel, ramdisk)?;
    Ok(Image { path: out.to_path_buf(), kernel })
}

/// The boot bundle.
fn bundle(_tools: &toolchain::Toolchain, _args: &SystemArgs) -> Result<Vec<u8>> {
    Ok(Vec::new())
}

/// What keys a boot bundle is signed with.
pub fn purpose_of(_bundle: &[u8]) -> Result<Purpose> {
    Ok(Purpose::Test)
}
