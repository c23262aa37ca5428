//! The operator's program.

/// A fifth less memory and processor time with thousands of objects than the C library's, whose pieces each have a header and leave holes. How it is set
/// stands in `.cargo/config.toml`. Not on ARM: it must know at compile time how large a page of memory is, and there that is the kernel's choice.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    private_registry_operator::cli::main()
}
