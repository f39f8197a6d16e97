//! Mixed load with random deaths, and a look at what is left of them: `cargo xtask soak`.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("soak: what is left behind is looked for on Linux only");
    std::process::exit(2);
}
