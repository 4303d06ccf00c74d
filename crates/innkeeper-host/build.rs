//! Builds `innkeeper-shim` as a static program and hands it to the crate, which embeds it.
//!
//! A guest sees nothing of the host but the Nix store, so the program that waits at its door must not
//! need a dynamic linker. Cargo cannot build a dependency's program for another linkage than ours; the shim
//! has no dependencies, so the compiler alone is enough.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "../innkeeper-shim/src";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    match build() {
        Ok(shim) => println!("cargo::rustc-env=INNKEEPER_SHIM={}", shim.display()),
        Err(complaint) => println!("cargo::error={complaint}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a build script has no crate::command"
)]
fn build() -> Result<PathBuf, String> {
    let shim = Path::new(&variable("OUT_DIR")?).join("innkeeper-shim");
    let target = variable("TARGET")?;
    let mut compiler = Command::new(variable("RUSTC")?);
    // The user's flags come first, so that ours win where both speak of the same thing.
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
        .args([
            "--edition=2024",
            "--crate-name=innkeeper_shim",
            "--crate-type=bin",
        ])
        .args([
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ])
        .args(["--target", &target])
        .arg(format!("{SOURCES}/main.rs"))
        .arg("-o")
        .arg(&shim);
    let output = compiler
        .output()
        .map_err(|error| format!("cannot run the compiler for innkeeper-shim: {error}"))?;
    if output.status.success() {
        return Ok(shim);
    }
    // Cargo takes one line; the compiler's own words go before it.
    let said = String::from_utf8_lossy(&output.stderr);
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    Err(
        if said.contains("-lc") || said.contains("crt1.o") || said.contains("libc.a") {
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
