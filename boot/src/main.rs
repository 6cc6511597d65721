//! The host tool `sila`.
#![forbid(unsafe_code)]

use boot::cli::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn act(cli: Cli) -> anyhow::Result<u8> {
    match cli.command {
        None => Ok(boot::run::run(&cli.run)?.status()),
        Some(Command::Run(args)) => Ok(boot::run::run(&args)?.status()),
        Some(Command::Image(args)) => {
            args.system.check_files()?;
            let made = boot::system::make_image(&args.system, &args.out)?;
            println!("wrote {}", made.path.display());
            Ok(0)
        }
        Some(Command::Build) => {
            let built = boot::bare::everything()?;
            println!("kernel {}", built.kernel.display());
            for (name, path) in &built.programs {
                println!("{name} {}", path.display());
            }
            Ok(0)
        }
        Some(Command::Bench(args)) => boot::bench::run(&args),
        Some(Command::Mutants(args)) => boot::mutants::run(&args),
        Some(Command::Fuzz(args)) => boot::fuzz::run(&args),
        Some(Command::FuzzPackage(args)) => boot::fuzz_package::run(&args),
        Some(Command::Keygen(args)) => args.run().map(|()| 0),
        Some(Command::Certify(args)) => args.run().map(|()| 0),
        Some(Command::Revoke(args)) => args.run().map(|()| 0),
        Some(Command::Rootset(args)) => args.run().map(|()| 0),
        Some(Command::Policy(args)) => args.run().map(|()| 0),
        Some(Command::Floors(args)) => args.run().map(|()| 0),
        Some(Command::AddSignature(args)) => args.run().map(|()| 0),
        Some(Command::NewModule(args)) => args.run().map(|()| 0),
        Some(Command::BuildModule(args)) => args.run().map(|()| 0),
        Some(Command::Pack(args)) => args.run().map(|()| 0),
        Some(Command::Verify(args)) => args.run().map(|()| 0),
        Some(Command::Inspect(args)) => args.run().map(|()| 0),
        Some(Command::Push(args)) => args.run().map(|()| 0),
        Some(Command::ExportFloors(args)) => args.run().map(|()| 0),
        Some(Command::Clippy) => {
            boot::bare::lint(&boot::toolchain::select()?)?;
            Ok(0)
        }
        Some(Command::Flash(args)) => {
            boot::flash::run(&args, &Default::default(), &boot::system::purpose_of)?;
            Ok(0)
        }
        Some(Command::Doctor) => Ok(if boot::doctor::run() { 0 } else { 3 }),
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match act(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("sila: {error:#}");
            ExitCode::from(boot::missing::status(&error))
        }
    }
}
