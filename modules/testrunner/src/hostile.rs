//! Agents that are hostile. A second ModuleManager, which is honest, has the runner's own endpoints in the place of
//! DeepCompression's and ServiceRegistry's; what a hostile ModuleManager does the runner does itself, as it holds
//! everything that ModuleManager does.

pub mod compression;
pub mod manager;
pub mod registry;
pub mod service;
