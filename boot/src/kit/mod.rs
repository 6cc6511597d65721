//! The module developer's kit: a crate outside the source tree becomes a module by `new-module`, `build-module` and
//! `pack`.

mod build;
mod new;

pub use build::{BuildModuleArgs, ModuleFolder};
pub use new::NewModuleArgs;
