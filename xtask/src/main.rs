//! The project's chores. Each is a subcommand with a file of its own; this file only lists them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks to a person")]

mod bench;
mod cluster;
mod demo;
mod generate;
mod given;
mod image;
mod krew;
mod test;
mod units;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Measure the release build on a real API server: times against plain writers, requests, memory, size
    Bench(bench::Arguments),
    /// A real Kubernetes on this machine, for working by hand
    Cluster(cluster::Arguments),
    /// Show the product from nothing: Kubernetes, Helm, one manifest, push, pull, a killed process (needs root on Linux)
    Demo(demo::Arguments),
    /// Write the files that follow from others, or check them
    Generate(generate::Arguments),
    /// Make the operator's image, without an image builder
    Image(image::Arguments),
    /// Write the manifest by which Krew installs kubectl registry, for archives that are built
    Krew(krew::Arguments),
    /// Run the tests: all of them, or some groups
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Cluster(arguments) => cluster::run(arguments).map(|()| ExitCode::SUCCESS),
        Chore::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Chore::Generate(arguments) => generate::run(&arguments),
        Chore::Image(arguments) => image::run(&arguments).map(|()| ExitCode::SUCCESS),
        Chore::Krew(arguments) => krew::run(&arguments).map(|()| ExitCode::SUCCESS),
        Chore::Test(arguments) => test::run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
