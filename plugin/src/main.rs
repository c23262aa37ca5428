//! The program that `kubectl registry` runs.

fn main() -> std::process::ExitCode {
    kubectl_registry::main()
}
