//! Builds `innkeeper-shim` as a static program, which the crate embeds.
//!
//! Guests see only the host's Nix store, so the program at their door must not need a dynamic linker. Cargo cannot build a
//! dependency's program with a different linkage, but the shim's only dependency is `innkeeper-copy`, which has none: the
//! compiler alone suffices.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "../innkeeper-shim/src";
const COPY_SOURCES: &str = "../innkeeper-copy/src";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-changed={COPY_SOURCES}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    match build() {
        Ok(shim) => println!("cargo::rustc-env=INNKEEPER_SHIM={}", shim.display()),
        Err(error) => println!("cargo::error={error}"),
    }
}

fn build() -> Result<PathBuf, String> {
    let directory = variable("OUT_DIR")?;
    let shim = Path::new(&directory).join("innkeeper-shim");
    let copy = Path::new(&directory).join("libinnkeeper_copy.rlib");
    let mut library = compiler("innkeeper_copy", "rlib")?;
    library
        .arg(format!("{COPY_SOURCES}/lib.rs"))
        .arg("-o")
        .arg(&copy);
    compile(library)?;
    let mut program = compiler("innkeeper_shim", "bin")?;
    program
        .arg(format!("--extern=innkeeper_copy={}", copy.display()))
        .arg(format!("{SOURCES}/main.rs"))
        .arg("-o")
        .arg(&shim);
    compile(program)?;
    Ok(shim)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a build script has no crate::command"
)]
fn compiler(name: &str, kind: &str) -> Result<Command, String> {
    let target = variable("TARGET")?;
    let mut compiler = Command::new(variable("RUSTC")?);
    // The user's flags come first, so that the flags below override them.
    compiler.args(
        env::var("CARGO_ENCODED_RUSTFLAGS")
            .unwrap_or_default()
            .split('\u{1f}')
            .filter(|flag| !flag.is_empty()),
    );
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    compiler
        .arg("--edition=2024")
        .arg(format!("--crate-name={name}"))
        .arg(format!("--crate-type={kind}"))
        .args([
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ])
        .args(["--target", &target]);
    Ok(compiler)
}

fn compile(mut compiler: Command) -> Result<(), String> {
    let target = variable("TARGET")?;
    let output = compiler
        .output()
        .map_err(|error| format!("cannot run the compiler for innkeeper-shim: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    // Cargo's error is one line. The compiler's output precedes it.
    let stderr = String::from_utf8_lossy(&output.stderr);
    for line in stderr.lines() {
        println!("cargo::warning={line}");
    }
    Err(
        if stderr.contains("-lc") || stderr.contains("crt1.o") || stderr.contains("libc.a") {
            format!(
                "innkeeper-shim must be static, and the C library's static half for {target} is missing: \
             install it (Debian: libc6-dev; NixOS: glibc.static), or build for a -musl target"
            )
        } else {
            format!(
                "innkeeper-shim does not build for {target} ({})",
                output.status
            )
        },
    )
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
