//! The operator's program.

fn main() -> std::process::ExitCode {
    private_registry_operator::cli::main()
}
